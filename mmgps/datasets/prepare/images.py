"""Decode images and masks, and refuse what cannot be decoded whole."""

from __future__ import annotations

import cv2
import numpy as np

from mmgps.datasets.prepare.errors import UnreadableImageError

THRESHOLD = 127
"""Grey levels above it are foreground: JPEG leaves a band of grey around what was black and white."""


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode an image to ``(H, W, 3)`` uint8, BGR, turned as its EXIF data say.

    Raises:
        UnreadableImageError: If it is cut off or no image.
    """
    return _decode(data, name, cv2.IMREAD_COLOR)


def decode_mask(data: bytes, name: str) -> np.ndarray:
    """Decode a mask and threshold it: ``(H, W)`` uint8 of 0 and 1.

    Raises:
        UnreadableImageError: If it is cut off or no image.
    """
    return (_decode(data, name, cv2.IMREAD_GRAYSCALE) > THRESHOLD).astype(np.uint8)


def encode_png(image: np.ndarray) -> bytes:
    """Encode ``image`` without loss."""
    return cv2.imencode('.png', image)[1].tobytes()


def _decode(data: bytes, name: str, flag: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:  # raised for empty data, and for sizes beyond OpenCV's limit
        image = None
    if image is None:
        raise UnreadableImageError(f'{name} ({len(data)} bytes) is cut off or no image: fetch the set again')
    return image
