"""Contrastive selection on two processes distributes full batches, sums gradients and gathers no features."""

from pathlib import Path

import pytest
import torch

pytest.importorskip('mmpretrain', reason='mmpretrain is not installed on this stack')

from mmengine.registry import init_default_scope
from ranks import run_ranks
from selection_probe import SEED
from slow_supcon import slow_gradients
from supcon_probe import LABELS, SIZE, WORLD, model
from tiny_classes import PIPELINE, TinyClasses

from mmgps.tuning import GPS


def test_two_processes_select_what_a_slow_loop_over_all_batches_selects(tmp_path: Path) -> None:
    run_ranks('supcon_probe.py', WORLD, tmp_path)
    (gradients, positions), *others = (torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in range(WORLD))
    for other in others:
        for mine, theirs in zip((gradients, positions), other, strict=True):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)

    init_default_scope('mmpretrain')
    made, dataset = model().train(), TinyClasses(LABELS, pipeline=PIPELINE)
    slow = slow_gradients(made, dataset, SEED, SIZE)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, slow[name], rtol=1e-3, atol=1e-5)
    expected = GPS(2).select(made.backbone, {name: slow[name] for name in gradients}).connections
    same = sum(torch.equal(positions[name], expected[name].positions) for name in positions)
    assert same >= len(positions) - 1  # except for ties within rounding

    # Gathered features would also be compared with the batch of the other process, which is another loss.
    gathered = slow_gradients(made, dataset, SEED, SIZE * WORLD)
    assert any(not torch.allclose(gradients[name], gathered[name], rtol=0.1, atol=1e-3) for name in gradients)
