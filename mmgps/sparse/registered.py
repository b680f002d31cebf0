"""The trained numbers of a weight as a parameter of its layer, without a trace in state dicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from mmgps.rewiring import Injected

from .optimizer_steps import guard
from .weight import TrainedWeight

NAME = 'chosen_connections'
COPIED = (
    'belong to a copy of a tuned model, where nothing trains them: call mmgps.tune with the copy, or train the original'
)


class ChosenConnections(Injected):
    """Child of a layer that holds the trained numbers of its weights, under the weights' names.

    ``model.parameters()``, ``model.zero_grad()``, clipping, DDP and the optimizers that frameworks build find them
    there. A state dict has none of them, since the weights hold the same numbers. Copies and pickles of the layer have
    them, as averages of models need, and compute without them: an optimizer that holds them there raises an error.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Identity: a layer that calls its children in turn may call this one too."""
        return x

    def _save_to_state_dict(self, *_: Any, **__: Any) -> None:
        return None

    def _load_from_state_dict(self, *_: Any, **__: Any) -> None:
        return None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        guard(self.parameters(), COPIED)


def register(weights: Sequence[TrainedWeight], backbone: nn.Module) -> None:
    """Give each layer of ``backbone`` the trained numbers of its weights as parameters."""
    unregister(backbone)
    parents = {id(child): parent for parent in backbone.modules() for child in parent.children()}
    for weight in weights:
        holder, name = weight.owner, weight.attribute
        while isinstance(holder, nn.Sequential | nn.ModuleList | nn.ModuleDict) and id(holder) in parents:
            path = next(key for key, child in parents[id(holder)].named_children() if child is holder)
            holder, name = parents[id(holder)], f'{path}_{name}'
        if not isinstance(vars(holder)['_modules'].get(NAME), ChosenConnections):
            holder.add_module(NAME, ChosenConnections())
        holder.get_submodule(NAME).register_parameter(name, weight.values)


def unregister(backbone: nn.Module) -> None:
    """Take away what :func:`register` gave to the layers of ``backbone``, or of the network that it is a copy of."""
    for module in backbone.modules():
        if isinstance(vars(module)['_modules'].get(NAME), ChosenConnections):
            delattr(module, NAME)


def registered_in(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that :func:`register` added to ``model``."""
    for module in model.modules():
        if isinstance(module, ChosenConnections):
            yield from module.parameters()
