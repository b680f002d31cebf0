"""The authors' own SAM as the oracle."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from mmgps.utils.requirements import require

require('mmseg')  # declares operators that torchvision may lack; segment_anything imports it
pytest.importorskip('segment_anything', reason='the oracle of SAM; install the extra "test"')

from segment_anything.modeling import (  # noqa: E402
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

NARROW = dict(embed_dims=32, depth=4, num_heads=2, global_blocks=(1, 3))


def oracle(arch: dict[str, Any], img_size: int) -> Sam:
    """Build the authors' SAM at any size, with random weights in every tensor, in evaluation mode."""
    side = img_size // 16
    encoder = ImageEncoderViT(
        img_size=img_size,
        embed_dim=arch['embed_dims'],
        depth=arch['depth'],
        num_heads=arch['num_heads'],
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=arch['global_blocks'],
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    sam = Sam(
        encoder,
        PromptEncoder(256, (side, side), (img_size, img_size), 16),
        MaskDecoder(transformer_dim=256, transformer=transformer),
    )
    with torch.no_grad():
        for value in sam.parameters():  # position tables and norms start as zeros and ones
            value.add_(torch.randn_like(value) * (0.02 if value.dim() > 1 else 0.1))
    return sam.eval()


@torch.no_grad()
def oracle_logits(sam: Sam, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features and logits ``[B, 1, H / 4, W / 4]`` without prompts, image by image."""
    features = sam.image_encoder(images)
    sparse, dense = sam.prompt_encoder(None, None, None)
    positions = sam.prompt_encoder.get_dense_pe()
    masks = [
        sam.mask_decoder(feature[None], positions, sparse, dense, multimask_output=False)[0] for feature in features
    ]
    return features, torch.cat(masks)
