"""What a prepared set holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmgps.datasets.prepare.sources import PolypSource


@dataclass
class Summary:
    """Counts, sizes and foreground shares, gathered image by image.

    Attributes:
        source: The set.
        out: Where it was written.
        counts: Images per split.
        sizes: ``(width, height)`` of each image in pixels.
        shares: Foreground pixels / pixels of each mask.
    """

    source: PolypSource
    out: Path
    counts: dict[str, int] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def add(self, split: str, mask: np.ndarray) -> None:
        """Count one image with its ``mask``, ``(H, W)`` of 0 and 1."""
        self.counts[split] = self.counts.get(split, 0) + 1
        self.sizes.append((mask.shape[1], mask.shape[0]))
        self.shares.append(float(mask.mean()))

    def __str__(self) -> str:
        counts = ', '.join(f'{count} {split}' for split, count in sorted(self.counts.items()))
        small, large = (extreme(self.sizes, key=lambda size: size[0] * size[1]) for extreme in (min, max))
        return (
            f'{self.source.title} in {self.out}: {counts}\n'
            f'sizes: {small[0]}x{small[1]} to {large[0]}x{large[1]} pixels, {len(set(self.sizes))} different\n'
            f'foreground: {np.mean(self.shares):.1%} of an image on average, {min(self.shares):.1%} to '
            f'{max(self.shares):.1%}, {self.shares.count(0.0)} masks empty\n'
            f'cite: {self.source.cite}'
        )
