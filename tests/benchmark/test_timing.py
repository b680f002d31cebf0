"""Step times of several methods, measured in turns."""

import time

import pytest
import torch

pytest.importorskip('mmengine')

from mmgps.benchmark.timing import interleaved


def watched(names: str, log: list) -> dict:
    return {name: lambda batch, name=name: log.append((name, batch[0], torch.rand(()).item())) for name in names}


def test_every_round_times_each_method_once_in_alternating_order() -> None:
    log: list = []
    times = interleaved(watched('abc', log), [['x'], ['y'], ['z']], rounds=3, warmup=1)
    assert ''.join(name for name, *_ in log) == 'abccbaabccba'
    assert ''.join(batch for _, batch, _ in log) == 'xxxyyyzzzxxx'
    assert {name: len(found) for name, found in times.items()} == {'a': 3, 'b': 3, 'c': 3}


def test_all_methods_of_a_round_draw_the_same_random_numbers() -> None:
    log: list = []
    interleaved(watched('ab', log), [['x']], rounds=2, warmup=0)
    draws = [draw for *_, draw in log]
    assert draws[0] == draws[1] != draws[2] == draws[3]


def test_a_step_may_change_its_batch() -> None:
    seen = []

    def greedy(batch: list) -> None:
        seen.append(batch.pop())

    interleaved({'greedy': greedy}, [[1]], rounds=3, warmup=0)
    assert seen == [1, 1, 1]


def test_the_warm_up_is_not_timed() -> None:
    slow_first = iter([0.2, 0, 0])
    times = interleaved({'a': lambda batch: time.sleep(next(slow_first))}, [[0]], rounds=2, warmup=1)
    assert max(times['a']) < 0.1
