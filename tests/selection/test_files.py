import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mmgps.selection import (
    Selection,
    SelectionFileError,
    SelectionMismatchError,
    load_selection,
    pack_selection,
    save_selection,
    unpack_selection,
)
from mmgps.selection.checked_safetensors import add_digest
from mmgps.tuning import GPS


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Conv2d(3, 2, 3, groups=1))


@pytest.fixture
def selection(net: nn.Module) -> Selection:
    gradients = {name: torch.randn_like(value) for name, value in net.named_parameters()}
    return GPS(k=2).select(net, gradients)


def test_round_trip(net: nn.Module, selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / 's.safetensors'
    save_selection(selection, path)
    back = load_selection(path)
    assert back.equals(selection)
    assert dict(back.settings) == dict(selection.settings)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['s.safetensors']
    masks = {p.name: c.mask(p.neurons) for p, c in back.resolve(net)}
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {'0.weight': 8, '2.weight': 4}


def test_one_that_was_read_is_in_the_order_of_the_network() -> None:
    """Processes sum gradients in that order, even after a resume."""
    net = nn.ModuleDict({name: nn.Linear(3, 2) for name in 'bac'})
    made = GPS(1).select(net, {name: torch.randn_like(value) for name, value in net.named_parameters()})
    read = unpack_selection(pack_selection(made))
    expected = ['b.weight', 'a.weight', 'c.weight']
    assert [[parameter.name for parameter, _ in found.resolve(net)] for found in (made, read)] == [expected] * 2
    assert list(read.connections) != expected


def test_the_loss_is_kept_and_may_be_missing_as_in_older_files(selection: Selection) -> None:
    said = {'type': 'SupConLoss', 'temperature': 0.07}
    state = pack_selection(replace(selection, loss=said))
    assert unpack_selection(state).loss == said
    content = json.loads(json.loads(state['metadata'])['content'])
    del content['loss']
    old = unpack_selection({**state, 'metadata': add_digest(content, state['positions'])})
    assert old.loss is None
    assert old.equals(selection)


def test_mutated_files_are_refused_or_equal(selection: Selection, tmp_path: Path) -> None:
    path = tmp_path / 's.safetensors'
    save_selection(selection, path)
    whole = path.read_bytes()
    refused = 0
    for trial in range(300):
        rng = random.Random(trial)
        data = bytearray(whole)
        if trial % 3 == 0:
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(1 + trial % 4):
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            read = load_selection(path)
        except SelectionFileError:
            refused += 1
        else:
            assert read.equals(selection)
    assert refused > 250


def test_a_checkpoint_with_it_loads_without_executing_code(selection: Selection, tmp_path: Path) -> None:
    torch.save({'mmgps': pack_selection(selection)}, tmp_path / 'c.pth')
    state = torch.load(tmp_path / 'c.pth', weights_only=True)
    assert unpack_selection(state['mmgps']).equals(selection)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no selection file'):
        load_selection(tmp_path / 'absent.safetensors')
    (tmp_path / 'text').write_text('hello')
    with pytest.raises(SelectionFileError, match='no intact selection file'):
        load_selection(tmp_path / 'text')


def test_a_newer_format_is_refused(selection: Selection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmgps.selection.files.FORMAT_VERSION', 2)
    state = pack_selection(selection)
    monkeypatch.undo()
    with pytest.raises(SelectionFileError, match='format version is 2'):
        unpack_selection(state)


def test_another_architecture_is_refused(net: nn.Module, selection: Selection) -> None:
    wider = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Conv2d(3, 2, 3))
    with pytest.raises(SelectionMismatchError, match=r"'0\.weight' to have 4 neurons"):
        list(selection.resolve(wider))
    with pytest.raises(SelectionMismatchError, match=r'nearest: 0\.weight'):
        list(selection.resolve(nn.Sequential(nn.Linear(6, 4))))
    more = nn.Sequential(*net, nn.BatchNorm2d(2))
    with pytest.raises(SelectionMismatchError, match='fingerprint'):
        list(selection.resolve(more))
    assert list(selection.resolve(net))
    assert not replace(selection, whole=()).equals(selection)
