"""A small layer of each type with its own gradient route, and the shape of its input."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention plus attention with different queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0] + self.attention(x, x.flip(0), x.flip(1))[0]


class FirstOf(nn.Module):
    """Drops the state of a recurrent layer."""

    def forward(self, found: tuple[Tensor, object]) -> Tensor:
        return found[0]


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    'linear': (lambda: nn.Linear(16, 12), (3, 5, 16)),
    'convolution': (lambda: nn.Conv2d(8, 6, 3, stride=2, padding=1), (2, 8, 9, 7)),
    'grouped': (lambda: nn.Conv2d(8, 6, 3, padding=1, groups=2), (2, 8, 9, 7)),
    'depthwise': (lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6), (2, 6, 9, 7)),
    'one_dimension': (lambda: nn.Conv1d(8, 6, 3, padding=1), (2, 8, 9)),
    'three_dimensions': (lambda: nn.Conv3d(4, 6, 3, padding=1), (2, 4, 5, 5, 5)),
    'transposed': (lambda: nn.ConvTranspose2d(8, 6, 3, stride=2), (2, 8, 5, 4)),
    'attention': (Attention, (3, 4, 16)),
    'recurrent': (lambda: nn.Sequential(nn.LSTM(8, 6), FirstOf()), (3, 2, 8)),
}
CONVOLUTIONS: tuple[Callable[[], nn.Module], tuple[int, ...]] = (
    lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.GELU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ConvTranspose2d(8, 4, 2)
    ),
    (2, 3, 8, 8),
)
