"""SAM's mask decoder: from image features and embedded prompts to masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .image_encoder import LayerNorm2d
from .two_way import TwoWayTransformer

MASKS = 4
"""One mask for an unambiguous prompt, and three for an ambiguous one."""


class MLP(nn.Module):
    """Three linear layers on ``[..., inputs]`` with ReLU in between."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        sizes = ((inputs, hidden), (hidden, hidden), (hidden, outputs))
        self.layers = nn.ModuleList(nn.Linear(*size) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        *inner, last = self.layers
        for layer in inner:
            x = F.relu(layer(x))
        return last(x)


class MaskDecoder(nn.Module):
    """Predict masks and their quality from the image's feature and the embedded prompts.

    Args:
        dims: Channels of the feature.
    """

    def __init__(self, dims: int = 256) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dims)
        self.iou_token = nn.Embedding(1, dims)
        self.mask_tokens = nn.Embedding(MASKS, dims)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dims, dims // 4, 2, 2),
            LayerNorm2d(dims // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dims // 4, dims // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dims, dims, dims // 8) for _ in range(MASKS))
        self.iou_prediction_head = MLP(dims, dims, MASKS)

    def forward(
        self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor, masks: slice = slice(0, 1)
    ) -> tuple[Tensor, Tensor]:
        """Predict masks.

        Args:
            image: ``[B, dims, H, W]``.
            image_pe: ``[1, dims, H, W]``, the positions of the image.
            sparse: ``[B, N, dims]``, embedded points and boxes; N is 0 without any.
            dense: ``[1 or B, dims, 1 or H, 1 or W]``, the embedded mask or the embedding of no mask.
            masks: Masks to make of the four; the first is for one object, the others are for ambiguous prompts.

        Returns:
            Logits ``[B, masks, 4 * H, 4 * W]`` and estimated IoU ``[B, masks]``.
        """
        batch, _, height, width = image.shape
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(batch, -1, -1), sparse], 1)
        tokens, image = self.transformer(image + dense, image_pe, tokens)
        upscaled = self.output_upscaling(image.mT.unflatten(2, (height, width)))
        chosen = range(MASKS)[masks]
        weights = torch.stack([self.output_hypernetworks_mlps[at](tokens[:, 1 + at]) for at in chosen], 1)
        logits = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
        return logits, self.iou_prediction_head(tokens[:, 0])[:, masks]
