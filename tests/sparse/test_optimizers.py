"""Compact training equals masked training for other optimizers, and if numbers change between steps."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from training_pair import prepare, random_selection

from mmgps.rewiring import base_parameters
from mmgps.sparse import CompactTraining, MaskedTraining, SparseTraining
from mmgps.sparse.optimizers import ELEMENTWISE, is_elementwise

Optimizers = Callable[[list[nn.Parameter]], optim.Optimizer]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        return self.last(x + self.attention(x, x, x)[0])


def loss(network: nn.Module, step: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return (network(torch.randn(2, 2, 5, 5, dtype=torch.float64, generator=generator)) - 0.3).square().mean()


class Pair:
    """One network in masked and in compact training, each with its own optimizer."""

    def __init__(self, optimizer: Optimizers, base: nn.Module | None = None) -> None:
        base = (base or Net()).double()
        selection = random_selection(base, 2)
        self.selection, self.base = selection, copy.deepcopy(base)
        self.runs: list[tuple[nn.Module, SparseTraining, Any]] = []
        for kind in (MaskedTraining, CompactTraining):
            network = copy.deepcopy(base)
            training, made = prepare(kind, network, selection)
            held = [value for group in made.param_groups for value in group['params']]
            self.runs.append((network, training, optimizer(held)))

    def each(self, action: Callable[[nn.Module, SparseTraining, Any], None]) -> 'Pair':
        for run in self.runs:
            action(*run)
        return self

    def differs(self) -> float:
        """The largest difference between the two, relative to the largest number of each tensor."""
        masked, compact = (run[0].state_dict() for run in self.runs)
        return max(float((compact[n] - v).abs().max() / v.abs().max()) for n, v in masked.items())

    def moved(self) -> float:
        """The largest difference from the base; numbers that are not selected must keep their bits."""
        state, before = self.runs[1][0].state_dict(), self.base.state_dict()
        for parameter, connections in self.selection.resolve(self.base):
            mask = connections.mask(parameter.neurons)
            assert torch.equal(state[parameter.name][~mask], before[parameter.name][~mask])
        return max(float((state[name] - value).abs().max()) for name, value in before.items())


def step(network: nn.Module, training: SparseTraining, optimizer: optim.Optimizer, at: int = 0) -> None:
    optimizer.zero_grad()
    loss(network, at).backward()
    training.before_step()
    optimizer.step()
    training.after_step()


def steps(network: nn.Module, training: SparseTraining, optimizer: optim.Optimizer) -> None:
    for at in range(4):
        step(network, training, optimizer, at)


@pytest.mark.parametrize('kind', ELEMENTWISE, ids=lambda kind: kind.__name__)
def test_optimizers_that_step_each_number_by_itself(kind: type) -> None:
    decay = {} if kind is optim.Rprop else dict(weight_decay=0.1)
    pair = Pair(lambda held: kind(held, **decay)).each(steps)
    assert pair.differs() < 1e-10
    assert pair.moved() > 1e-4
    assert is_elementwise(pair.runs[1][2])


@pytest.mark.parametrize(
    'make',
    [lambda held: optim.Adafactor(held, lr=0.1), lambda held: optim.Muon([v for v in held if v.dim() == 2], lr=0.1)],
    ids=['Adafactor', 'Muon'],
)
def test_optimizers_that_treat_a_tensor_as_a_whole_differ_and_are_refused(make: Optimizers) -> None:
    pair = Pair(make)
    pair.each(steps)
    assert pair.differs() > 1e-6
    masked, compact = (run[1] for run in pair.runs)
    made = pair.runs[1][2]
    with pytest.raises(ValueError, match=rf'{type(made).__name__}.*MaskedTraining'):
        compact.check_optimizer(made)
    masked.check_optimizer(made)
    CompactTraining(pair.base, pair.selection, any_optimizer=True).check_optimizer(made)


class Subclass(optim.AdamW):
    pass


class Own(optim.SGD):
    def step(self, closure=None):
        return None


def test_subclasses_are_known_by_their_step() -> None:
    held = [nn.Parameter(torch.zeros(2))]
    assert is_elementwise(Subclass(held))
    assert not is_elementwise(Own(held))


@pytest.mark.parametrize('searched', [None, 'strong_wolfe'])
def test_a_closure_sees_the_numbers_of_its_own_call(searched: str | None) -> None:
    values: dict[type, list[float]] = {}

    def closed(network: nn.Module, training: SparseTraining, optimizer: optim.Optimizer) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            found = loss(network)
            found.backward()
            training.before_step()
            values.setdefault(type(training), []).append(found.item())
            return found

        for _ in range(2):
            optimizer.step(closure)
            training.after_step()

    pair = Pair(lambda held: optim.LBFGS(held, lr=0.5, max_iter=4, line_search_fn=searched)).each(closed)
    assert pair.differs() < 1e-8
    masked, compact = values.values()
    assert len(set(masked)) > 4
    assert compact == pytest.approx(masked, rel=1e-10)


class SharpnessAware(optim.SGD):
    """SAM (Foret et al., 2021) in its usual form: two passes, the second at the worst nearby point."""

    @torch.no_grad()
    def first_step(self) -> None:
        held = [value for value in self.param_groups[0]['params'] if value.grad is not None]
        norm = torch.stack([value.grad.norm() for value in held]).norm()
        for value in held:
            self.state[value]['old'] = value.data.clone()
            value.add_(value.grad * (0.5 / norm))

    @torch.no_grad()
    def second_step(self) -> None:
        for value in self.param_groups[0]['params']:
            value.data = self.state[value].get('old', value.data)
        self.step()


def test_a_perturbed_pass_sees_the_perturbed_numbers() -> None:
    def perturbed(network: nn.Module, training: SparseTraining, optimizer: SharpnessAware) -> None:
        for at in range(4):
            optimizer.zero_grad()
            loss(network, at).backward()
            training.before_step()
            optimizer.first_step()
            optimizer.zero_grad()
            loss(network, at).backward()
            training.before_step()
            optimizer.second_step()
            training.after_step()

    pair = Pair(lambda held: SharpnessAware(held, lr=0.1)).each(perturbed)
    assert pair.differs() < 1e-10
    assert pair.moved() > 1e-3


class ScheduleFree(optim.Optimizer):
    """Schedule-free SGD (Defazio et al., 2024): ``train`` and ``eval`` swap the numbers."""

    beta = 0.9

    def __init__(self, held: Iterable[nn.Parameter], inside: bool) -> None:
        super().__init__(held, dict(lr=0.1, k=0, training=True))
        self.inside = inside

    @torch.no_grad()
    def _move(self, weight: float) -> None:
        for group in self.param_groups:
            for value in group['params']:
                if 'z' in self.state[value]:
                    (value.data if self.inside else value).lerp_(self.state[value]['z'], weight)

    def eval(self) -> None:
        self._move(1 - 1 / self.beta)

    def train(self) -> None:
        self._move(1 - self.beta)

    @torch.no_grad()
    def step(self) -> None:
        group = self.param_groups[0]
        group['k'] += 1
        for value in group['params']:
            if value.grad is None:
                continue
            z = self.state[value].setdefault('z', value.clone())
            value.lerp_(z, 1 / group['k'])
            value.add_(value.grad, alpha=group['lr'] * (self.beta * (1 - 1 / group['k']) - 1))
            z.sub_(value.grad, alpha=group['lr'])


@pytest.mark.parametrize('inside', [False, True], ids=['in place', 'through .data'])
@pytest.mark.parametrize('look', ['forward', 'state'])
def test_an_optimizer_that_swaps_the_numbers_for_evaluation(inside: bool, look: str) -> None:
    seen: dict[type, list[Tensor]] = {MaskedTraining: [], CompactTraining: []}

    def swapping(network: nn.Module, training: SparseTraining, optimizer: ScheduleFree) -> None:
        for at in range(3):
            step(network, training, optimizer, at)
            optimizer.eval()
            with torch.no_grad():
                found = loss(network) if look == 'forward' else network.state_dict()['last.weight'].clone()
            seen[type(training)].append(found)
            optimizer.train()

    pair = Pair(lambda held: ScheduleFree(held, inside)).each(swapping)
    for masked, compact in zip(*seen.values(), strict=True):
        torch.testing.assert_close(compact, masked, rtol=1e-10, atol=1e-12)
    step(*pair.runs[1])
    step(*pair.runs[0])
    assert pair.differs() < 1e-10


def shifted(pair: Pair) -> dict[str, Tensor]:
    """The state of the base with other chosen numbers."""
    state = {name: value.clone() for name, value in pair.base.state_dict().items()}
    for parameter, connections in pair.selection.resolve(pair.base):
        state[parameter.name][connections.mask(parameter.neurons)] += 0.1
    return state


def copied(network: nn.Module, state: dict[str, Tensor]) -> None:
    for name, value in base_parameters(network):
        value.data.copy_(state[name])


def assigned(network: nn.Module, state: dict[str, Tensor]) -> None:
    for name, value in base_parameters(network):
        value.data = state[name].clone()


WRITES = {'load_state_dict': nn.Module.load_state_dict, 'data.copy_': copied, 'data =': assigned}


@pytest.mark.parametrize('trained', [False, True])
@pytest.mark.parametrize('write', WRITES)
def test_numbers_that_are_written_into_the_weights(write: str, trained: bool) -> None:
    def run(network: nn.Module, training: SparseTraining, optimizer: optim.Optimizer) -> None:
        if trained:
            step(network, training, optimizer)
        WRITES[write](network, state)
        step(network, training, optimizer, 1)
        step(network, training, optimizer, 2)

    pair = Pair(lambda held: optim.AdamW(held, lr=0.01))
    state = shifted(pair)
    pair.each(run)
    assert pair.differs() < 1e-10
    weight, mask = pair.runs[1][0].last.weight, dict(pair.selection.connections)['last.weight']
    moved = (weight - pair.base.last.weight).detach().flatten()[mask.positions]
    assert bool((moved > 0.05).all())  # 0.1 above the base, minus the movement in three steps


def test_numbers_that_are_swapped_for_a_validation_come_back() -> None:
    def run(network: nn.Module, training: SparseTraining, optimizer: optim.Optimizer) -> None:
        step(network, training, optimizer)
        mine = {name: value.clone() for name, value in network.state_dict().items()}
        copied(network, state)
        with torch.no_grad():
            assert float(loss(network)) == pytest.approx(float(loss(averaged)))
        copied(network, mine)
        step(network, training, optimizer, 1)

    pair = Pair(lambda held: optim.AdamW(held, lr=0.01))
    state = shifted(pair)
    averaged = copy.deepcopy(pair.base)
    averaged.load_state_dict(state)
    pair.each(run)
    assert pair.differs() < 1e-10


def test_numbers_that_were_changed_in_both_places_are_refused() -> None:
    pair = Pair(lambda held: optim.AdamW(held, lr=0.01))
    network, training, optimizer = pair.runs[1]
    step(network, training, optimizer)
    network.load_state_dict(shifted(pair))
    with torch.no_grad():
        training.replacements()[network.last.weight].add_(1)
    with pytest.raises(RuntimeError, match=r'last\.weight were changed both in the weight and'):
        network(torch.randn(2, 2, 5, 5, dtype=torch.float64))


def test_a_weight_that_was_replaced_is_refused() -> None:
    pair = Pair(lambda held: optim.AdamW(held, lr=0.01))
    network, training, optimizer = pair.runs[1]
    network.load_state_dict(shifted(pair), assign=True)
    with pytest.raises(RuntimeError, match=r'is another parameter than when CompactTraining was built; .* assign=True'):
        step(network, training, optimizer)


def test_a_nan_is_a_number_like_any_other() -> None:
    pair = Pair(lambda held: optim.AdamW(held, lr=0.01))
    network, training, _ = pair.runs[1]
    with torch.no_grad():
        training.replacements()[network.last.weight].fill_(float('nan'))
    for _ in range(2):
        loss(network).backward()
        training.before_step()
        training.after_step()
    assert int(network.last.weight.isnan().sum()) == len(dict(pair.selection.connections)['last.weight'])


def test_a_compiled_forward_that_cannot_see_a_change_is_refused() -> None:
    torch._dynamo.reset()
    pair = Pair(lambda held: SharpnessAware(held, lr=0.1))
    network, training, optimizer = pair.runs[1]
    compiled = torch.compile(network, backend='aot_eager', fullgraph=True)
    step(compiled, training, optimizer)
    step(compiled, training, optimizer)
    loss(compiled).backward()
    optimizer.first_step()
    with pytest.raises(RuntimeError, match=r'a compiled forward pass does not see; .*MaskedTraining'):
        loss(compiled).backward()
