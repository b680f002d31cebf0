"""Decode images and masks, and refuse what is cut off."""

from __future__ import annotations

import cv2
import numpy as np

from mmgps.datasets.prepare.errors import UnreadableImageError

THRESHOLD = 127
"""Grey levels above it are foreground: JPEG leaves a band of grey around what was black and white."""


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode an image to ``(H, W, 3)`` uint8, BGR, turned as its EXIF data say.

    Raises:
        UnreadableImageError: If it cannot be decoded, or only in part.
    """
    return _decode(data, name, cv2.IMREAD_COLOR)


def decode_mask(data: bytes, name: str) -> np.ndarray:
    """Decode a mask and threshold it: ``(H, W)`` uint8 of 0 and 1.

    Raises:
        UnreadableImageError: If it cannot be decoded, or only in part.
    """
    return (_decode(data, name, cv2.IMREAD_GRAYSCALE) > THRESHOLD).astype(np.uint8)


def encode_png(image: np.ndarray) -> bytes:
    """Encode ``image`` without loss."""
    return cv2.imencode('.png', image)[1].tobytes()


def _decode(data: bytes, name: str, flag: int) -> np.ndarray:
    if _is_cut_off(data):
        raise UnreadableImageError(f'{name} ({len(data)} bytes) is cut off: fetch the set again')
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:  # raised for empty data, and for sizes beyond OpenCV's limit
        image = None
    if image is None:
        raise UnreadableImageError(f'{name} ({len(data)} bytes) cannot be decoded: fetch the set again')
    return image


def _is_cut_off(data: bytes) -> bool:
    # OpenCV fills what is missing of a JPEG or PNG with grey and only writes a warning.
    if data.startswith(b'\xff\xd8'):
        return data.rfind(b'\xff\xd9') < data.rfind(b'\xff\xda')
    return data.startswith(b'\x89PNG') and b'IEND' not in data[-1024:]
