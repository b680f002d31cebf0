"""What each position of a convolution's kernel reads, as a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Geometry:
    """How a kernel moves over its input.

    Args:
        kernel: Size, one number per spatial dimension, as all below.
        stride: Steps between outputs.
        dilation: Steps between kernel positions.
        padding: As ``torch.nn.functional.pad`` takes it: last dimension first, before and after.
        mode: Padding mode of ``torch.nn.functional.pad``.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    mode: str = 'constant'

    @property
    def plain(self) -> bool:
        """Whether each output position reads the input position of the same place and no other."""
        return {*self.kernel, *self.stride} == {1} and not any(self.padding)

    def padded(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding, self.mode) if any(self.padding) else x

    def windows(self, x: Tensor, outputs: Sequence[int]) -> Tensor:
        """View the padded ``x [batch, channels, *size]`` as ``[batch, channels, *kernel, *outputs]``.

        No stride of ``x`` is read: a compiler lays tensors out in memory otherwise than it found them while tracing.
        """
        dims = len(self.kernel)
        moves = zip(self.kernel, self.dilation, self.stride, outputs, strict=True)
        for dim, (kernel, dilation, stride, count) in enumerate(moves, 2):
            x = x.unfold(dim, dilation * (kernel - 1) + 1, stride).narrow(dim, 0, count)
            x = x[..., ::dilation] if dilation > 1 else x
        return x.permute(0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims))

    def outputs(self, padded: Sequence[int]) -> list[int]:
        """Output size for a padded input size."""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        return [(n - r) // s + 1 for n, r, s in zip(padded, reach, self.stride, strict=True)]


def geometry_of(owner: nn.Module) -> Geometry:
    """The geometry of a convolution; for a transposed one, of the convolution that it is the reverse of."""
    kernel, stride, dilation = (tuple(getattr(owner, name)) for name in ('kernel_size', 'stride', 'dilation'))
    mode = str(owner.padding_mode)
    return Geometry(kernel, stride, dilation, _padding(owner), 'constant' if mode == 'zeros' else mode)


def _padding(owner: nn.Module) -> tuple[int, ...]:
    """What torch reads in forward: ``padding``, which a network may set anew after construction; else what it derived
    from it then.
    """
    padding: Any = owner.padding
    if owner.padding_mode == 'zeros' and not isinstance(padding, str):
        return tuple(side for size in reversed(padding) for side in (size, size))
    return tuple(getattr(owner, '_reversed_padding_repeated_twice'))  # noqa: B009


def one_padding(padding: Sequence[int]) -> list[int] | None:
    """The padding that is the same before and after, first dimension first; None where the sides differ."""
    sides = [(padding[at], padding[at + 1]) for at in range(0, len(padding), 2)][::-1]
    return [before for before, _ in sides] if all(a == b for a, b in sides) else None
