"""An exception at any point of a change leaves the network as it was."""

import copy
import inspect
from functools import partial

import pytest
import torch
from interrupting import AtLine, AtOperation, Interrupt, OutOfMemory, bits_of, interrupted
from shifted import Small, picture, trained
from torch import nn

from mmgps.delta import AppliedDelta, DeltaBank, DeltaInUseError
from mmgps.delta.apply import Whole
from mmgps.tuning import SSF, InjectionError, LoRA, merge_operations, unload

LINES, OPERATIONS = AtLine, AtOperation
OPCODES = partial(AtLine, event='opcode')
every = pytest.mark.parametrize('most', [40, pytest.param(1000, marks=pytest.mark.slow)])
"""Maximum number of interruptions per test: a sample, or nearly all places."""


def lora_bank() -> DeltaBank:
    """``gps`` adds nothing; ``a`` and ``b`` have the same modules, ``ssf`` others."""
    bank = DeltaBank(Small())
    bank.add('gps', trained(1)[1])
    for name, seed, method in (('a', 2, LoRA(2)), ('b', 3, LoRA(2)), ('ssf', 4, SSF())):
        model = Small()
        method.inject(model.backbone)
        bank.add(name, trained(seed, method, model)[1])
    return bank


def assert_same(model: nn.Module, before: dict[str, torch.Tensor], flags: list[bool], place: str) -> None:
    now = model.state_dict()
    assert list(now) == list(before), place
    assert [name for name, value in before.items() if not torch.equal(value, now[name])] == [], place
    assert [value.requires_grad for value in model.parameters()] == flags, place


class Watched:
    """The present output and content of the network of ``bank``, to compare with after each interruption."""

    def __init__(self, bank: DeltaBank) -> None:
        self.bank, self.active = bank, bank.active
        self.before, self.flags = bits_of(bank.model), [value.requires_grad for value in bank.model.parameters()]
        self.output = bank.model.eval()(picture())

    def check(self, place: str) -> None:
        assert self.bank.active == self.active, place
        assert_same(self.bank.model, self.before, self.flags, place)
        assert torch.equal(self.bank.model(picture()), self.output), place


@every
@pytest.mark.parametrize('kind', [LINES, OPERATIONS])
@pytest.mark.parametrize(('first', 'then'), [(None, 'gps'), ('gps', None), ('gps', 'a'), ('a', 'b'), ('a', 'ssf')])
def test_a_switch_that_is_stopped_anywhere_leaves_what_was_on(
    most: int, kind: type, first: str | None, then: str | None
) -> None:
    bank = lora_bank()
    bank.switch(first)
    watched, places = Watched(bank), set()

    def switch() -> None:
        bank.switch(then)
        bank.switch(first)  # not reached when the first was stopped

    for place in interrupted(kind, switch, most):
        if bank.active != first:  # stopped on the way back
            assert bank.active == then, place
            bank.switch(first)
        watched.check(place)
        places.add(place)
    assert len(places) > (10 if kind is LINES else 2)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@every
@pytest.mark.parametrize('kind', [LINES, OPERATIONS, OPCODES])
@pytest.mark.parametrize('name', ['gps', 'a'])
def test_a_context_that_is_stopped_anywhere_leaves_the_base(most: int, kind: type, name: str) -> None:
    bank = lora_bank()
    watched, places = Watched(bank), set()

    def use() -> None:
        with bank.using(name) as model:
            model(picture())

    for place in interrupted(kind, use, most):
        watched.check(place)
        places.add(place)
        assert bank._gate.visits == [], place
    assert len(places) > (10 if kind is not OPERATIONS else 2)


@every
@pytest.mark.parametrize('kind', [LINES, OPERATIONS])
@pytest.mark.parametrize('method', [None, LoRA(2)])
def test_applying_and_removing_that_is_stopped_anywhere_leaves_the_base(
    most: int, kind: type, method: LoRA | None
) -> None:
    source = Small()
    if method is not None:
        method.inject(source.backbone)
    delta, model = trained(1, method, source)[1], Small().eval()
    base, before = copy.deepcopy(model), bits_of(model)
    flags, places = [True] * len(list(model.parameters())), set()
    lines, first = inspect.getsourcelines(AppliedDelta.__enter__)
    entering = {f'apply.py:{first + number}' for number in range(len(lines))}

    def apply() -> None:
        with AppliedDelta(model, delta):
            model(picture())

    for place in interrupted(kind, apply, most):
        places.add(place)
        if place in entering:  # between making and entering it nobody holds what would take it off: docs/faults.md
            model = copy.deepcopy(base)
        assert_same(model, before, flags, place)
    assert len(places) > (10 if kind is LINES else 2)


