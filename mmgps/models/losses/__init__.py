"""Losses in the form that mmseg calls."""

from .overlap import ForegroundDiceLoss, ForegroundIoULoss, OverlapLoss

__all__ = ['ForegroundDiceLoss', 'ForegroundIoULoss', 'OverlapLoss']
