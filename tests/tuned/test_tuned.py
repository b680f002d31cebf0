"""A tuned model is switched off, saved, loaded, merged, unloaded, copied and averaged."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from small_model import CHOSEN, SmallModel, moved, state, train, tuned_by
from torch import Tensor, nn

import mmgps
from mmgps.sparse import UnstartedError
from mmgps.tuned import loading, tuned_of
from mmgps.tuning import METHODS

ANYWHERE = sorted(set(METHODS) - {'adapter', 'vpt-deep', 'vpt-shallow'})
"""The methods that a backbone without attention can have."""


@pytest.mark.parametrize('method', ANYWHERE)
def test_a_method_is_switched_off_saved_loaded_merged_and_unloaded(
    method: str, model: SmallModel, loader: list[Tensor], tmp_path
) -> None:
    before = state(model)
    tuned = tuned_by(method, model, loader)
    train(model, torch.optim.AdamW(model.parameters(), lr=1e-2), loader)
    trained = model(loader[0]).logits.detach()
    with tuned.disabled() as base:
        assert base.state_dict().keys() == before.keys()
        assert not moved(base, before)
        with pytest.raises(RuntimeError, match='within disabled'):
            tuned.save(tmp_path / 'never.safetensors')
    assert torch.equal(model(loader[0]).logits, trained)
    tuned.save(tmp_path / 'delta.safetensors')

    torch.manual_seed(0)
    other = SmallModel()
    loaded = mmgps.load(other, tmp_path / 'delta.safetensors')
    assert torch.equal(other(loader[0]).logits, trained)
    loaded.unload()
    assert other.state_dict().keys() == before.keys()
    assert not moved(other, before)

    merged = tuned.merge()
    assert merged is model
    assert merged.state_dict().keys() == before.keys()
    assert tuned_of(model) is None
    assert all(value.requires_grad for value in model.parameters())
    assert {type(part).__module__.split('.')[0] for part in model.modules()} == {'torch', 'small_model'}
    torch.testing.assert_close(model(loader[0]).logits, trained, rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match='not tuned any more'):
        tuned.save(tmp_path / 'late.safetensors')


def test_training_goes_on_from_a_delta(model: SmallModel, loader: list[Tensor], tmp_path) -> None:
    tuned = tuned_by('gps', model, loader)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), loader[:2])
    tuned.save(tmp_path / 'half.safetensors')
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), loader[2:])
    torch.manual_seed(0)
    other = SmallModel()
    mmgps.load(other, tmp_path / 'half.safetensors')
    train(other, torch.optim.SGD(other.parameters(), lr=0.1), loader[2:])
    assert not moved(other, state(model))
    tuned.load(tmp_path / 'half.safetensors')
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), loader[2:])
    assert not moved(model, state(other))


def test_training_within_disabled_is_refused(model: SmallModel, loader: list[Tensor]) -> None:
    tuned = tuned_by('gps', model, loader)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(loader[0]).loss.backward()
    with tuned.disabled(), pytest.raises(RuntimeError, match='steps within disabled'):
        optimizer.step()


def test_copies_and_pickles_compute_the_same_and_know_nothing_of_training(
    model: SmallModel, loader: list[Tensor]
) -> None:
    tuned_by('gps', model, loader)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), loader)
    expected = model(loader[0]).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(loader[0]).logits, expected)
        assert tuned_of(other) is None
        assert other.state_dict().keys() == SmallModel().state_dict().keys()
        other(loader[0]).loss.backward()
        with pytest.raises(
            UnstartedError, match=r'belong to a copy of a tuned model, .*call mmgps\.tune with the copy'
        ):
            torch.optim.SGD(other.parameters(), lr=0.1).step()
        before = state(other)
        other.requires_grad_(True)
        tuned_by('gps', other, loader)
        train(other, torch.optim.AdamW(other.parameters(), lr=1e-2), loader)
        assert moved(other, before) == CHOSEN


def test_averaged_models_follow(model: SmallModel, loader: list[Tensor]) -> None:
    tuned_by('gps', model, loader)
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    states = []
    for batch in loader:
        train(model, optimizer, [batch])
        states.append(state(model))
        averaged.update_parameters(model)
    mean = {name: torch.stack([found[name] for found in states]).mean(0) for name in states[0]}
    torch.testing.assert_close(state(averaged.module), mean)


def test_the_object_keeps_no_model_alive(loader: list[Tensor]) -> None:
    model = SmallModel()
    kept = weakref.ref(tuned_by('gps', model, loader))
    assert kept() is not None
    del model
    gc.collect()
    assert kept() is None


def test_an_interrupted_load_leaves_the_base(
    model: SmallModel, loader: list[Tensor], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = tuned_by('lora', model, loader)
    train(model, torch.optim.AdamW(model.parameters(), lr=1e-2), loader)
    tuned.save(tmp_path / 'delta.safetensors')
    torch.manual_seed(0)
    other = SmallModel()
    before = state(other)

    def interrupted(model: nn.Module, delta: object) -> None:
        model.head.weight.data.zero_()
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, 'write_delta', interrupted)
    with pytest.raises(KeyboardInterrupt):
        mmgps.load(other, tmp_path / 'delta.safetensors')
    assert other.state_dict().keys() == before.keys()
    assert not moved(other, before)
    assert tuned_of(other) is None
    assert all(value.requires_grad for value in other.parameters())


def test_an_interrupted_merge_trains_on(
    model: SmallModel, loader: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = tuned_by('lora', model, loader)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    train(model, optimizer, loader)

    def interrupted(backbone: nn.Module) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('mmgps.tuned.tuned.merge_operations', interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned.merge()
    before = state(model)
    train(model, optimizer, loader)
    assert any('lora' in name for name in moved(model, before))
    assert tuned_of(model) is tuned
