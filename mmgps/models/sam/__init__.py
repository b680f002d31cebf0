"""Segment Anything (Kirillov et al., ICCV 2023) without prompts, in the parts of an mmseg segmentor."""

from .image_encoder import SIZES, SAMImageEncoder, SAMSize
from .mask_head import SAMMaskHead
from .weights import (
    FILES,
    CheckpointKeysError,
    SAMPretrained,
    SAMWeights,
    WeightsUnavailableError,
    find_weights,
    load_published,
)

__all__ = [
    'FILES',
    'SIZES',
    'CheckpointKeysError',
    'SAMImageEncoder',
    'SAMMaskHead',
    'SAMPretrained',
    'SAMSize',
    'SAMWeights',
    'WeightsUnavailableError',
    'find_weights',
    'load_published',
]
