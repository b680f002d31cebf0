"""``mmgps.tune`` under accelerate: accumulation, clipping, mixed precision, saved states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from counting import check_moved, parameters
from framework_data import adamw, loader, loss_of, network, tune
from torch import Tensor

import mmgps
from mmgps.sparse import CompactTraining, MaskedTraining


@pytest.fixture
def accelerator():
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientAccumulationPlugin

    def make(**options):
        AcceleratorState._reset_state(True)
        plugin = GradientAccumulationPlugin(num_steps=2, sync_with_dataloader=False)
        return Accelerator(cpu=True, gradient_accumulation_plugin=plugin, **options)

    yield make
    AcceleratorState._reset_state(True)


def train(accelerator, parts) -> None:
    model, optimizer, data = parts
    for batch in data:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model, batch))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 0.01)
            optimizer.step()
            optimizer.zero_grad()


def run(accelerator, training: type = CompactTraining) -> tuple[mmgps.Tuned, dict[str, Tensor]]:
    model = network()
    before = parameters(model)
    tuned = tune(model, training=training)
    train(accelerator, accelerator.prepare(model, adamw(model), loader()))
    return tuned, before


def test_accumulated_and_clipped(accelerator) -> None:
    states = []
    for training in (CompactTraining, MaskedTraining):
        tuned, before = run(accelerator(), training)
        check_moved(tuned, before)
        states.append(tuned.model.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=1e-9, atol=1e-9)


def test_mixed_precision(accelerator) -> None:
    accelerated = accelerator(mixed_precision='bf16')
    model = network(torch.float32)
    before = parameters(model)
    tuned = tune(model, dtype=torch.float32)
    train(accelerated, accelerated.prepare(model, adamw(model), loader(torch.float32)))
    check_moved(tuned, before)


def test_a_saved_state_resumes(accelerator, tmp_path: Path) -> None:
    first = accelerator()
    model = network()
    tuned = tune(model)
    parts = first.prepare(model, adamw(model), loader())
    train(first, parts)
    first.save_state(str(tmp_path))
    train(first, parts)

    second = accelerator()
    other = network()
    tune(other, selection=tuned.selection)
    parts = second.prepare(other, adamw(other), loader())
    second.load_state(str(tmp_path))
    train(second, parts)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_model_that_was_prepared_before(accelerator) -> None:
    """On one process accelerate wraps nothing; the optimizer is what was built too early."""
    accelerated = accelerator()
    model = network()
    parts = accelerated.prepare(model, adamw(model), loader())
    tune(model)
    with pytest.raises(mmgps.tuning.UntrainedError, match=r'was built before mmgps\.tune'):
        train(accelerated, parts)
