"""Overlays of truth and prediction, drawn from mmseg's samples without importing mmseg."""

from mmgps.utils.requirements import require

require('mmengine')
require('mmcv')

from .contact_sheet import contact_sheet, write_png  # noqa: E402
from .overlay import draw_overlay  # noqa: E402
from .overlay_hook import OverlayHook  # noqa: E402

__all__ = ['OverlayHook', 'contact_sheet', 'draw_overlay', 'write_png']
