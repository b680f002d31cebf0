from pathlib import Path

import pytest
import torch
from tiny import assert_same_bits, tiny_config

from mmgps.benchmark import format_deltas, measure_deltas
from mmgps.benchmark.deltas import made_up_delta
from mmgps.delta import AppliedDelta, DeltaBank
from mmgps.engine import build_base
from mmgps.tuning import LoRA


def test_figures_of_each_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch, states = DeltaBank.switch, []

    def recorded(bank: DeltaBank, name: str | None) -> None:
        switch(bank, name)
        if bank.names == ['gps-random-1', 'gps-random-2']:
            states.append(bank.model.state_dict()['backbone.layers.0.ffn.layers.1.bias'].clone())

    monkeypatch.setattr(DeltaBank, 'switch', recorded)
    costs = {cost.method: cost for cost in measure_deltas(tiny_config(tmp_path), ['gps-random', 'lora'], switches=3)}
    first, second, *_, base = states
    assert [torch.equal(state, first) for state in states[-6:-1]] == [True, False, True, False, True]
    assert [torch.equal(state, second) for state in states[-6:-1]] == [False, True, False, True, False]
    assert not torch.equal(base, first)
    model = build_base(tiny_config(tmp_path))
    head = sum(value.nbytes for name, value in model.state_dict().items() if not name.startswith('backbone.'))
    for cost in costs.values():
        assert len(cost.switch_s) == 3
        assert min(cost.extract_s, cost.add_s, *cost.switch_s) > 0
        assert cost.file_bytes > cost.head_bytes == head
    assert costs['lora'].file_bytes != costs['gps-random'].file_bytes
    row = format_deltas(list(costs.values())).splitlines()[2].split()
    switches = sorted(costs['gps-random'].switch_s)
    assert row[1:3] == [f'{costs["gps-random"].file_bytes / 1e6:.3f}', f'{head / 1e6:.3f}']
    assert row[5:] == [f'{1e3 * switches[1]:.1f}', f'{1e3 * switches[2]:.1f}']
    assert [line.split()[0] for line in format_deltas(list(costs.values())).splitlines()[2:]] == ['gps-random', 'lora']


def test_a_made_up_delta_leaves_the_base(tmp_path: Path) -> None:
    model = build_base(tiny_config(tmp_path))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    delta, _ = made_up_delta(model, 'backbone', LoRA(2), 1)
    assert_same_bits(dict(model.state_dict()), before)
    with AppliedDelta(model, delta):
        assert not torch.equal(model.backbone.layers[0].attn.attn.lora.b, torch.zeros(48, 2))
