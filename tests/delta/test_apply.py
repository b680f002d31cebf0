import copy
import re
from pathlib import Path

import pytest
import torch
from shifted import Small, picture, trained
from torch import nn

from mmgps.delta import (
    AppliedDelta,
    BaseFingerprint,
    Delta,
    DeltaBank,
    DeltaMismatchError,
    extract,
    same,
    save_delta,
    verify,
)
from mmgps.tuning import LoRA, rebuild_method


def assert_same_state(found: nn.Module, expected: nn.Module) -> None:
    state = found.state_dict()
    wrong = [name for name, value in expected.state_dict().items() if not same(state[name], value)]
    assert wrong == []


def bank_of_two() -> tuple[DeltaBank, dict[str, Small]]:
    bank, networks = DeltaBank(Small()), {}
    for seed, name in ((1, 'one'), (2, 'two')):
        networks[name], delta = trained(seed)
        bank.add(name, delta)
    return bank, networks


def test_on_and_off_again() -> None:
    network, delta = trained()
    model = Small()
    applied = AppliedDelta(model, delta)
    assert_same_state(model, network)
    assert torch.equal(model.eval()(picture()), network.eval()(picture()))
    applied.remove()
    assert_same_state(model, Small())
    applied.remove()
    assert_same_state(model, Small())


def test_what_was_there_is_kept_and_not_computed() -> None:
    """Infinite numbers, negative zeros and tiny numbers, which a computed difference would not restore."""
    base = Small()
    with torch.no_grad():
        base.backbone[4].weight.fill_(1e-30)
        base.backbone[4].weight[0] = torch.inf
        base.backbone[4].bias.fill_(-0.0)
    model = copy.deepcopy(base)
    delta = trained(model=base)[1]
    with AppliedDelta(model, delta):
        assert not same(model.backbone[4].weight, base.backbone[4].weight)
    assert_same_state(model, base)


def test_an_error_within_the_context_restores_the_base() -> None:
    model = Small()
    with pytest.raises(RuntimeError, match='within'), AppliedDelta(model, trained()[1]):
        raise RuntimeError('within')
    assert_same_state(model, Small())


def test_a_delta_goes_where_the_numbers_lie() -> None:
    """This includes channels-last weights, and parameters that were replaced by other tensors."""
    network, delta = trained()
    model = Small().to(memory_format=torch.channels_last)
    with AppliedDelta(model, delta):
        assert_same_state(model, network)
        model.to(memory_format=torch.contiguous_format)
        model.backbone[1]._buffers['running_mean'] = model.backbone[1].running_mean.clone()
    assert_same_state(model, Small())


def test_a_network_in_half_precision() -> None:
    network, delta = trained()
    model = Small()
    with AppliedDelta(model, delta):
        assert_same_state(model.half(), network.half())
    assert_same_state(model, Small().half())
    bank = DeltaBank(Small())
    bank.add('one', delta)
    bank.model.half()
    with pytest.raises(DeltaMismatchError, match=r'is torch\.float16, the delta holds torch\.float32'):
        bank.switch('one')
    assert bank.active is None
    assert_same_state(bank.model, Small().half())


def test_switching() -> None:
    bank, networks = bank_of_two()
    assert bank.names == ['one', 'two']
    assert 'one' in bank
    assert 'three' not in bank
    for name in ('one', 'two', 'two', 'one'):
        bank.switch(name)
        assert bank.active == name
        assert_same_state(bank.model, networks[name])
    bank.switch(None)
    assert_same_state(bank.model, Small())


def test_for_a_while() -> None:
    bank, networks = bank_of_two()
    bank.switch('one')
    with bank.using('two') as model:
        assert_same_state(model, networks['two'])
    assert_same_state(bank.model, networks['one'])
    with pytest.raises(RuntimeError), bank.using('two'):
        raise RuntimeError
    assert_same_state(bank.model, networks['one'])


def test_adding_and_discarding_while_one_is_on(tmp_path: Path) -> None:
    bank, networks = bank_of_two()
    bank.switch('one')
    networks['three'], delta = trained(3)
    save_delta(delta, tmp_path / 'three')
    assert bank.add('three', tmp_path / 'three').equals(delta)
    assert_same_state(bank.model, networks['one'])
    bank.discard('one')
    assert (bank.names, bank.active) == (['two', 'three'], None)
    assert_same_state(bank.model, Small())
    bank.switch('three')
    assert_same_state(bank.model, networks['three'])


def test_names_that_are_wrong_change_nothing() -> None:
    bank, networks = bank_of_two()
    bank.switch('one')
    with pytest.raises(KeyError, match=r"the bank has no delta 'tow'; nearest: two"):
        bank.switch('tow')
    with pytest.raises(ValueError, match="already has a delta 'one'"):
        bank.add('one', trained(3)[1])
    assert_same_state(bank.model, networks['one'])


def test_another_base_is_refused_with_what_differs() -> None:
    delta = trained()[1]
    model = Small()
    with torch.no_grad():
        model.backbone[4].weight[0, 0] += 1
    before = copy.deepcopy(model)
    with pytest.raises(DeltaMismatchError, match=r"1 of 14 tensors of the Sequential differ, first '4\.weight'"):
        AppliedDelta(model, delta)
    assert_same_state(model, before)
    with pytest.raises(DeltaMismatchError, match=r"first '4\.weight'"):
        DeltaBank(model).add('one', delta)


