from pathlib import Path

import torch
from tiny import assert_same_bits, tiny_config

from mmgps.benchmark import format_deltas, measure_deltas
from mmgps.benchmark.deltas import made_up_delta
from mmgps.delta import AppliedDelta
from mmgps.engine import build_base
from mmgps.tuning import LoRA


def test_figures_of_each_method(tmp_path: Path) -> None:
    costs = {cost.method: cost for cost in measure_deltas(tiny_config(tmp_path), ['gps-random', 'lora'], switches=3)}
    model = build_base(tiny_config(tmp_path))
    head = sum(value.nbytes for name, value in model.state_dict().items() if not name.startswith('backbone.'))
    for cost in costs.values():
        assert len(cost.switch_s) == 3
        assert min(cost.extract_s, cost.add_s, *cost.switch_s) > 0
        assert cost.file_bytes > cost.head_bytes == head
    assert costs['lora'].file_bytes != costs['gps-random'].file_bytes
    assert [line.split()[0] for line in format_deltas(list(costs.values())).splitlines()[2:]] == ['gps-random', 'lora']


def test_a_made_up_delta_leaves_the_base(tmp_path: Path) -> None:
    model = build_base(tiny_config(tmp_path))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    delta, _ = made_up_delta(model, 'backbone', LoRA(2), 1)
    assert_same_bits(dict(model.state_dict()), before)
    with AppliedDelta(model, delta):
        assert not torch.equal(model.backbone.layers[0].attn.attn.lora.b, torch.zeros(48, 2))
