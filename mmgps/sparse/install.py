"""Install the forwards that compute the gradients of the values, and register the values as parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from mmgps.rewiring import TRANSPOSED, Injected, computes_natively

from .attention import AttentionForward, runs_natively
from .conv import ConvForward, conv_plan, transposed_plan
from .linear import LinearForward
from .optimizers import guard
from .routes import GradientKernel, Route
from .weight import TrainedWeight


class Handle(Protocol):
    """An installed change that can be removed."""

    def remove(self) -> None: ...


class Installer:
    """Installs a forward on every owner of a trained weight that computes natively.

    Other owners are left alone and take the fallback: the weight receives its own gradient, from which the chosen
    numbers are picked (:meth:`TrainedWeight.watch`).

    Args:
        weights: The trained weights.
    """

    def __init__(self, weights: Sequence[TrainedWeight]) -> None:
        self._weights = {id(weight.dense): weight for weight in weights if len(weight)}
        self.handles: list[Handle] = []
        self.routes: dict[str, Route] = {}

    def install(self, backbone: nn.Module) -> None:
        served: set[int] = set()
        fused = {id(owner) for owner in fused_convolutions(backbone)}
        for owner in backbone.modules():
            if runs_natively(owner):
                assert isinstance(owner, nn.MultiheadAttention)
                self._install_attention(owner)
                served |= {id(owner), id(owner.out_proj)}
        for owner in backbone.modules():
            for attribute, value in owner.named_parameters(recurse=False):
                weight = self._weights.get(id(value))
                if weight is not None and id(owner) not in served:
                    native = attribute == 'weight' and computes_natively(owner) and id(owner) not in fused
                    self._install_layer(owner, weight, native)

    def _install_attention(self, owner: nn.MultiheadAttention) -> None:
        values = [*owner.parameters(recurse=False), owner.out_proj.weight]
        weights = [self._weights[id(value)] for value in values if id(value) in self._weights]
        if weights:
            forward = AttentionForward(owner, weights)
            self.handles.append(forward)
            self._note(forward.routes())

    def _install_layer(self, owner: nn.Module, weight: TrainedWeight, native: bool) -> None:
        if not native:
            fan_in = weight.layout.fan_in
            self._note({weight.name: Route(GradientKernel.FALLBACK, fan_in, fan_in, len(weight))})
            return
        if isinstance(owner, nn.Linear):
            forward: LinearForward | ConvForward = LinearForward(owner, weight)
        else:
            plan = transposed_plan(owner, weight) if isinstance(owner, TRANSPOSED) else conv_plan(owner, weight)
            forward = ConvForward(owner, weight.values, plan)
        self.handles.append(forward)
        self._note({weight.name: forward.plan.route})

    def _note(self, routes: dict[str, Route]) -> None:
        for name, route in routes.items():
            self.routes.setdefault(name, route)


def fused_convolutions(backbone: nn.Module) -> Iterator[nn.Module]:
    """Convolutions that mmcv's ``ConvModule`` fuses with the following norm by swapping their forward."""
    for module in backbone.modules():
        if getattr(module, 'efficient_conv_bn_eval_forward', None) is not None:
            yield module.get_submodule('conv')


NAME = 'chosen_connections'
COPIED = (
    'belong to a copy of a tuned model, where nothing trains them: call mmgps.tune with the copy, or train the original'
)


class ChosenConnections(Injected):
    """Child of a layer that holds the trained numbers of its weights, under the weights' names.

    ``model.parameters()``, ``model.zero_grad()``, clipping, DDP and the optimizers of frameworks find them here. State
    dicts omit them, since the weights hold the same numbers. Copies and pickles of the layer contain them, as averages
    of models need, but compute without them: an optimizer that holds those raises an error.
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
    """Remove the parameters that :func:`register` added to ``backbone``, or to the network that it is a copy of."""
    for module in backbone.modules():
        if isinstance(vars(module)['_modules'].get(NAME), ChosenConnections):
            delattr(module, NAME)


def registered_in(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that :func:`register` added to ``model``."""
    for module in model.modules():
        if isinstance(module, ChosenConnections):
            yield from module.parameters()