def test_a_base_with_another_delta_on_it_is_refused() -> None:
    model = Small()
    with AppliedDelta(model, trained(1)[1]), pytest.raises(DeltaMismatchError, match='remove any other delta'):
        AppliedDelta(model, trained(2)[1])


class Wider(Small):
    def __init__(self) -> None:
        super().__init__()
        self.backbone[0] = nn.Conv2d(3, 4, 5)


class Deeper(Small):
    def __init__(self) -> None:
        super().__init__()
        self.backbone.append(nn.Linear(5, 5))


class OtherHead(Small):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(5, classes)


def test_a_bank_refuses_a_head_of_another_form() -> None:
    bank, networks = bank_of_two()
    bank.switch('one')
    with pytest.raises(DeltaMismatchError, match=r'head\.weight \(3, 5\).*found \(2, 5\).*needs its own network'):
        bank.add('wide', trained(3, model=OtherHead())[1])
    assert (bank.names, bank.active) == (['one', 'two'], 'one')
    assert_same_state(bank.model, networks['one'])


class MoreHead(Small):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(5, 2)


class NoHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Small().backbone


class NoBackbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = Small().backbone


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        (Wider, "differs in '0.weight: float32[4,3,3,3], found float32[4,3,5,5]'"),
        (Deeper, "lacks nothing and also has '7.weight', '7.bias'"),
        (OtherHead, 'head.weight (2, 5) torch.float32, found (3, 5) torch.float32'),
        (MoreHead, "the network has 'second.weight', 'second.bias', which the delta does not hold"),
        (NoHead, "the delta holds 'head.weight', 'head.bias', which the network does not have"),
        (NoBackbone, "tunes 'backbone', and NoBackbone has only trunk"),
    ],
)
def test_another_architecture_is_refused_with_what_differs(kind: type, message: str) -> None:
    model = kind()
    before = copy.deepcopy(model)
    with pytest.raises(DeltaMismatchError, match=re.escape(message)):
        verify(model, trained()[1])
    with pytest.raises(DeltaMismatchError, match=re.escape(message)):
        AppliedDelta(model, trained()[1])
    assert_same_state(model, before)


def lora(seed: int, **options: object) -> tuple[Small, Delta]:
    """Trained factors: their numbers follow from ``seed``."""
    network, method = Small(), LoRA(2, parts='linear', **options)
    method.inject(network.backbone)
    selection = method.select(network.backbone)
    base = BaseFingerprint.of(network.backbone, selection)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if 'lora' in name or 'head' in name:
                value.copy_(torch.randn(value.shape))
    return network, extract(network, selection, base)


def test_added_modules_come_and_go_and_stay_between_deltas_that_share_them() -> None:
    bank, networks = bank_of_two()
    for name, seed, alpha in (('a', 1, 2), ('b', 2, 2), ('c', 3, 4)):
        networks[name], delta = lora(seed, alpha=alpha)
        bank.add(name, delta)
        bank.switch('b' if name == 'b' else None)  # the third is added while modules are in place
    bank.switch(None)
    assert_same_state(bank.model, Small())
    plain = list(Small().state_dict())
    for name in ('a', 'b', 'one', 'c', 'a', 'two'):
        factors = bank.model.backbone[4].lora if bank.active == 'a' else None
        bank.switch(name)
        assert_same_state(bank.model, networks[name])
        assert list(bank.model.state_dict()) == list(networks[name].state_dict())
        assert torch.equal(bank.model.eval()(picture()), networks[name].eval()(picture()))
        if name == 'b':
            assert bank.model.backbone[4].lora is factors
    bank.switch(None)
    assert list(bank.model.state_dict()) == plain
    assert_same_state(bank.model, Small())


def test_a_network_that_was_built_with_its_method_keeps_its_modules() -> None:
    network, delta = lora(1)
    model = Small()
    LoRA(2, parts='linear').inject(model.backbone)
    before = copy.deepcopy(model)
    with AppliedDelta(model, delta):
        assert_same_state(model, network)
    assert_same_state(model, before)
    other = Small()
    LoRA(3, parts='linear').inject(other.backbone)
    with pytest.raises(DeltaMismatchError, match=r'lora\.a \(2, 54\) torch\.float32, found \(3, 54\)'):
        AppliedDelta(other, delta)


def test_modules_of_a_run_with_frozen_stages_go_to_a_network_that_is_frozen_as_a_whole() -> None:
    model, plain = Small(), Small().requires_grad_(False)
    model.backbone[0].requires_grad_(False)
    network, delta = trained(1, LoRA(2, parts=('conv', 'linear')), model)
    assert {name.partition('.')[0] for name in delta.injected()} == {'4', '5'}
    with AppliedDelta(plain, delta):
        assert_same_state(plain, network)
        assert torch.equal(plain.eval()(picture()), network.eval()(picture()))
    assert_same_state(plain, Small())
    assert not any(value.requires_grad for value in plain.parameters())


def test_a_method_that_adds_nothing_is_not_rebuilt() -> None:
    with pytest.raises(ValueError, match="'gps'; expected one of lora, adapter"):
        rebuild_method(trained()[1].selection)
