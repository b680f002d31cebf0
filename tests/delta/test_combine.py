import math
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from shifted import Small, trained
from torch import Tensor, nn

from mmgps.delta import (
    AppliedDelta,
    Delta,
    DeltaMismatchError,
    DeltaUnionError,
    Difference,
    Origin,
    diff,
    format_diff,
    pack_delta,
    same,
    union,
    unpack_delta,
)
from mmgps.delta.diff import total
from mmgps.selection import RandomScore
from mmgps.tuning import GPS, BiasTuning, FullTuning, LoRA


def state_under(delta: Delta) -> dict[str, Tensor]:
    model = Small()
    with AppliedDelta(model, delta):
        return {name: value.detach().clone() for name, value in model.state_dict().items()}


def disjoint() -> tuple[Delta, Delta]:
    """Two deltas without a common connection or bias: the first trains no bias."""
    gps, bias = GPS(1, score=RandomScore(1), full_roles=()), BiasTuning()
    return trained(1, gps)[1], trained(2, bias)[1]


def test_the_union_of_disjoint_deltas_holds_all_of_both() -> None:
    first, second = disjoint()
    joined = unpack_delta(pack_delta(union(first, second)))
    found, base = state_under(joined), Small().state_dict()
    mine, its = state_under(first), state_under(second)
    for name in first.values:
        assert torch.equal(found[f'backbone.{name}'], mine[f'backbone.{name}'])
        assert not torch.equal(found[f'backbone.{name}'], base[f'backbone.{name}'])
    for name in second.selection.whole:
        assert torch.equal(found[f'backbone.{name}'], its[f'backbone.{name}'])
    assert torch.equal(found['head.weight'], its['head.weight'])
    assert set(joined.selection.whole) == {*first.selection.whole, *second.selection.whole} != set()
    assert joined.base.rests == {}  # those of the first would not be zero where the second is


def test_where_they_overlap_the_second_wins() -> None:
    """The union equals the second delta written over the first."""
    first, second = (trained(seed, GPS(3, score=RandomScore(seed)))[1] for seed in (1, 2))
    rows = {row.name: row for row in diff(first, second)}
    assert rows['backbone.4.weight'].shared > 0
    assert rows['backbone.4.weight'].only_first > 0
    model = Small()
    with AppliedDelta(model, first), torch.no_grad():
        for parameter, connections in second.selection.resolve(model.backbone):
            mask = connections.mask(parameter.neurons)
            rows_of_values = torch.zeros(connections.neurons * connections.fan_in)
            rows_of_values[connections.positions] = second.values[parameter.name]
            values = parameter.neurons.from_rows(rows_of_values.view(connections.neurons, -1))
            parameter.value[mask] = values[mask]
        for name, value in second.tensors.items():
            model.state_dict()[name].copy_(value)
        expected = {name: value.detach().clone() for name, value in model.state_dict().items()}
    found = state_under(union(first, second))
    assert [name for name, value in expected.items() if not same(found[name], value)] == []
    assert union(first, second).selection.method == 'union'


def test_a_whole_weight_covers_connections_and_not_the_other_way_round() -> None:
    some, all_of_it = trained(1)[1], trained(2, FullTuning())[1]
    found, expected = state_under(union(some, all_of_it)), state_under(all_of_it)
    assert [name for name, value in expected.items() if not same(found[name], value)] == []
    with pytest.raises(DeltaUnionError, match=r"all numbers of '0\.weight'.*give them in the other order"):
        union(all_of_it, some)


def test_a_union_with_added_modules() -> None:
    def lora(seed: int, alpha: int) -> Delta:
        method, model = LoRA(2, alpha, 'linear'), Small()
        method.inject(model.backbone)
        torch.manual_seed(seed)
        return trained(seed, method, model)[1]

    joined = union(trained(1)[1], lora(2, 2))
    assert (joined.selection.method, joined.injected()) == ('lora', lora(2, 2).injected())
    assert state_under(joined).keys() > Small().state_dict().keys()
    with pytest.raises(DeltaUnionError, match='both deltas inject modules'):
        union(lora(1, 2), lora(2, 4))
    found, expected = state_under(union(lora(1, 2), lora(2, 2))), state_under(lora(2, 2))
    assert [name for name, value in expected.items() if not same(found[name], value)] == []


def test_a_union_has_classes_and_config_of_the_second_as_it_has_its_head() -> None:
    origins = [Origin({'mIoU': 1.0}, {'of': name}, {'classes': [name]}, 1, 1) for name in ('first', 'second')]
    first, second = (replace(delta, origin=origin) for delta, origin in zip(disjoint(), origins, strict=True))
    joined = unpack_delta(pack_delta(union(first, second)))
    assert joined.origin == Origin(config={'of': 'second'}, dataset_meta={'classes': ['second']})


