"""One selection pass for any number of processes, which stay synchronized."""

import pytest
import torch

pytest.importorskip('mmseg')

from ranks import run_ranks
from selection_probe import LENGTHS, WORLDS


@pytest.fixture(scope='module')
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Results of each process for five and three samples, in batches of one, on 1, 2 and 4 processes."""
    folder = tmp_path_factory.mktemp('ranks')
    run_ranks('selection_probe.py', max(WORLDS), folder)
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob('*.pth')}


@pytest.mark.parametrize('name', LENGTHS)
def test_gradients_and_choice_are_those_of_one_process(name: str, found: dict) -> None:
    gradients, positions, batches = found[f'{name}-1-0']
    assert batches == LENGTHS[name]
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    for world in WORLDS[1:]:
        for rank in range(world):
            other, chosen, steps = found[f'{name}-{world}-{rank}']
            assert steps == -(-LENGTHS[name] // world)
            for layer, gradient in gradients.items():
                torch.testing.assert_close(other[layer], gradient, rtol=1e-4, atol=1e-6)
            same = sum(torch.equal(chosen[layer], positions[layer]) for layer in positions)
            assert same >= len(positions) - 1, (world, same)  # except for ties within rounding


@pytest.mark.parametrize('name', LENGTHS)
@pytest.mark.parametrize('world', WORLDS[1:])
def test_all_processes_hold_the_same_bits(name: str, world: int, found: dict) -> None:
    first, *others = (found[f'{name}-{world}-{rank}'] for rank in range(world))
    for gradients, positions, _ in others:
        assert all(torch.equal(gradients[layer], first[0][layer]) for layer in first[0])
        assert all(torch.equal(positions[layer], first[1][layer]) for layer in first[1])
