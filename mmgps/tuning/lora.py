"""LoRA (Hu et al., ICLR 2022)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .injection import InjectionMethod
from .low_rank import low_rank
from .parts import Part, as_parts
from .placing import place
from .sites import InjectionError, find_sites, pick_sites

OFFERED = (Part.QKV, Part.PROJ, Part.FC1, Part.FC2, Part.LINEAR, Part.CONV)


class LoRA(InjectionMethod):
    """``y += alpha / rank * B A x`` behind linear layers and convolutions.

    Args:
        rank: Of the factors, at least 1.
        alpha: Factor of what they add; equal to ``rank`` by default, so that the factor is 1.
        parts: Which layers get factors, see :class:`Part`. By default the query, key and value projections; in a
            backbone without attention every linear layer and every convolution that is not grouped.

    Raises:
        ValueError: For a rank below 1, or a part that is none or has no low-rank form.
    """

    name = 'lora'

    def __init__(self, rank: int = 8, alpha: float | None = None, parts: str | Sequence[str] | None = None) -> None:
        self.rank = positive('rank', rank)
        self.alpha = float(rank if alpha is None else alpha)
        self.parts = None if parts is None else offered('lora', as_parts(parts), OFFERED)

    def settings(self) -> dict[str, object]:
        parts = None if self.parts is None else [part.value for part in self.parts]
        return {'rank': self.rank, 'alpha': self.alpha, 'parts': parts}

    def put_in_place(self, backbone: nn.Module) -> None:
        for site in pick_sites(backbone, self.parts or default_parts(backbone), self.name):
            place(site, low_rank(site, self.rank, self.alpha / self.rank))


def default_parts(backbone: nn.Module) -> tuple[Part, ...]:
    """The projections of the attention where there is one, else all that :class:`LoRA` offers."""
    attends = any(site.part is Part.QKV for site in find_sites(backbone))
    return (Part.QKV,) if attends else OFFERED


def positive(name: str, value: int) -> int:
    """``value`` if it is an integer of at least 1.

    Raises:
        ValueError: Otherwise.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'{name} must be an integer of at least 1, got {value!r}')
    return value


def offered(method: str, parts: tuple[Part, ...], allowed: Sequence[Part]) -> tuple[Part, ...]:
    """``parts`` if the method has a form for all of them.

    Raises:
        InjectionError: Otherwise.
    """
    wrong = [part.value for part in parts if part not in allowed]
    if wrong:
        raise InjectionError(f'{method} has no form for {wrong}; it offers {", ".join(part.value for part in allowed)}')
    return parts
