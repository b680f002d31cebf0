"""Numbers are compared only after a sign of a change if comparing would wait for a device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from training_pair import prepare, random_selection

from mmgps.sparse import CompactTraining, compact


class Watched:
    """A network that is treated as if on a slow device, and whose comparisons are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.network = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4)).double()
        self.training, self.optimizer = prepare(CompactTraining, self.network, random_selection(self.network, 2), 'sgd')
        self.compared = 0
        for name in ('with_changed_values', 'with_changed_weights'):
            monkeypatch.setattr(compact, name, self._counting(getattr(compact, name)))
        monkeypatch.setattr(CompactTraining, '_on_cpu', property(lambda _: False))
        for _ in range(2):
            self.step()
        self.compared = 0

    def _counting(self, compare: Callable) -> Callable:
        def counted(weights):
            self.compared += 1
            return compare(weights)

        return counted

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.network(torch.ones(2, 8, dtype=torch.float64)).square().mean().backward()
        self.training.before_step()
        self.optimizer.step()
        self.training.after_step()


def test_steps_compare_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    for _ in range(3):
        watched.step()
    assert watched.compared == 0


def during_validation(watched: Watched, change: Callable[[], object]) -> None:
    watched.network.eval()
    watched.network(torch.ones(2, 8, dtype=torch.float64))
    change()
    watched.network.train()


@pytest.mark.parametrize('sign', ['counted', 'memory', 'validation'])
def test_a_change_of_a_weight_is_followed_at_each_sign(sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    [first, *_] = watched.training._weights
    new = first.dense.detach() + 1
    if sign == 'counted':
        with torch.no_grad():
            first.dense.copy_(new)
    elif sign == 'memory':
        first.dense.data = new.clone()
    else:
        during_validation(watched, lambda: first.dense.data.copy_(new))
    expected = new.reshape(-1)[first.flat].view_as(first.values)
    watched.network(torch.ones(2, 8, dtype=torch.float64)).square().mean().backward()
    watched.training.before_step()
    assert watched.compared
    assert torch.equal(first.values, expected)


@pytest.mark.parametrize('sign', ['counted', 'validation'])
def test_changed_values_are_in_the_weight_before_a_forward_pass(sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    [first, *_] = watched.training._weights
    new = first.values.detach() + 1
    if sign == 'counted':
        with torch.no_grad():
            first.values.copy_(new)
    else:
        during_validation(watched, lambda: first.values.data.copy_(new))
    watched.network(torch.ones(2, 8, dtype=torch.float64))
    assert torch.equal(first.in_dense(), new)


@pytest.mark.parametrize('changed', ['values', 'weight'])
def test_an_uncounted_change_between_steps_is_an_error_one_step_later(
    changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    [first, *_] = watched.training._weights
    (first.values if changed == 'values' else first.dense).data.mul_(2)
    watched.step()
    with pytest.raises(RuntimeError, match=r'between two steps .*through \.data'):
        watched.step()


def test_saving_finds_an_uncounted_change(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    [first, *_] = watched.training._weights
    first.values.data.mul_(2)
    saved = watched.network.state_dict()[first.name]
    assert torch.equal(saved.reshape(-1)[first.flat].view_as(first.values), first.values.detach())
    watched.step()
    first.dense.data.mul_(2)
    watched.step()
    with pytest.raises(RuntimeError, match='between two steps'):
        watched.network.state_dict()
