"""What compact training is meant to reach, as ratios between methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from .figures import Figures
from .lora import is_plain_vit

WIDE = 50_000_000
"""Numbers of a backbone from which on it is measured by the bars for ViT-B (86 million), not DeiT-Tiny (5.5)."""


@dataclass(frozen=True)
class Bar:
    """A ratio that shall not be exceeded.

    Args:
        figure: An attribute of :class:`Figures`.
        method: Whose figure.
        reference: To whose.
        limit: The largest ratio that is good enough.
        aim: What would be good.
    """

    figure: str
    method: str
    reference: str
    limit: float
    aim: float

    def ratio(self, figures: Mapping[str, Figures]) -> float | None:
        """The measured ratio; None where one of the two methods, or its figure, is missing."""
        pair = [getattr(figures[name], self.figure) for name in (self.method, self.reference) if name in figures]
        return pair[0] / pair[1] if len(pair) == 2 and all(pair) else None

    def verdict(self, ratio: float | None) -> str:
        """In words."""
        if ratio is None:
            return 'not measured'
        if ratio > self.limit:
            return f'misses by {ratio - self.limit:.3f}'
        return 'meets the aim' if ratio <= self.aim else 'meets the bar'


def bars_for(backbone: nn.Module) -> list[Bar]:
    """The bars for a plain ViT of the size of ``backbone``; none are set for other architectures."""
    if not is_plain_vit(backbone):
        return []
    wide = sum(value.numel() for value in backbone.parameters()) >= WIDE
    one, many = 'gps-compact-k1', 'gps-compact-k20'
    return [
        Bar('step_s', one, 'bias', 1.06 if wide else 1.08, 1.02 if wide else 1.03),
        Bar('step_s', one, 'full', 0.82 if wide else 0.92, 0.75 if wide else 0.85),
        Bar('step_s', one, 'lora-r8', 0.95, 0.85),
        Bar('saved_bytes', one, 'bias', 1.10, 1.05),
        Bar('saved_bytes', one, 'lora-r8', 0.75, 0.65),
        Bar('step_s', many, 'full', 1.02, 0.90 if wide else 0.95),
        Bar('step_s', f'{one}+leaner', 'bias', 1.05, 1.00),
        Bar('saved_bytes', f'{one}+leaner', 'bias', 0.85, 0.75),
        *(
            bar
            for k, step in ((5, 0.88), (20, 0.95))
            for bar in (
                Bar('step_s', f'gps-compact-k{k}+lean', 'full', 1.00, step),
                Bar('saved_bytes', f'gps-compact-k{k}+lean', 'full', 0.85, 0.70 if k == 5 else 0.75),
            )
        ),
        Bar('optimizer_bytes_per_number', one, 'bias', 1.01, 1.01),
        Bar('reduced_bytes_per_number', one, 'bias', 1.01, 1.01),
    ]
