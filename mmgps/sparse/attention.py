"""Train connections of ``nn.MultiheadAttention``, which packs three weights into one and never calls its projections.

torch's own code runs with one name rebound: ``linear`` also attaches the values. So the mathematics, masks and dropout
are torch's. Where the caller drops the attention weights, ``F.scaled_dot_product_attention`` can replace that code; it
saves only queries, keys, values and output.
"""

from __future__ import annotations

import threading
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.rewiring import OwnForward, no_hook, runs_forward_of

from .attach import Derivation, constant, identity, mark_derived, needs_grad
from .linear import LinearPlan, attached_linear, dense_linear, linear_plan
from .routes import Route
from .weight import TrainedWeight


def runs_natively(owner: nn.Module) -> bool:
    """True if ``owner`` is an ``nn.MultiheadAttention`` that runs torch's forward."""
    return isinstance(owner, nn.MultiheadAttention) and runs_forward_of(owner, {nn.MultiheadAttention.__module__})


class Projection:
    """A weight of the attention, with a plan for each set of rows that is read at once.

    The plans are made before the first forward, so that a compiled forward creates none.

    Args:
        weight: The weight.
        packed: Whether it holds the query, key and value projections, one or two of which may be read at once.
    """

    def __init__(self, weight: TrainedWeight, packed: bool) -> None:
        self.weight = weight
        neurons = weight.layout.neurons
        each = neurons // 3
        parts = [(0, each), (each, 2 * each), (2 * each, neurons), (each, neurons)] if packed else []
        self._parts = {part: self._planned(*part) for part in [(0, neurons), *parts]}

    def __call__(self, x: Tensor, w: Tensor, b: Tensor | None, start: int) -> Tensor:
        """The linear map by ``w``, the rows of the weight from ``start`` on; it depends on the values in these rows."""
        entries, plan = self._parts[start, start + len(w)]
        values: Tensor = self.weight.values
        if plan is None or not needs_grad(values):
            return F.linear(x, constant(w), b)
        if entries != (0, len(self.weight)):
            values = values.reshape(-1)[entries[0] : entries[1]]
        return attached_linear(x, w, b, values, plan)

    def route(self) -> Route:
        """The route of a call with all rows."""
        _, plan = self._parts[0, self.weight.layout.neurons]
        assert plan is not None, 'only weights with trained numbers are installed'
        return plan.route

    def _planned(self, start: int, stop: int) -> tuple[tuple[int, int], LinearPlan | None]:
        """The range of the values in rows ``start`` to ``stop``, and their plan: None if there are no values."""
        rows = self.weight.rows
        first, last = int((rows < start).sum()), int((rows < stop).sum())
        if first == last:
            return (first, last), None
        columns = self.weight.columns[first:last]
        return (first, last), linear_plan(rows[first:last] - start, columns, stop - start, self.weight.layout.fan_in)


class _Rows(threading.local):
    """The next row of the packed weight, per thread."""

    next = 0


