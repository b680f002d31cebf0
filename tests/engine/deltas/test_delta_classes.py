"""The class names of a model and of a checkpoint are those of the applied delta."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')

from tiny import tiny_config

from mmgps.benchmark.deltas import made_up_delta
from mmgps.delta import Delta, Origin
from mmgps.engine import init_bank, init_model
from mmgps.engine.deltas.delta_command import write_checkpoint
from mmgps.engine.deltas.inference import ModelBank
from mmgps.tuning import BiasTuning

CLASSES = {'classes': ['ground', 'star'], 'palette': [[0, 0, 0], [1, 1, 1]]}


@pytest.fixture
def bank(tmp_path: Path) -> ModelBank:
    """Bank with a delta that records its classes, and one that does not."""
    cfg = tiny_config(tmp_path)
    torch.save(init_model(cfg).backbone.state_dict(), tmp_path / 'base.pth')
    bank = init_bank(cfg, tmp_path / 'base.pth')
    delta: Delta = made_up_delta(bank.model, 'backbone', BiasTuning(), 1)[0]
    bank.add('told', replace(delta, origin=Origin(dataset_meta=CLASSES)))
    bank.add('untold', delta)
    return bank


@pytest.mark.parametrize('following', ['untold', None])
def test_a_bank_forgets_the_classes_of_the_delta_before(bank: ModelBank, following: str | None) -> None:
    bank.switch('told')
    assert bank.model.dataset_meta == CLASSES
    bank.switch(following)
    assert not hasattr(bank.model, 'dataset_meta')
    with bank.using('told'):
        assert bank.model.dataset_meta == CLASSES
    assert not hasattr(bank.model, 'dataset_meta')


def test_a_checkpoint_names_classes_only_where_they_are_known(bank: ModelBank, tmp_path: Path) -> None:
    """Plain mmseg would use even empty meta data."""
    for name, expected in (('told', {'dataset_meta': CLASSES}), ('untold', {})):
        write_checkpoint(tmp_path / name, {}, bank[name])
        meta = torch.load(tmp_path / name, weights_only=True)['meta']
        assert {key: value for key, value in meta.items() if key not in ('epoch', 'iter')} == expected