def test_deltas_of_different_bases_are_not_joined_or_compared() -> None:
    other = Small()
    nn.init.zeros_(other.backbone[4].weight)
    first, second = trained(1)[1], trained(2, model=other)[1]
    for what in (union, diff):
        with pytest.raises(DeltaMismatchError, match=r"base of the other delta differ, first '4\.weight'"):
            what(first, second)
        with pytest.raises(DeltaMismatchError, match="tunes 'backbone', the other ''"):
            what(first, replace(first, target=''))


def test_diff_counts() -> None:
    first, second = disjoint()
    rows = {row.name: row for row in diff(first, second)}
    assert rows['backbone.0.weight'] == Difference('backbone.0.weight', only_first=4)
    assert rows['backbone.0.bias'] == Difference('backbone.0.bias', only_second=4)
    head = rows['head.weight']
    assert (head.shared, head.differing) == (10, 10)
    gap = (first.tensors['head.weight'] - second.tensors['head.weight']).abs().max()
    assert head.largest == pytest.approx(float(gap))
    assert all(row.differing == row.only_first == row.only_second == 0 for row in diff(first, first))
    assert total('all', diff(first, first)).overlap == 1
    assert rows['backbone.0.weight'].overlap == 0
    connections, others = (line.split() for line in format_diff(first, second).splitlines()[-2:])
    assert connections[:4] == ['all', 'connections', '20', '0']
    assert others[:6] == ['all', 'other', 'tensors', '0', '29', '21']
    largest = max(row.largest for row in rows.values())
    assert (others[-1], total('all', rows.values()).largest) == (f'{largest:.3g}', largest)


def test_diff_of_connections_by_a_slow_loop() -> None:
    first, second = (trained(seed, GPS(3, score=RandomScore(seed)))[1] for seed in (1, 2))
    rows = {row.name: row for row in diff(first, second)}
    for name, mine in first.selection.connections.items():
        its = second.selection.connections[name]
        ours = dict(zip(mine.positions.tolist(), first.values[name].tolist(), strict=True))
        theirs = dict(zip(its.positions.tolist(), second.values[name].tolist(), strict=True))
        both = ours.keys() & theirs.keys()
        gaps = [abs(ours[at] - theirs[at]) for at in both if ours[at] != theirs[at]]
        counts = (len(ours) - len(both), len(theirs) - len(both), len(both), len(gaps))
        largest = pytest.approx(max(gaps, default=0))
        assert rows[f'backbone.{name}'] == Difference(f'backbone.{name}', *counts, largest)
        assert rows[f'backbone.{name}'].overlap == len(both) / len(ours.keys() | theirs.keys())


def test_diff_of_a_weight_that_one_holds_whole_and_the_other_in_part() -> None:
    layers = [nn.Flatten(), nn.MaxPool1d(6), nn.Linear(8, 16)]
    model = nn.Sequential(OrderedDict(backbone=nn.Sequential(*layers), head=nn.Linear(16, 2)))
    rows = diff(trained(1, FullTuning(), model)[1], trained(2, GPS(1, score=RandomScore(2)), model)[1])
    [row] = [row for row in rows if row.name == 'backbone.2.weight']
    assert (row.shared, row.only_first, row.only_second) == (16, 112, 0)


def test_diff_of_whole_weights_and_connections_by_their_masks() -> None:
    (mine, first), (its, second) = trained(1, FullTuning()), trained(2, GPS(1, score=RandomScore(2)))
    rows, back = ({row.name: row for row in found} for found in (diff(first, second), diff(second, first)))
    assert len(rows) == len(back) == len(diff(first, second)) == len(diff(second, first))
    for parameter, connections in second.selection.resolve(its.backbone):
        mask, name = connections.mask(parameter.neurons), f'backbone.{parameter.name}'
        gaps = (mine.get_parameter(name)[mask] - its.get_parameter(name)[mask]).abs()
        count, alone = int(mask.sum()), int((~mask).sum())
        both = dict(shared=count, differing=count, largest=pytest.approx(gaps.max().item()))
        assert rows[name] == Difference(name, only_first=alone, **both)
        assert back[name] == Difference(name, only_second=alone, **both)


def test_diff_compares_bits() -> None:
    delta = trained(1)[1]

    def with_bias(*values: float) -> Delta:
        return replace(delta, tensors={**delta.tensors, 'head.bias': torch.tensor(values)})

    [row] = [row for row in diff(with_bias(0.0, -3.0), with_bias(-0.0, 2.0)) if row.name == 'head.bias']
    assert row == Difference('head.bias', shared=2, differing=2, largest=5)
    rows = diff(with_bias(1.0, 1.0), with_bias(torch.nan, 1.0))
    assert math.isnan(total('all', rows).largest)
    assert math.isnan(total('all', reversed(rows)).largest)
    wider = replace(delta, tensors={**delta.tensors, 'head.bias': torch.zeros(3)})
    [row] = [row for row in diff(delta, wider) if row.name == 'head.bias']
    assert row == Difference('head.bias', only_first=2, only_second=3)
