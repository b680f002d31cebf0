"""A bank in several threads, coroutines and generators."""

import asyncio
import contextlib
import copy
import gc
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from shifted import Small, picture, trained

from mmgps.delta import AppliedDelta, DeltaBank, DeltaInUseError
from mmgps.tuning import LoRA

TASKS = (None, 'one', 'two', 'lora')


def bank_of_three() -> tuple[DeltaBank, dict[str | None, torch.Tensor]]:
    """The bank, and the output of the network under each delta."""
    bank = DeltaBank(Small())
    for seed, name in ((1, 'one'), (2, 'two')):
        bank.add(name, trained(seed)[1])
    source = Small()
    LoRA(2).inject(source.backbone)
    bank.add('lora', trained(3, LoRA(2), source)[1])
    bank.model.eval()
    answers = {}
    for name in TASKS:
        bank.switch(name)
        answers[name] = bank.model(picture())
    bank.switch(None)
    return bank, answers


def assert_base(bank: DeltaBank) -> None:
    assert bank.active is None
    expected, found = Small().state_dict(), bank.model.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def in_threads(*works: Callable[[], object]) -> list[object]:
    """The results of ``works``, which run at the same time in threads of their own."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(60) for future in [pool.submit(work) for work in works]]


def test_eight_threads_get_the_answers_of_their_tasks() -> None:
    bank, answers = bank_of_three()

    def compute(thread: int) -> int:
        right = 0
        for step in range(60):
            name = TASKS[(thread + step) % len(TASKS)]
            with bank.using(name) as model:
                right += torch.equal(model(picture()), answers[name])
        return right

    assert in_threads(*[lambda thread=thread: compute(thread) for thread in range(8)]) == [60] * 8
    assert_base(bank)


def test_eight_threads_that_switch_leave_one_task_as_a_whole() -> None:
    bank, answers = bank_of_three()

    def switch(thread: int) -> None:
        for step in range(60):
            bank.switch(TASKS[(thread + step) % len(TASKS)])

    in_threads(*[lambda thread=thread: switch(thread) for thread in range(8)])
    assert torch.equal(bank.model(picture()), answers[bank.active])
    bank.switch(None)
    assert_base(bank)


@pytest.mark.parametrize(
    'change',
    [
        lambda bank: bank.switch('two'),
        lambda bank: bank.discard('one'),
        lambda bank: bank.add('three', trained(5)[1]),
        lambda bank: AppliedDelta(bank.model, trained(1)[1]).remove(),
    ],
)
def test_what_changes_the_network_waits_for_the_context_of_another_thread(change: Callable) -> None:
    bank, answers = bank_of_three()
    inside, end, done = threading.Event(), threading.Event(), threading.Event()

    def hold() -> bool:
        with bank.using('one') as model:
            inside.set()
            end.wait(60)
            return torch.equal(model(picture()), answers['one'])

    def wait() -> None:
        inside.wait(60)
        # an applied delta is checked against the base, which is not there before the context ends
        change(bank)
        done.set()

    with ThreadPoolExecutor(2) as pool:
        held, waited = pool.submit(hold), pool.submit(wait)
        assert not done.wait(0.2)
        end.set()
        assert held.result(60)
        waited.result(60)
    bank.switch(None)
    assert_base(bank)


def test_contexts_nest_in_one_function_and_in_those_that_it_calls() -> None:
    bank, answers = bank_of_three()

    def right(name: str | None) -> bool:
        return torch.equal(bank.model(picture()), answers[name])

    def inner(name: str | None) -> bool:
        with bank.using(name):
            return right(name)

    with bank.using('one'):
        with bank.using('one'), bank.using('two'):
            assert right('two')
            assert inner('lora')
            assert inner(None)
            assert right('two')
        assert right('one')
        with contextlib.ExitStack() as stack:
            stack.enter_context(bank.using('two'))
            stack.enter_context(bank.using('lora'))
            assert right('lora')
        assert right('one')
    assert_base(bank)


def test_a_context_decorates_a_function_and_is_entered_once() -> None:
    bank, answers = bank_of_three()

    @bank.using('one')
    def answer(depth: int) -> torch.Tensor:
        return answer(depth - 1) if depth else bank.model(picture())

    assert torch.equal(answer(2), answers['one'])
    context = bank.using('one')
    with context, pytest.raises(RuntimeError, match='open already'), context:
        pass
    with context:
        assert bank.active == 'one'
    assert_base(bank)


def test_coroutines_of_two_tasks_are_refused_and_of_one_are_not() -> None:
    bank, answers = bank_of_three()

    async def compute(name: str | None) -> bool:
        with bank.using(name) as model:
            await asyncio.sleep(0.01)
            return torch.equal(model(picture()), answers[name])

    async def both(first: str, second: str) -> list:
        return await asyncio.gather(compute(first), compute(second), return_exceptions=True)

    assert asyncio.run(both('one', 'one')) == [True, True]
    right, refused = asyncio.run(both('one', 'two'))
    assert right is True
    assert isinstance(refused, DeltaInUseError)
    assert "context of 'one' is open in this thread, and one of 'two'" in str(refused)
    right, refused = asyncio.run(both(None, 'two'))
    assert right is True
    assert isinstance(refused, DeltaInUseError)
    assert_base(bank)


def test_a_coroutine_may_not_change_what_the_code_around_its_loop_uses() -> None:
    """It is suspended with its delta applied, and another coroutine would continue with that."""
    bank, _ = bank_of_three()

    async def other() -> None:
        with bank.using('two'):
            await asyncio.sleep(0)

    with bank.using('one'), pytest.raises(DeltaInUseError):
        asyncio.run(other())
    assert_base(bank)


def test_generators_of_two_tasks_are_refused_and_of_one_end_in_any_order() -> None:
    bank, answers = bank_of_three()

    def batches(name: str) -> Iterator[bool]:
        with bank.using(name) as model:
            while True:
                yield torch.equal(model(picture()), answers[name])

    first, second, other = batches('one'), batches('one'), batches('two')
    assert next(first)
    assert next(second)
    with pytest.raises(DeltaInUseError):
        next(other)
    with pytest.raises(DeltaInUseError), bank.using('two'):
        pass
    with pytest.raises(DeltaInUseError):
        bank.switch('two')
    with pytest.raises(DeltaInUseError):
        bank.discard('one')
    with pytest.raises(DeltaInUseError, match="open with 'one'"):
        AppliedDelta(bank.model, trained(1)[1])
    first.close()
    assert next(second)
    second.close()
    assert_base(bank)
    with bank.using('one'):
        inner = batches('two')  # it would be suspended here, and the function go on
        with pytest.raises(DeltaInUseError):
            next(inner)
    assert_base(bank)


def test_adding_within_a_context_leaves_it_as_it_is() -> None:
    bank, answers = bank_of_three()
    with bank.using('lora') as model:
        bank.add('three', trained(5)[1])
        assert torch.equal(model(picture()), answers['lora'])
    assert_base(bank)


def test_a_generator_that_is_dropped_in_another_thread_frees_the_network() -> None:
    bank, answers = bank_of_three()

    def batches() -> Iterator[None]:
        with bank.using('one'):
            yield

    kept = [batches()]
    next(kept[0])
    in_threads(lambda: (kept.clear(), gc.collect()))
    assert_base(bank)
    [right] = in_threads(lambda: torch.equal(compute(bank, 'two'), answers['two']))
    assert right


def compute(bank: DeltaBank, name: str) -> torch.Tensor:
    with bank.using(name) as model:
        return model(picture())


def test_a_thread_that_ended_within_a_context_is_named() -> None:
    bank, _ = bank_of_three()
    context = bank.using('one')
    thread = threading.Thread(target=context.__enter__, name='gone')
    thread.start()
    thread.join()
    with pytest.raises(DeltaInUseError, match="thread 'gone' ended within a context of 'one'"):
        bank.switch('two')
    context.__exit__(None, None, None)
    assert_base(bank)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda bank: pickle.loads(pickle.dumps(bank))])
def test_a_copied_bank_has_a_network_and_a_lock_of_its_own(copied: Callable) -> None:
    bank, answers = bank_of_three()
    bank.switch('lora')
    with bank.using('one'):
        other = copied(bank)
        assert (other.active, other.names) == ('one', bank.names)
        in_threads(lambda: other.switch('two'))
        assert torch.equal(other.model(picture()), answers['two'])
        assert torch.equal(bank.model(picture()), answers['one'])
        other.switch(None)
        assert_base(other)
    bank.switch(None)
    assert_base(bank)
    with pytest.raises(TypeError, match='would share its network'):
        copy.copy(bank)


@contextlib.contextmanager
def used_elsewhere(bank: DeltaBank) -> Iterator[None]:
    """Another thread computes with the delta ``one`` within the context."""
    inside, end = threading.Event(), threading.Event()

    def hold() -> None:
        with bank.using('one'):
            inside.set()
            end.wait(60)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        inside.wait(60)
        try:
            yield
        finally:
            end.set()
        held.result(60)


def test_a_bank_in_use_elsewhere_is_not_copied() -> None:
    bank, _ = bank_of_three()
    with used_elsewhere(bank), pytest.raises(DeltaInUseError, match="computes with 'one'; copy the bank afterwards"):
        copy.deepcopy(bank)


def test_a_context_ends_right_after_the_network_changed_its_type() -> None:
    bank, _ = bank_of_three()
    with bank.using('one') as model:
        model.half()
    expected = Small().half().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in bank.model.state_dict().items())


def test_a_thread_that_waits_can_be_interrupted() -> None:
    bank, _ = bank_of_three()
    with used_elsewhere(bank):
        threading.Timer(0.2, lambda: __import__('_thread').interrupt_main()).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            bank.switch('two')
        assert time.monotonic() - started < 10
    assert_base(bank)
