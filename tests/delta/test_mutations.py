"""Untrusted files are refused with the error of their kind or read as written, in little memory."""

import ast
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mutations
import pytest
import torch
from shifted import Small, trained
from torch import Tensor

from mmgps.delta import (
    AppliedDelta,
    DeltaFileError,
    DeltaMismatchError,
    check_injection,
    load_delta,
    pack_delta,
    save_delta,
    unpack_delta,
)
from mmgps.selection import (
    Connections,
    Selection,
    SelectionFileError,
    SelectionMismatchError,
    load_selection,
    pack_selection,
    save_selection,
    unpack_selection,
)
from mmgps.selection.checked_safetensors import MAX_DEPTH, add_digest
from mmgps.tuning import Adapter, LoRA


@pytest.mark.parametrize('count', [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutations_are_refused_or_equal(count: int) -> None:
    command = [sys.executable, mutations.__file__, '--count', str(count)]
    folders = filter(None, sys.path)
    done = subprocess.run(command, capture_output=True, text=True, env={'PYTHONPATH': ':'.join(folders)}, check=True)
    lines = re.findall(r'(.*): (\{.*\}); (\d+) MiB', done.stdout)
    assert len(lines) == 6
    for name, counts, mib in lines:
        found = ast.literal_eval(counts)
        assert found.keys() <= {'refused', 'equal'}, name
        assert found['refused'] > 0.8 * count, name
        assert int(mib) < 256, name


@pytest.fixture
def selection() -> Selection:
    return trained()[1].selection


WRONG = {
    'outside': [1, 5, 1000],
    'twice': [1, 1, 1],
    'descending': [9, 5, 1],
    'negative': [-1, 1, 2],
    'two dimensions': [[1], [2], [3]],
    'floating': [1.0, 2.0, 3.0],
}


@pytest.mark.parametrize('positions', WRONG.values(), ids=WRONG)
def test_positions_that_no_weight_has_are_refused(positions: list, selection: Selection, tmp_path: Path) -> None:
    """Both in a file and in a selection made in memory."""
    name, item = next(iter(selection.connections.items()))
    wrong = replace(item, positions=torch.tensor(positions))
    made = replace(selection, connections={**selection.connections, name: wrong})
    with pytest.raises(SelectionMismatchError, match=f'{re.escape(name)}.*positions'):
        list(made.resolve(Small().backbone))
    if wrong.positions.is_floating_point():
        return
    save_selection(made, tmp_path / 's.safetensors')
    with pytest.raises(SelectionFileError, match='positions'):
        load_selection(tmp_path / 's.safetensors')


def test_a_shape_edited_in_the_header_alone_is_refused(selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / 's.safetensors'
    save_selection(selection, path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8 : 8 + size])
    name = next(name for name in header if name != '__metadata__' and header[name]['shape'][0] % 2 == 0)
    header[name]['shape'] = [header[name]['shape'][0] // 2, 2]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, 'little') + text + data[8 + size :])
    with pytest.raises(SelectionFileError, match='shapes'):
        load_selection(path)


def resealed(state: dict, change: Callable[[dict], Any]) -> dict:
    content = json.loads(json.loads(state['metadata'])['content'])
    change(content)
    return {**state, 'metadata': add_digest(content, state.get('positions', state.get('tensors')))}


@pytest.mark.parametrize('depth', [MAX_DEPTH, 5_000, 100_000])
def test_deep_descriptions_are_refused(depth: int, selection: Selection) -> None:
    for state, unpack, error in (
        (pack_selection(selection), unpack_selection, SelectionFileError),
        (pack_delta(trained()[1]), unpack_delta, DeltaFileError),
    ):
        nested = '[' * depth + ']' * depth
        tensors = state.get('positions', state.get('tensors'))
        text = json.dumps({**json.loads(json.loads(state['metadata'])['content']), 'settings': 'HERE'})
        metadata = mutations._sealed_text(text.replace('"HERE"', nested), tensors)
        with pytest.raises(error):
            unpack({**state, 'metadata': metadata})


@pytest.mark.parametrize('state', [None, 1, 'text', [], {}, {'metadata': 1}, {'metadata': '{}', 'positions': 5}])
def test_what_is_no_packed_state_is_refused(state: Any) -> None:
    with pytest.raises(SelectionFileError):
        unpack_selection(state)
    with pytest.raises(DeltaFileError):
        unpack_delta(state)


def test_a_tensor_that_repeats_a_byte_without_end_is_refused(selection: Selection) -> None:
    """A pickled checkpoint may hold views, which a digest would have to expand."""
    state = pack_selection(selection)
    state['positions'] = dict(state['positions'], many=torch.zeros(1, dtype=torch.int32).expand(2**40))
    with pytest.raises(SelectionFileError, match='contiguous'):
        unpack_selection(state)


def test_neurons_that_a_delta_claims_take_no_memory() -> None:
    """27 KB that claim 5e8 neurons took 3.7 GiB."""
    neurons = 500_000_000
    state = pack_delta(trained()[1])
    name = '4.weight'
    tensors = dict(state['tensors'])
    tensors[f'connections/{name}/columns'] = torch.empty(neurons, 0, dtype=torch.int16)
    tensors[f'connections/{name}/values'] = torch.empty(0)
    claimed = {**state, 'tensors': tensors}

    def claim(content: dict) -> None:
        content['connections'][name] = [neurons, 1]
        content['shapes'] = {key: list(value.shape) for key, value in tensors.items()}

    with pytest.raises(DeltaFileError, match=f'{neurons} neurons of fan-in 1, but 270 numbers in the base'):
        unpack_delta(resealed(claimed, claim))

    def claim_the_base_too(content: dict) -> None:
        claim(content)
        content['base']['digests'][name] = f'float32[{neurons},1] ' + '0' * 16

    before = mutations.peak_mib()
    delta = unpack_delta(resealed(claimed, claim_the_base_too))
    with pytest.raises(DeltaMismatchError, match='another architecture'):
        AppliedDelta(Small(), delta)
    assert mutations.peak_mib() - before < 64


@pytest.mark.parametrize(
    ('method', 'setting'), [(LoRA(2), 'rank'), (Adapter(2, parts=['linear']), 'bottleneck')], ids=['lora', 'adapter']
)
@pytest.mark.parametrize('value', [2_000_000, 10**30, 'many', None, [2], -1, 3])
def test_settings_of_a_delta_are_held_against_its_tensors(method: Any, setting: str, value: Any) -> None:
    """17 KB that say rank=2e6 took 1.6 GiB."""
    model, state = Small(), pack_delta(trained(method=method)[1])
    delta = unpack_delta(resealed(state, lambda content: content['settings'].update({setting: value})))
    names = list(model.state_dict())
    before = mutations.peak_mib()
    with pytest.raises(DeltaMismatchError, match=method.name):
        AppliedDelta(model, delta)
    assert mutations.peak_mib() - before < 64
    assert list(model.state_dict()) == names


def test_a_checkpoint_is_called_one(tmp_path: Path) -> None:
    for path, options in (
        (tmp_path / 'new.pth', {}),
        (tmp_path / 'old.pth', {'_use_new_zipfile_serialization': False}),
    ):
        torch.save({'state_dict': {'a': torch.zeros(2)}}, path, **options)
        with pytest.raises(DeltaFileError, match=f'{path.name}.*this is a checkpoint.*tools/delta.py extract'):
            load_delta(path)
        with pytest.raises(SelectionFileError, match='this is a checkpoint'):
            load_selection(path)


def test_what_may_not_be_read_is_called_that(
    selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'd.safetensors'
    save_delta(trained()[1], path)

    def refused(file: Any, *args: Any, **options: Any) -> io.BytesIO:
        raise PermissionError(13, 'Permission denied', str(file))

    monkeypatch.setattr('builtins.open', refused)
    with pytest.raises(PermissionError, match=r'Permission denied.*d\.safetensors'):
        load_delta(path)


def test_files_of_older_releases_are_read(selection: Selection) -> None:
    """They did not record the shapes of the positions."""
    state = resealed(pack_selection(selection), lambda content: content.pop('positions'))
    assert unpack_selection(state).equals(selection)


def test_positions_beyond_32_bits_keep_their_size() -> None:
    places: Tensor = torch.tensor([2**31, 2**32])
    packed = pack_selection(Selection('gps', {'w': Connections(places, 2**20, 2**20)}, (), 'x'))
    assert packed['positions']['w'].dtype == torch.int64
    assert torch.equal(unpack_selection(packed).connections['w'].positions, places)


def test_settings_of_a_selection_take_no_memory_either() -> None:
    """A selection holds no tensors against which to check them."""
    backbone, selection = Small().backbone, trained(method=LoRA(2))[1].selection
    beside = dict.fromkeys(selection.whole)
    check_injection(backbone, selection, beside)
    before = mutations.peak_mib()
    with pytest.raises(DeltaMismatchError, match='numbers, more than the base has'):
        check_injection(backbone, replace(selection, settings={**selection.settings, 'rank': 2_000_000}), beside)
    assert mutations.peak_mib() - before < 64
    assert list(backbone.state_dict()) == list(Small().backbone.state_dict())
