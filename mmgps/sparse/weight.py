"""The trained numbers of one weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmgps.selection import Connections, Parameter

from .places import Places
from .shard import ShardPlaces, is_sharded


class TrainedWeight:
    """A frozen dense weight and the few of its numbers that are trained.

    The numbers live in a parameter of their own, ``values``: ``[neurons, k]`` where every neuron has the same count,
    else ``[chosen]``, in the order of :attr:`Connections.positions`, of the weight's type and device. It belongs to
    no module, so the state dict and the order of the module's parameters stay those of the base.

    The numbers are in two places, which agree between steps. What they agree on is noted, so that it can be told which
    of the two somebody changed since.

    Args:
        parameter: The weight, its owner and its neurons.
        connections: Which of its numbers are trained.
    """

    def __init__(self, parameter: Parameter, connections: Connections) -> None:
        self.name, self.layout = parameter.name, parameter.neurons
        self.owner, self.attribute, self._connections = parameter.owner, parameter.attribute, connections
        self._find_places()
        self.values = nn.Parameter(self._places.take().view(_shape(connections)))
        self.agreed = self.values.detach().clone()
        """The numbers that values and weight held when one was last copied to the other."""
        self._seen = self._marks()
        self._watch: RemovableHandle | None = None

    @property
    def dense(self) -> nn.Parameter:
        """The weight that its owner has now: one that is sharded is another tensor within the forward pass."""
        found = self.owner._parameters[self.attribute]
        assert found is not None
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def follow(self) -> None:
        """Go where the dense weight went: to another device, or into shards on several processes."""
        self._find_places()
        self.values.data = self.values.data.to(self.dense.device)
        self.agreed = self.agreed.to(self.dense.device)

    @torch.no_grad()
    def read(self) -> None:
        """Take ``values`` from the dense weight."""
        self.values.copy_(self._places.take().view_as(self.values))
        self._note()

    @torch.no_grad()
    def write(self) -> None:
        """Put ``values`` into the dense weight, in place; its other numbers keep their bits."""
        self._places.put(self.values.view(-1))
        self._note()

    def _note(self) -> None:
        self.agreed = self.values.detach().clone()
        self._seen = self._marks()

    def _marks(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """What tells of values and weight that they were written, as far as torch counts it, or lie elsewhere."""
        dense = self.dense  # of one that is sharded nothing is told
        of_dense = (0, 0) if is_sharded(dense) else (dense._version, dense.data_ptr())
        return (self.values._version, self.values.data_ptr()), of_dense

    @property
    def values_touched(self) -> bool:
        """Whether somebody wrote into ``values`` since they were read or written; ``values.data`` aside."""
        return self.values._version != self._seen[0][0]

    @property
    def touched(self) -> bool:
        """Whether somebody wrote into either since one was last copied to the other, as far as torch counts it."""
        return self._marks() != self._seen

    def in_dense(self) -> Tensor:
        """The chosen numbers of the dense weight, in the shape of ``values``."""
        return self._places.take().view_as(self.values)

    def watch(self) -> None:
        """Let the dense weight require a gradient, of which ``values`` get the chosen numbers.

        The forward that is installed on a layer computes with the weight as a constant. So what arrives here comes
        from whatever else reads it: an owner that computes in a way of its own, the module around it, a loss.
        """
        dense = self.dense
        dense.grad = None
        dense.requires_grad_(True)
        self._watch = _after_accumulating(dense, self.collect)

    def after_backward(self, action: Callable[[], None]) -> RemovableHandle:
        """Call ``action`` whenever ``values`` have received a gradient, until the handle is removed."""
        return _after_accumulating(self.values, lambda _: action())

    def unwatch(self) -> None:
        if self._watch is not None:
            self._watch.remove()
            self._watch = None

    @torch.no_grad()
    def collect(self, dense: Tensor) -> None:
        """Add the chosen numbers of the gradient of ``dense`` to that of ``values``, and free it."""
        found, dense.grad = dense.grad, None
        if found is None or not self.values.requires_grad:
            return
        whole = found.full_tensor() if is_sharded(found) else found  # type: ignore[attr-defined]
        picked = whole.reshape(-1).index_select(0, self.flat).view_as(self.values)
        torch.autograd.backward([self.values], [picked])  # and whoever watches the values is told

    @property
    def replaced(self) -> bool:
        """Whether the owner has another parameter than the one that this was built for, or that it followed last.

        One that is sharded is another within the forward pass and comes back after it: False.
        """
        return self.dense is not self._found and not is_sharded(self._found)

    def _find_places(self) -> None:
        dense, connections = self.dense, self._connections
        self._found = dense
        self.rows = connections.rows.to(dense.device)
        """Neuron of each number, int64 ``[chosen]``, ascending."""
        self.columns = connections.columns.to(dense.device)
        """Its place among the neuron's inputs, int64 ``[chosen]``."""
        self._places = (ShardPlaces if is_sharded(dense) else Places)(dense, self.layout, connections)
        self.flat = self._places.flat
        """Its place in the weight read in logical order, int64 ``[chosen]``."""


def _shape(connections: Connections) -> tuple[int, ...]:
    count = len(connections)
    per_neuron = torch.bincount(connections.rows, minlength=connections.neurons)
    equal = count > 0 and bool((per_neuron == per_neuron[0]).all())
    return (connections.neurons, count // connections.neurons) if equal else (count,)


def with_changed_values(weights: Sequence[TrainedWeight]) -> list[TrainedWeight]:
    """Those whose values have changed since they were read or written."""
    return _changed(weights, *values_and_agreed(weights))


def with_changed_weights(weights: Sequence[TrainedWeight]) -> list[TrainedWeight]:
    """Those whose numbers in the weight have; those that are sharded aside, of which it is not known."""
    return _changed(_unsharded(weights), *weights_and_agreed(weights))


def values_and_agreed(weights: Sequence[TrainedWeight]) -> tuple[list[Tensor], list[Tensor]]:
    """The values, and the numbers that they held when they were last read or written."""
    return [weight.values.detach() for weight in weights], [weight.agreed for weight in weights]


def weights_and_agreed(weights: Sequence[TrainedWeight]) -> tuple[list[Tensor], list[Tensor]]:
    """The chosen numbers in the weights that are not sharded, and those that they held back then."""
    weights = _unsharded(weights)
    return [weight.in_dense() for weight in weights], [weight.agreed for weight in weights]


def different_bits(ones: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """One flag per type and device, bool ``[]`` on that device: a tensor of ``ones`` differs from its counterpart."""
    groups: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], list[Tensor]]] = {}
    for one, other in zip(ones, others, strict=True):
        mine, theirs = groups.setdefault((one.dtype, one.device), ([], []))
        mine.append(one.reshape(-1))
        theirs.append(other.reshape(-1))
    return [(_bits(mine) != _bits(theirs)).any() for mine, theirs in groups.values()]


def _unsharded(weights: Sequence[TrainedWeight]) -> list[TrainedWeight]:
    return [weight for weight in weights if not is_sharded(weight.dense)]


@torch.no_grad()
def _changed(weights: Sequence[TrainedWeight], now: list[Tensor], agreed: list[Tensor]) -> list[TrainedWeight]:
    if not any(different_bits(now, agreed)):
        return []
    pairs = zip(weights, now, agreed, strict=True)
    return [weight for weight, one, other in pairs if any(different_bits([one], [other]))]


def _bits(parts: list[Tensor]) -> Tensor:
    whole = torch.cat(parts)
    return whole.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[whole.element_size()])


def _after_accumulating(value: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    handle: RemovableHandle = value.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
    return handle
