import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shifted import Small, trained

from mmgps.delta import (
    BaseFingerprint,
    Delta,
    DeltaExtractError,
    DeltaFileError,
    extract,
    load_delta,
    pack_delta,
    save_delta,
    unpack_delta,
)
from mmgps.delta.files import ColumnsError, pack_columns, unpack_columns
from mmgps.selection import Connections, PerLayer, RandomScore, save_selection
from mmgps.tuning import GPS, BiasTuning, FullTuning, LinearProbe, LoRA, TuningMethod


@pytest.fixture
def delta() -> Delta:
    return trained()[1]


def test_round_trip(delta: Delta, tmp_path: Path) -> None:
    save_delta(delta, tmp_path / 'd.safetensors')
    back = load_delta(tmp_path / 'd.safetensors')
    assert back.equals(delta)
    assert (back.origin, back.k, back.target) == (delta.origin, 2, 'backbone')
    assert back.base == delta.base
    assert [path.name for path in tmp_path.iterdir()] == ['d.safetensors']


def test_it_holds_what_changed_and_nothing_else(delta: Delta) -> None:
    weights = {'0.weight', '2.weight', '4.weight', '5.weight'}  # 6.weight is tied to 5.weight
    assert delta.values.keys() == weights
    assert delta.tensors.keys() == {
        *(f'backbone.{name}.bias' for name in (0, 2, 4, 5, 6)),
        *(f'backbone.1.{name}' for name in ('running_mean', 'running_var', 'num_batches_tracked')),
        'head.weight',
        'head.bias',
    }
    connections = 2 * (4 + 6 + 5 + 5)
    assert len(delta) == connections + (4 + 6 + 5 + 5 + 5) + (4 + 4 + 1) + 12
    assert delta.head().keys() == {'head.weight', 'head.bias'}


