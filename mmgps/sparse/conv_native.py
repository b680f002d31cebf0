"""The whole gradient of a convolution's weight."""

from __future__ import annotations

import torch
from torch import Tensor

from .windows import Geometry


def weight_gradient(
    dy: Tensor, x: Tensor, shape: tuple[int, ...], geometry: Geometry, padding: list[int], groups: int, transposed: bool
) -> Tensor:
    """The gradient of a convolution's weight of ``shape``, by the native operation."""
    stand_in = dy.new_empty(1).expand(shape)
    outputs = _outputs_of_transposed(x, geometry, padding) if transposed else list(dy.shape[2:])
    beyond = [found - least for found, least in zip(dy.shape[2:], outputs, strict=True)]
    stride, dilation, mask = list(geometry.stride), list(geometry.dilation), [False, True, False]
    native = torch.ops.aten.convolution_backward
    _, whole, _ = native(dy, x, stand_in, None, stride, padding, dilation, transposed, beyond, groups, mask)
    gradient: Tensor = whole
    return gradient


def _outputs_of_transposed(x: Tensor, geometry: Geometry, padding: list[int]) -> list[int]:
    """The least size of the output: a caller may have asked for more, by ``output_padding`` or ``output_size``."""
    sizes = zip(x.shape[2:], geometry.kernel, geometry.stride, geometry.dilation, padding, strict=True)
    return [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, d, p in sizes]
