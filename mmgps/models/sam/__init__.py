"""Segment Anything (Kirillov et al., ICCV 2023) without prompts, in the parts of an mmseg segmentor."""

from .image_encoder import SAMImageEncoder
from .mask_head import SAMMaskHead
from .sizes import FILES, SIZES, SAMSize
from .weights import (
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
