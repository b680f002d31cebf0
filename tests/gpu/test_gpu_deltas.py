"""Deltas extracted and switched on CUDA have the same bits as on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip('mmseg')

from architectures import build
from tuned import Tuned, state

from mmgps.delta import BaseFingerprint, DeltaBank, extract
from mmgps.tuning import GPS, BiasTuning

pytestmark = pytest.mark.gpu


def test_a_switch_has_the_bits_of_the_trained_network(device: str) -> None:
    base = build('vit').to(device)
    deltas, states = {}, {}
    for name, method in {'gps': GPS(2), 'bias': BiasTuning()}.items():
        tuned = Tuned(copy.deepcopy(base), method)
        tuned.model.to(device)
        before = BaseFingerprint.of(tuned.model.backbone, tuned.selection)
        tuned.train(range(4))
        deltas[name] = extract(tuned.model, tuned.selection, before)
        states[name] = state(tuned.model)
    states[None] = {**states['gps'], **{f'backbone.{name}': value for name, value in state(base).items()}}
    for place in (device, 'cpu'):
        network = Tuned(copy.deepcopy(base), BiasTuning()).model.to(place)
        states[None] = state(network)
        bank = DeltaBank(network)
        for name, delta in deltas.items():
            bank.add(name, delta)
        for name in ('gps', 'bias', None, 'bias', 'gps', None):
            bank.switch(name)
            for key, value in state(network).items():
                assert torch.equal(value.cpu(), states[name][key].cpu()), (place, name, key)
