"""What the pictures share. Matplotlib is loaded when something is drawn, not before."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

# Colours that stay apart for the colour-blind: those of Okabe and Ito, a dark purple and a grey.
COLOURS = {
    'qkv': '#0072b2',
    'proj': '#56b4e9',
    'fc1': '#d55e00',
    'fc2': '#e69f00',
    'linear': '#5d3a9b',
    'conv': '#009e73',
    'grouped': '#cc79a7',
    'other': '#777777',
}
LABELS = {
    'qkv': 'attention: query, key, value',
    'proj': 'attention: output',
    'fc1': 'MLP: first layer',
    'fc2': 'MLP: last layer',
    'linear': 'other linear layers',
    'conv': 'convolutions',
    'grouped': 'grouped convolutions',
    'other': 'other layers',
}
DPI = 110


def new_figure(width: float, height: float) -> Any:
    """A figure that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained', dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def as_png(figure: Any) -> bytes:
    """The figure as a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=DPI)
    return content.getvalue()


def as_pixels(figure: Any) -> npt.NDArray[np.uint8]:
    """The figure as ``[H, W, 3]`` RGB."""
    figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
