"""Recompute inputs of linear layers during backward, from tensors that norms and activations save anyway."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmgps.rewiring import OwnForward, computes_natively, no_hook, runs_forward_of

from .attach import Derivation, InAutocast, Make, derivation_of, identity, mark_derived
from .install import Handle
from .lean import remove_all
from .linear import LinearForward, dense_linear

NATIVE_NORMS = {'torch.nn.modules.normalization'}
NATIVE_ACTIVATIONS = {'torch.nn.modules.activation'}
KEEP_INPUT = (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
"""Activations whose backward reads their input: the output is recomputed from it."""
KEEP_OUTPUT = (nn.ReLU, nn.Sigmoid, nn.Tanh)
"""Activations whose backward reads their output, which is saved anyway."""


class Recomputation:
    """Keeps linear layers from saving inputs that are outputs of a norm or an activation.

    Backward recomputes them from the input of the norm or activation, which is saved anyway. Under ``torch.compile``,
    which decides itself what to recompute, the option changes nothing.

    Args:
        hidden: Share of the activations, counted from the first, whose own input is recomputed too if a linear layer
            behind a norm computes it. Each costs the product of that layer once more.

    Raises:
        ValueError: For a share outside 0 to 1.
    """

    def __init__(self, hidden: float = 0.0) -> None:
        if not 0 <= hidden <= 1:
            raise ValueError(f'hidden must be a share of the activations, from 0 to 1, got {hidden!r}')
        self.hidden = hidden
        self._handles: list[Handle] = []
        self._norms = self._activations = self._forgetting = 0

    def start(self, backbone: nn.Module) -> None:
        self.close()
        modules = list(backbone.modules())
        norms = [m for m in modules if isinstance(m, (nn.LayerNorm, nn.GroupNorm)) and runs_forward_of(m, NATIVE_NORMS)]
        activations = [m for m in modules if _is_activation(m)]
        if not norms and not activations:
            raise ValueError(
                f'mmgps.Recomputation found no layer norm, group norm or activation in {type(backbone).__name__} whose '
                'output it can recompute; remove the option'
            )
        inner = {id(m.out_proj) for m in modules if isinstance(m, nn.MultiheadAttention)}
        forgetting = [m for m in activations if isinstance(m, KEEP_INPUT)]
        forgetting = forgetting[: round(self.hidden * len(forgetting))]
        self._norms, self._activations, self._forgetting = len(norms), len(activations), len(forgetting)
        for norm in norms:
            self._watch(norm, _mark_norm)
        for activation in activations:
            self._watch(activation, _mark_activation)
        self._handles += [ForgettingActivation(activation) for activation in forgetting]
        for module in modules:
            if isinstance(module, nn.Linear) and id(module) not in inner:
                self._serve(module)

    def report(self) -> str:
        made = f'{self._norms} norms and {self._activations} activations'
        return f'recomputation: the outputs of {made}, and the inputs of {self._forgetting} of these'

    def close(self) -> None:
        remove_all(self._handles)

    def _serve(self, layer: nn.Linear) -> None:
        own = vars(layer).get('forward')
        if own is None and computes_natively(layer) and layer.weight.requires_grad:
            self._handles.append(DenseLinear(layer))
        elif not isinstance(own, LinearForward) and not computes_natively(layer):
            return
        if self._forgetting:
            self._watch(layer, _mark_product)

    def _watch(self, module: nn.Module, mark: Callable[..., None]) -> None:
        # it must run before other hooks, which may change the output
        self._handles.append(module.register_forward_hook(_Mark(mark), prepend=True, with_kwargs=True))


class DenseLinear(OwnForward):
    """The forward of a linear layer whose weight is trained as a whole."""

    def __call__(self, input: Tensor) -> Tensor:
        return dense_linear(input, self._owner.weight, self._owner.bias)  # type: ignore[arg-type]


class _Mark:
    """Forward hook that marks outputs that need a gradient; copies of the module do not get it."""

    def __init__(self, mark: Callable[..., None]) -> None:
        self._mark = mark

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        if output.requires_grad and not torch.compiler.is_compiling():
            self._mark(module, args[0] if args else kwargs['input'], output)

    def __reduce__(self) -> tuple[Any, ...]:
        return (no_hook, ())


def _mark_norm(norm: Any, x: Tensor, y: Tensor) -> None:
    sources = tuple(value.detach() for value in (x, norm.weight, norm.bias) if value is not None)
    by_layer = isinstance(norm, nn.LayerNorm)
    function: Callable[..., Tensor] = F.layer_norm if by_layer else F.group_norm
    shape = norm.normalized_shape if by_layer else norm.num_groups

    def make(x: Tensor, *affine: Tensor, eps: float = norm.eps) -> Tensor:
        return function(x, shape, *affine, eps=eps)

    mark_derived(y, Derivation(sources, InAutocast(make, x.device.type)))


def _mark_activation(activation: nn.Module, x: Tensor, y: Tensor) -> None:
    if isinstance(activation, KEEP_OUTPUT):
        mark_derived(y, Derivation((y.detach(),), identity))
    elif derivation_of(y) is None:
        mark_derived(y, Derivation((x.detach(),), identity, _pointwise(activation, x.device.type)))


def _mark_product(layer: Any, x: Tensor, y: Tensor) -> None:
    derived = derivation_of(x)
    if derived is None or derived.product:
        return
    values = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    sources = (*derived.sources, *(value.detach() for value in values))
    make = _Product(derived.make, derived.pointwise, len(derived.sources))
    mark_derived(y, Derivation(sources, InAutocast(make, x.device.type), product=True))


class _Product:
    """Computes the output of a linear layer from the sources of its input, its weight and its bias."""

    def __init__(self, make: Make, then: Callable[[Tensor], Tensor] | None, count: int) -> None:
        self._make, self._then, self._count = make, then, count

    def __call__(self, *sources: Tensor) -> Tensor:
        x = self._make(*sources[: self._count])
        return F.linear(x if self._then is None else self._then(x), *sources[self._count :])


class ForgettingActivation(OwnForward):
    """The forward of an activation that saves the sources of its input in place of the input, if it has any."""

    def __call__(self, input: Tensor) -> Tensor:
        native = partial(type(self._owner).forward, self._owner)
        derived = derivation_of(input)
        if derived is None or not derived.product or not (torch.is_grad_enabled() and input.requires_grad):
            plain: Tensor = native(input)
            return plain
        shared = _Shared(derived.make)
        y: Tensor = _Forgetting.apply(input, derived.sources, shared, native, self._owner)  # type: ignore[no-untyped-call]
        then = _pointwise(self._owner, input.device.type)
        mark_derived(y, Derivation(derived.sources, shared, then, product=True))
        return y


class _Shared:
    """Calls ``make`` once for an activation and the layer behind it."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._made: Tensor | None = None

    def __call__(self, *sources: Tensor) -> Tensor:
        if self._made is None:
            self._made = self._make(*sources)
        return self._made

    def last(self, *sources: Tensor) -> Tensor:
        """Return the result to its last consumer, and forget it."""
        made = self(*sources)
        self._made = None
        return made


class _Forgetting(torch.autograd.Function):
    """An activation that recomputes its input in backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, sources: tuple[Tensor, ...], shared: _Shared, native: Callable[..., Tensor], module: Any
    ) -> Tensor:
        ctx.save_for_backward(*sources)
        ctx.shared, ctx.native, ctx.module = shared, native, module
        return native(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.shared.last(*ctx.saved_tensors)
        if isinstance(ctx.module, nn.GELU):
            dx = torch.ops.aten.gelu_backward(dy, x, approximate=ctx.module.approximate)
        else:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (dx,) = torch.autograd.grad(ctx.native(x), x, dy)
        return dx, None, None, None, None


def _is_activation(module: nn.Module) -> bool:
    if not isinstance(module, (*KEEP_INPUT, *KEEP_OUTPUT)) or not runs_forward_of(module, NATIVE_ACTIVATIONS):
        return False
    return isinstance(module, KEEP_OUTPUT) or not getattr(module, 'inplace', False)


def _pointwise(activation: nn.Module, device: str) -> Callable[[Tensor], Tensor]:
    return InAutocast(partial(type(activation).forward, activation), device)
