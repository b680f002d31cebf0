"""SAM's mask decoder and its two-way transformer: from image features and embedded prompts to masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .image_encoder import LayerNorm2d, MLPBlock

DEPTH, HEADS, HIDDEN = 2, 8, 2048
"""Blocks of the two-way transformer, heads of its attentions, and width of its MLPs."""
MASKS = 4
"""One mask for an unambiguous prompt, and three for an ambiguous one."""


class Attention(nn.Module):
    """Attention between two sets of tokens at reduced width.

    Args:
        dims: Width of the tokens.
        divisor: Divisor of the width for queries, keys and values.
    """

    def __init__(self, dims: int, divisor: int = 1) -> None:
        super().__init__()
        self.num_heads = HEADS
        inner = dims // divisor
        self.q_proj = nn.Linear(dims, inner)
        self.k_proj = nn.Linear(dims, inner)
        self.v_proj = nn.Linear(dims, inner)
        self.out_proj = nn.Linear(inner, dims)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from ``q`` ``[B, N, dims]`` to ``k`` and ``v`` ``[B, M, dims]``."""
        heads = (self._split(self.q_proj(q)), self._split(self.k_proj(k)), self._split(self.v_proj(v)))
        return self.out_proj(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, pass through an MLP, and then the image attends to them.

    Args:
        dims: Width of the tokens and of the image.
        first: True for the first block, in which the tokens are their own positions and have no residual.
    """

    def __init__(self, dims: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dims)
        self.norm1 = nn.LayerNorm(dims)
        self.cross_attn_token_to_image = Attention(dims, 2)
        self.norm2 = nn.LayerNorm(dims)
        self.mlp = MLPBlock(dims, HIDDEN, nn.ReLU())
        self.norm3 = nn.LayerNorm(dims)
        self.norm4 = nn.LayerNorm(dims)
        self.cross_attn_image_to_token = Attention(dims, 2)

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``tokens`` ``[B, N, dims]`` and ``image`` ``[B, H * W, dims]`` to the same shapes."""
        if self.first:
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            placed = tokens + token_pe
            tokens = self.norm1(tokens + self.self_attn(placed, placed, tokens))
        looked = self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        tokens = self.norm2(tokens + looked)
        tokens = self.norm3(tokens + self.mlp(tokens))
        looked = self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens)
        return tokens, self.norm4(image + looked)


class TwoWayTransformer(nn.Module):
    """A few blocks and a last attention from the tokens to the image; ``dims`` is the width of both."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dims, at == 0) for at in range(DEPTH))
        self.final_attn_token_to_image = Attention(dims, 2)
        self.norm_final_attn = nn.LayerNorm(dims)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run the blocks.

        Args:
            image: ``[B, dims, H, W]``.
            image_pe: ``[1, dims, H, W]``.
            tokens: ``[B, N, dims]``, also used as their positions.

        Returns:
            Tokens ``[B, N, dims]`` and image ``[B, H * W, dims]``.
        """
        image, image_pe, token_pe = image.flatten(2).mT, image_pe.flatten(2).mT, tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        looked = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + looked), image


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
    """Predict masks and their quality from image features of ``dims`` channels and embedded prompts."""

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
            sparse: ``[B, N, dims]``, embedded points and boxes; N may be 0.
            dense: ``[1 or B, dims, 1 or H, 1 or W]``, the embedded mask or the embedding of no mask.
            masks: Masks to predict of the four; the first is for one object, the others are for ambiguous prompts.

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
