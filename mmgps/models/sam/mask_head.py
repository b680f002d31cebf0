"""SAM's mask decoder, with its prompt encoder, as a decode head of mmseg."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from mmgps.registry import MODELS

from .image_encoder import LayerNorm2d
from .mask_decoder import MaskDecoder

POINTS = 4
"""Background point, foreground point, and the two corners of a box."""


class Positions(nn.Module):
    """Fourier features of places in the unit square (Tancik et al., NeurIPS 2020), with fixed random frequencies.

    Args:
        dims: Number of features, half of them sines.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer('positional_encoding_gaussian_matrix', torch.randn(2, dims // 2))

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return the features of the cell centres of a ``grid`` of rows and columns: ``[1, dims, *grid]``."""
        frequencies = self.positional_encoding_gaussian_matrix
        y, x = ((torch.arange(n, device=frequencies.device, dtype=frequencies.dtype) + 0.5) / n for n in grid)
        places = torch.stack([x.expand(grid), y[:, None].expand(grid)], -1)
        angles = 2 * math.pi * ((2 * places - 1) @ frequencies)
        return torch.cat([angles.sin(), angles.cos()], -1).permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """The parameters of SAM's prompt encoder, frozen, under the names of the published files.

    It keeps those for points, boxes and masks too, so a checkpoint holds the whole SAM and also serves programs that
    prompt. Nothing here is trained, as in the paper.

    Args:
        dims: Channels of the image's feature.
    """

    def __init__(self, dims: int = 256) -> None:
        super().__init__()
        self.pe_layer = Positions(dims)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dims) for _ in range(POINTS))
        self.not_a_point_embed = nn.Embedding(1, dims)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, 2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, 2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, dims, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dims)
        self.requires_grad_(False)

    def forward(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Embed the absence of prompts.

        Args:
            grid: Rows and columns of the image's feature.

        Returns:
            Positions of the image ``[1, dims, *grid]`` and the embedding of no mask ``[1, dims, 1, 1]``.
        """
        return self.pe_layer(grid), self.no_mask_embed.weight[:, :, None, None]


FIXED = dict(num_classes=2, out_channels=2, dropout_ratio=0, init_cfg=None)
"""Options of mmseg's head that SAM determines."""


@MODELS.register_module()
class SAMMaskHead(BaseDecodeHead):
    """SAM's mask decoder without prompts, for one kind of object.

    SAM predicts one logit ``m``; this head returns ``(0, m)`` for background and object. The softmax of the two is the
    sigmoid of ``m``, their arg max is ``m > 0``, and their cross-entropy is the binary one, so the losses, metrics,
    sliding windows and test-time augmentation of mmseg work as for any head. With one channel they would not:
    mmseg's ``SegTTAModel`` takes the sigmoid of a probability and calls every pixel foreground.

    Args:
        in_channels: Channels of the feature.
        loss_decode: One loss of mmseg, or several.
        in_index: Index of the feature of the backbone.
        **options: As for mmseg's ``BaseDecodeHead``.

    Raises:
        ValueError: If an option that SAM determines, such as ``num_classes``, has another value.
    """

    def __init__(
        self,
        in_channels: int = 256,
        loss_decode: dict | Sequence[dict] = (
            dict(type='CrossEntropyLoss', avg_non_ignore=True),
            dict(type='mmgps.ForegroundIoULoss'),
        ),
        in_index: int = 0,
        **options: Any,
    ) -> None:
        fixed = {**FIXED, 'channels': in_channels}
        for key, value in fixed.items():
            if options.get(key, value) != value:
                raise ValueError(
                    f'{type(self).__name__} has {key}={value!r}, got {key}={options[key]!r}; leave it out. The head '
                    'separates one kind of object from background, and starts from the weights of the whole SAM '
                    '(init_cfg of the segmentor); for more classes or other weights use another decode head'
                )
        super().__init__(in_channels, in_index=in_index, loss_decode=loss_decode, **{**options, **fixed})
        del self.conv_seg
        self.prompt_encoder = PromptEncoder(in_channels)
        self.mask_decoder = MaskDecoder(in_channels)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Convert the features of the backbone to logits ``[B, 2, 4 * H, 4 * W]`` of background and object."""
        image = self._transform_inputs(inputs)
        positions, no_mask = self.prompt_encoder(tuple(image.shape[-2:]))
        no_points = image.new_zeros(len(image), 0, image.shape[1])
        logits, _ = self.mask_decoder(image, positions, no_points, no_mask)
        return torch.cat([torch.zeros_like(logits), logits], 1)