@every
@pytest.mark.parametrize('kind', [LINES, OPERATIONS])
def test_adding_that_is_stopped_anywhere_leaves_the_bank_as_it_was(most: int, kind: type) -> None:
    bank = lora_bank()
    bank.switch('ssf')
    model = Small()
    LoRA(3).inject(model.backbone)
    delta, watched = trained(5, LoRA(3), model)[1], Watched(bank)

    def add() -> None:
        bank.add('new', delta)
        bank.discard('new')

    for place in interrupted(kind, add, most):
        if 'new' in bank:
            bank.discard('new')
        assert bank.names == ['gps', 'a', 'b', 'ssf'], place
        watched.check(place)


@every
@pytest.mark.parametrize('kind', [LINES, OPERATIONS])
def test_injecting_merging_and_ejecting_that_is_stopped_anywhere_changes_nothing(most: int, kind: type) -> None:
    tuned = Small()
    LoRA(2).inject(tuned.backbone)
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            if 'lora' in name:
                value.add_(0.1)
    for start, change in (
        (Small(), lambda model: LoRA(2).inject(model.backbone)),
        (tuned, lambda model: merge_operations(model.backbone)),
        (tuned, lambda model: unload(model.backbone)),
    ):
        model, before = copy.deepcopy(start).eval(), bits_of(start)
        output, flags = model(picture()), [value.requires_grad for value in start.parameters()]
        change(copy.deepcopy(model))  # what is read of the classes is read once
        other = copy.deepcopy(model)
        with kind(0) as counting:
            change(other)
        for count in range(1, counting.seen + 1, max(1, counting.seen // most)):
            with kind(count) as stop, pytest.raises((Interrupt, OutOfMemory)):
                change(model)
            assert_same(model, before, flags, stop.place)
            assert torch.equal(model(picture()), output)


def test_a_method_that_fails_half_way_leaves_no_modules() -> None:
    """The norm with unknown channels is the last layer, so all layers before it already have modules."""

    class Strange(nn.LayerNorm):
        data_format = 'none'

        def __init__(self) -> None:
            super().__init__((5, 1))

    backbone = nn.Sequential(nn.Linear(5, 5), Strange())
    with pytest.raises(InjectionError, match='the channel dimension of'):
        SSF().inject(backbone)
    assert [name for name, _ in backbone.named_modules()] == ['', '0', '1']
    assert not backbone[0]._forward_hooks


def test_memory_that_is_missing_at_the_fifth_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = lora_bank()
    watched, written, real = Watched(bank), [], Whole.put

    def put(self: Whole, values: torch.Tensor) -> None:
        written.append(self)
        if len(written) == 5:
            raise torch.OutOfMemoryError('out of memory')
        real(self, values)

    monkeypatch.setattr('mmgps.delta.apply.Whole.put', put)
    with pytest.raises(torch.OutOfMemoryError):
        bank.switch('gps')
    watched.check('fifth tensor')
    assert len(written) > 5


def test_a_second_ctrl_c_while_the_first_is_rolled_back() -> None:
    bank = lora_bank()
    bank.switch('a')
    watched = Watched(bank)
    real = bank._writers['gps'].write

    def twice(undo: list) -> None:
        real(undo)
        steps = iter([KeyboardInterrupt, None])

        def again() -> None:
            if error := next(steps, None):
                raise error

        undo.append(again)
        raise KeyboardInterrupt

    bank._writers['gps'].write = twice
    with pytest.raises(KeyboardInterrupt):
        bank.switch('gps')
    watched.check('second')


def test_a_roll_back_that_fails_is_finished_by_the_next_call() -> None:
    bank = lora_bank()
    bank.switch('a')
    watched, failing = Watched(bank), [True]
    real = bank._writers['gps'].write

    def fails(undo: list) -> None:
        real(undo)

        def broken() -> None:
            if failing:
                raise OSError('the memory of the device is gone')

        undo.append(broken)
        raise MemoryError

    bank._writers['gps'].write = fails
    with pytest.raises(OSError, match='is gone'):
        bank.switch('gps')
    failing.clear()
    bank.switch('a')
    watched.check('next call')


def test_another_owner_of_the_same_network_is_refused() -> None:
    model = Small()
    bank, other = DeltaBank(model), DeltaBank(model)
    delta = trained(1)[1]
    for each in (bank, other):
        each.add('x', delta)
        each.add('y', trained(2)[1])
    bank.switch('x')
    with pytest.raises(DeltaInUseError, match="the delta 'x' of a bank is applied to this network"):
        other.switch('y')
    with pytest.raises(DeltaInUseError, match='remove it before you apply'):
        other.add('z', trained(3)[1])
    bank.switch(None)
    with (
        AppliedDelta(model, delta),
        pytest.raises(DeltaInUseError, match='a delta is applied to this network'),
    ):
        bank.switch('y')
    other.switch('y')
    other.switch(None)
    assert_same(model, bits_of(Small()), [True] * len(list(model.parameters())), 'two banks')
