"""Install the forwards that compute the gradients of the values, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import nn

from mmgps.rewiring import TRANSPOSED, computes_natively

from .attention import AttentionForward, runs_natively
from .conv import ConvForward, conv_plan, transposed_plan
from .linear import LinearForward
from .routes import GradientKernel, Route
from .weight import TrainedWeight


class Handle(Protocol):
    """An installed change that can be removed."""

    def remove(self) -> None: ...


class Installer:
    """Installs a forward on every owner of a trained weight that computes natively.

    Any other owner is left alone: the weight receives its own gradient, from which the chosen numbers are picked
    (:meth:`TrainedWeight.watch`). This is the fallback.

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
    """Convolutions that mmcv's ``ConvModule`` fuses with the norm behind them, by swapping their forward."""
    for module in backbone.modules():
        if getattr(module, 'efficient_conv_bn_eval_forward', None) is not None:
            yield module.get_submodule('conv')
