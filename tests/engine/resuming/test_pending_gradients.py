"""Checkpoints within an accumulation, for another number of processes and without the gradients of the others."""

import logging
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('mmengine')

from mmengine.optim import OptimWrapper

import mmgps.engine.resuming.checkpoints as pending
from mmgps.engine.resuming.checkpoints import GRADIENTS_KEY, gathered_gradients, pack_gradients, restore_gradients


def runner_within_an_accumulation() -> SimpleNamespace:
    """Runner of two parameters after one of three accumulated gradients; the first parameter has no gradient."""
    values = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    wrapper = OptimWrapper(torch.optim.SGD(values, lr=1.0), accumulative_counts=3)
    wrapper.update_params((values[1] * torch.tensor([3.0, 6.0])).sum())
    return SimpleNamespace(optim_wrapper=wrapper, values=values, logger=logging.getLogger(__name__))


def test_other_processes_take_up_the_mean() -> None:
    run = runner_within_an_accumulation()
    restore_gradients(run, [[torch.ones(2), None], [None, None], [torch.tensor([2.0, 5.0]), None]])
    assert run.values[0].grad.tolist() == [1.0, 2.0]
    assert run.values[1].grad is None


def test_of_what_cannot_be_resumed_nothing_is_kept() -> None:
    checkpoint: dict = {}
    pack_gradients(runner_within_an_accumulation(), checkpoint)
    assert not checkpoint


def test_a_checkpoint_of_one_process_among_several_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, checkpoint = runner_within_an_accumulation(), dict(optimizer={})
    monkeypatch.setattr(pending, 'get_world_size', lambda: 2)
    pack_gradients(run, checkpoint)
    assert GRADIENTS_KEY not in checkpoint
    assert "let mmengine's CheckpointHook write it" in caplog.text
    monkeypatch.setattr(pending, 'gather_object', lambda own: [own, own])
    with gathered_gradients(run):
        pack_gradients(run, checkpoint)
    [[first, second], other] = checkpoint[GRADIENTS_KEY]
    assert first is None
    assert second.tolist() == [1.0, 2.0]  # mmengine divides the loss by the three
    assert other is not None
    assert not vars(run).get(GRADIENTS_KEY)
