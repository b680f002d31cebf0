"""SAM's mask decoder as a decode head of mmseg."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from mmgps.registry import MODELS

from .mask_decoder import MaskDecoder
from .prompt_encoder import PromptEncoder

FIXED = dict(num_classes=2, out_channels=2, dropout_ratio=0, init_cfg=None)
"""Options of mmseg's head that SAM determines."""


@MODELS.register_module()
class SAMMaskHead(BaseDecodeHead):
    """SAM's mask decoder without prompts, for one kind of object.

    SAM gives one logit ``m``; this head gives ``(0, m)`` for background and object. The softmax of the two is the
    sigmoid of ``m``, their arg max is ``m > 0``, and their cross-entropy is the binary one, so the losses, metrics,
    sliding windows and test-time augmentation of mmseg work as for any head. With one channel they would not:
    ``SegTTAModel`` takes the sigmoid of what is a probability already, and calls every pixel foreground.

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
                    'tells one kind of object from background, and starts from the weights of the whole SAM (init_cfg '
                    'of the segmentor); for more classes or other weights take another decode head'
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