class ProjectingForward(OwnForward, ABC):
    """The forward of one ``nn.MultiheadAttention`` that computes its linear maps by :meth:`project`.

    Args:
        owner: The module.
        names: See :func:`attention_code`.
    """

    def __init__(self, owner: nn.MultiheadAttention, **names: Any) -> None:
        super().__init__(owner)
        self._owner: nn.MultiheadAttention = owner
        self._forward = attention_code(self._linear, **names)
        self._read, self._compiled_read = _Rows(), 0
        self.fused = False
        """True if the caller drops the attention weights, so that none are computed."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._count(0)
        run = self._without_weights if self.fused else self._forward
        return run(self._owner, *args, **kwargs)

    def _without_weights(
        self,
        owner: nn.MultiheadAttention,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        masked = attn_mask is not None or key_padding_mask is not None or is_causal
        if not masked and is_self_attention(owner, query, key, value):
            return self_attention(owner, self._linear, query), None
        masks = (key_padding_mask, False, attn_mask, average_attn_weights, is_causal)
        attended: tuple[Tensor, None] = self._forward(owner, query, key, value, *masks)
        return attended

    def _linear(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        # torch reads the packed weight from its first row to its last; compiled code cannot ask for addresses
        start = self._compiled_read if torch.compiler.is_compiling() else self._read.next
        if w is not self._owner.out_proj.weight:
            self._count(start + len(w))
        return self.project(x, w, b, start)

    def _count(self, row: int) -> None:
        """Note that ``row`` of the packed weight is read next in this thread; compiled code has only one thread."""
        if torch.compiler.is_compiling():
            self._compiled_read = row
        else:
            self._read.next = row

    @abstractmethod
    def project(self, x: Tensor, w: Tensor, b: Tensor | None, start: int) -> Tensor:
        """The linear map by ``w``.

        Args:
            x: The input.
            w: A weight of the module, or rows of the packed weight.
            b: The bias.
            start: Index of the first of these rows.
        """


class AttentionForward(ProjectingForward):
    """The forward of one ``nn.MultiheadAttention`` while weights of it are trained, from construction to ``remove``.

    Args:
        owner: The module.
        weights: Its trained weights, including that of the output projection.
    """

    def __init__(self, owner: nn.MultiheadAttention, weights: Sequence[TrainedWeight]) -> None:
        # torch's fast inference path would give the values no gradient
        super().__init__(owner, _arg_requires_grad=lambda _: True)
        # nn.TransformerEncoderLayer has such a path too, which bypasses the attention unless that has a hook
        self._hook = owner.register_forward_hook(no_hook())
        packed = owner.in_proj_weight
        self._projections = [Projection(weight, weight.dense is packed) for weight in weights]
        self._packed = next((p for p in self._projections if p.weight.dense is packed), None)

    def remove(self) -> None:
        super().remove()
        self._hook.remove()

    def project(self, x: Tensor, w: Tensor, b: Tensor | None, start: int) -> Tensor:
        for projection in self._projections:
            if projection.weight.dense is w:
                return projection(x, w, b, 0)
        if self._packed is None or w is self._owner.out_proj.weight:
            return F.linear(x, w, b)
        return self._packed(x, w, b, start)

    def routes(self) -> dict[str, Route]:
        """Weight name to the route of a call with all its rows."""
        return {projection.weight.name: projection.route() for projection in self._projections}


class PlainAttention(ProjectingForward):
    """The forward of one ``nn.MultiheadAttention`` whose weights are trained as a whole or not at all."""

    def project(self, x: Tensor, w: Tensor, b: Tensor | None, start: int) -> Tensor:
        return dense_linear(x, w, b)


def attention_code(linear: Callable[..., Tensor], **names: Any) -> Callable[..., Any]:
    """A copy of torch's forward of the attention that calls ``linear``.

    Args:
        linear: Replaces ``F.linear``; receives the packed weight or consecutive rows of it.
        names: Other names to rebind in torch's module.
    """
    inner = F.multi_head_attention_forward
    parts = {name: _rebound(getattr(F, name), linear=linear) for name in ('_in_projection_packed', '_in_projection')}
    # Under a torch function mode, such as torch.export or ``with torch.device(...)``, torch's code would redirect the
    # call to the original function. Without that check, each operation inside goes through the mode instead.
    attention = _rebound(inner, linear=linear, has_torch_function=lambda _: False, **parts)
    functional = types.SimpleNamespace(**{**vars(F), inner.__name__: attention})
    forward: Callable[..., Any] = _rebound(nn.MultiheadAttention.forward, F=functional, **names)
    return forward


def _rebound(function: Any, **names: Any) -> Any:
    """A copy of ``function`` with some of its global names rebound.

    Its scope has no ``__name__``, since torch.compile would look the names up in the module of that name.
    """
    scope = {**function.__globals__, **names}
    del scope['__name__']
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


KEEPS_OUTPUT = (
    'ScaledDotProductFlashAttention',
    'ScaledDotProductEfficientAttention',
    'ScaledDotProductCudnnAttention',
)
"""Prefixes of the names of torch's operations that save their output for backward."""


def is_self_attention(owner: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> bool:
    """True if ``owner`` computes plain self-attention on a batch, with one packed projection and no extra keys."""
    packed = owner.in_proj_weight is not None and owner.bias_k is None and not owner.add_zero_attn
    return packed and query.dim() == 3 and _same(query, key) and _same(query, value)


def self_attention(owner: nn.MultiheadAttention, linear: Callable[..., Tensor], x: Tensor) -> Tensor:
    """The output of ``owner`` for ``x`` as queries, keys and values, in the layout of ``x``.

    The projections read the tokens image by image, the order in which callers store them whatever ``batch_first`` says.
    Dropout draws other random numbers than in torch's code with weights.

    Args:
        owner: The module.
        linear: Computes the linear maps of ``owner``, the packed one first.
        x: ``[batch, tokens, width]``, or ``[tokens, batch, width]`` without ``batch_first``.
    """
    x = x if owner.batch_first else x.transpose(0, 1)
    images, tokens, width = x.shape
    heads = (images, tokens, owner.num_heads, owner.head_dim)
    packed = linear(x, owner.in_proj_weight, owner.in_proj_bias)
    q, k, v = (part.view(heads).transpose(1, 2) for part in packed.chunk(3, dim=-1))
    attended = F.scaled_dot_product_attention(q, k, v, dropout_p=owner.dropout if owner.training else 0.0)
    if not torch.compiler.is_compiling() and _maker(attended).startswith(KEEPS_OUTPUT):
        mark_derived(attended, Derivation((attended.detach(),), identity))
    y = linear(attended.transpose(1, 2).reshape(images, tokens, width), owner.out_proj.weight, owner.out_proj.bias)
    return y if owner.batch_first else y.transpose(0, 1)


def _same(a: Tensor, b: Tensor) -> bool:
    """True if ``b`` is ``a`` or the same view of the same tensor, since mmcv transposes one tensor three times."""
    if a is b:
        return True
    if torch.compiler.is_compiling() or a._base is None or a._base is not b._base:
        return False
    return _layout(a) == _layout(b)


def _layout(x: Tensor) -> tuple[object, ...]:
    return x.shape, x.stride(), x.storage_offset(), x.dtype, x.requires_grad, _maker(x)


def _maker(x: Tensor) -> str:
    """The name of the operation that made ``x``, or '' without a gradient."""
    return '' if x.grad_fn is None else x.grad_fn.name()