def test_mutated_files_are_refused_or_equal(delta: Delta, tmp_path: Path) -> None:
    path = tmp_path / 'd.safetensors'
    save_delta(delta, path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], 'little')
    refused = 0
    for trial in range(1000):
        rng = random.Random(trial)
        data = bytearray(whole)
        if trial % 4 == 0:
            data = data[: rng.randrange(len(data))]
        else:  # every other one in the header, which is the part that is parsed
            for _ in range(1 + trial % 3):
                data[rng.randrange(header if trial % 2 else len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            read = load_delta(path)
        except DeltaFileError:
            refused += 1
        else:
            assert read.equals(delta)
    assert refused > 900


def test_a_checkpoint_with_it_loads_without_executing_code(delta: Delta, tmp_path: Path) -> None:
    torch.save({'delta': pack_delta(delta)}, tmp_path / 'c.pth')
    assert unpack_delta(torch.load(tmp_path / 'c.pth', weights_only=True)['delta']).equals(delta)


def test_missing_and_foreign_files(delta: Delta, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no delta file'):
        load_delta(tmp_path / 'absent')
    (tmp_path / 'text').write_text('hello')
    save_selection(delta.selection, tmp_path / 'selection')
    for name in ('text', 'selection'):
        with pytest.raises(DeltaFileError, match=f'{name}.* is no intact delta file'):
            load_delta(tmp_path / name)


def test_a_newer_format_is_refused(delta: Delta, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmgps.delta.files.FORMAT_VERSION', 2)
    state = pack_delta(delta)
    monkeypatch.undo()
    with pytest.raises(DeltaFileError, match='format version is 2'):
        unpack_delta(state)


def test_another_shape_of_the_same_bytes_is_refused(delta: Delta) -> None:
    state = pack_delta(delta)
    name = 'tensors/head.weight'
    state['tensors'][name] = state['tensors'][name].view(5, 2)
    with pytest.raises(DeltaFileError, match=r"'tensors/head\.weight' has the shape \(5, 2\)"):
        unpack_delta(state)


@pytest.mark.parametrize(('fan_in', 'kind'), [(2**15, torch.int16), (2**15 + 1, torch.int32)])
def test_columns_take_as_few_bits_as_they_can(fan_in: int, kind: torch.dtype) -> None:
    connections = Connections(torch.tensor([fan_in - 1, 2 * fan_in - 1]), 2, fan_in)
    packed = pack_columns(connections)
    assert packed.keys() == {'columns'}
    assert (packed['columns'].dtype, packed['columns'].shape) == (kind, (2, 1))
    back = unpack_columns(packed['columns'], None, 2, fan_in)
    assert torch.equal(back.positions, connections.positions)


@pytest.mark.parametrize('positions', [[], [0, 1, 2, 11], [4], [0, 3, 5, 6, 7, 8, 9, 10, 11]])
def test_columns_of_neurons_that_differ_in_number(positions: list[int]) -> None:
    connections = Connections(torch.tensor(positions, dtype=torch.int64), 3, 4)
    packed = pack_columns(connections)
    back = unpack_columns(packed['columns'], packed.get('counts'), 3, 4)
    assert torch.equal(back.positions, connections.positions)


@pytest.mark.parametrize(
    ('columns', 'counts', 'message'),
    [
        ([[0], [4], [1]], None, 'go from 0 to 4'),
        ([[0], [-1], [1]], None, 'go from -1'),
        ([[1, 0], [0, 1], [0, 1]], None, 'do not ascend'),
        ([[1, 1], [0, 1], [0, 1]], None, 'do not ascend'),
        ([[0], [1]], None, '2 columns for 3 neurons'),
        ([0, 1], [1, 0, 0], '2 columns for 3 neurons'),
        ([0, 1], [3, -1, 0], '2 columns for 3 neurons'),
    ],
)
def test_columns_that_are_none(columns: list, counts: list | None, message: str) -> None:
    with pytest.raises(ColumnsError, match=message):
        unpack_columns(torch.tensor(columns), None if counts is None else torch.tensor(counts), 3, 4)


def test_uneven_choices_round_trip() -> None:
    delta = trained(method=GPS(1, score=RandomScore(3), choice=PerLayer()))[1]
    assert any('counts' in name for name in pack_delta(delta)['tensors'])
    assert unpack_delta(pack_delta(delta)).equals(delta)


def test_equal_means_bits(delta: Delta) -> None:
    zero = replace(delta, tensors={**delta.tensors, 'head.bias': torch.zeros(2)})
    minus = replace(delta, tensors={**delta.tensors, 'head.bias': -torch.zeros(2)})
    nan = replace(delta, tensors={**delta.tensors, 'head.bias': torch.full((2,), torch.nan)})
    assert not zero.equals(minus)
    assert nan.equals(replace(nan))


def test_a_number_that_moved_unchosen_is_refused() -> None:
    model, delta = trained()
    with torch.no_grad():
        weight = model.backbone[4].weight.view(-1)
        chosen = set(delta.selection.connections['4.weight'].positions.tolist())
        weight[next(at for at in range(len(weight)) if at not in chosen)] += 1
    with pytest.raises(DeltaExtractError, match=r"that were not chosen changed in '4\.weight'"):
        extract(model, delta.selection, delta.base)


def test_a_base_that_was_read_without_the_selection_is_refused() -> None:
    model, delta = trained()
    with pytest.raises(DeltaExtractError, match='read without the selection'):
        extract(model, delta.selection, BaseFingerprint.of(Small().backbone))


@pytest.mark.parametrize('method', [BiasTuning(), LinearProbe(), LoRA(2, parts='linear'), GPS(2, score=RandomScore(1))])
def test_a_parameter_that_is_not_trained_and_differs_from_the_base_is_refused(method: TuningMethod) -> None:
    """None of the methods trains norms, whose statistics may change."""
    model = Small()
    selection = method.select(model.backbone, None)
    base = BaseFingerprint.of(model.backbone, selection)
    model.backbone[1].running_mean += 1
    assert 'backbone.1.running_mean' in extract(model, selection, base).tensors
    with torch.no_grad():
        model.backbone[1].weight += 1
    with pytest.raises(DeltaExtractError, match=r"1 parameters .* not trained differ .* first '1\.weight'; expected"):
        extract(model, selection, base)


def test_full_tuning_may_move_every_parameter() -> None:
    assert trained(method=FullTuning())[1].tensors.keys() >= {'backbone.1.weight', 'backbone.4.weight'}
