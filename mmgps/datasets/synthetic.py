"""Synthetic data sets whose frames are drawn on request, and the transform that draws them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from numpy.typing import NDArray

from mmgps.registry import DATASETS, TRANSFORMS

from .render.endoscope import render_polyp_frame
from .render.solids import SHAPES, render_shapes

Frame = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class ProceduralDataset(BaseSegDataset):
    """A segmentation set without files: frame ``i`` is a pure function of ``(seed, i, size)``.

    It uses no global random state, so neither the number of workers nor the order of loading changes a frame. A
    subclass defines ``METAINFO`` and :attr:`render`.

    Args:
        length: Number of frames.
        size: Side of the square frames in pixels.
        seed: Seed of the frames; different seeds share no frame.
        **kwargs: As for :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        ValueError: If ``length`` or ``size`` is below its minimum (1 and 32), or ``seed`` is negative.
    """

    #: ``(seed, index, size) -> (image (H, W, 3) BGR, labels (H, W))``, importable, so that workers can be spawned.
    render: Callable[[int, int, int], Frame]

    def __init__(self, length: int, size: int = 144, seed: int = 0, **kwargs: Any) -> None:
        if length < 1 or size < 32 or seed < 0:
            raise ValueError(
                f'a procedural set needs length >= 1, size >= 32 and seed >= 0, found {length=}, {size=}, {seed=}'
            )
        self.length, self.size, self.seed = length, size, seed
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """List the frames under made-up paths, without drawing them."""
        return [
            {
                'img_path': f'synthetic/{index:05d}.png',
                'render': partial(type(self).render, self.seed, index, self.size),
                'label_map': self.label_map,
                'reduce_zero_label': self.reduce_zero_label,
                'seg_fields': [],
            }
            for index in range(self.length)
        ]


@TRANSFORMS.register_module()
class RenderFrame(BaseTransform):
    """Draw a frame of a :class:`ProceduralDataset`, in place of the transforms that load files.

    Required keys: ``render``, ``seg_fields``, ``label_map``. Added keys: ``img`` (uint8 ``(H, W, 3)``, BGR),
    ``img_shape``, ``ori_shape``, ``gt_seg_map`` (uint8 ``(H, W)``), as from ``LoadImageFromFile`` and
    ``LoadAnnotations``.

    Raises:
        KeyError: If the sample does not come from a procedural set.
    """

    def transform(self, results: dict) -> dict:
        """Draw the frame and put it into ``results``."""
        if 'render' not in results:
            raise KeyError(
                f"mmgps.RenderFrame found no 'render' among {sorted(results)}: it draws the frames of procedural sets; "
                'for sets with files use LoadImageFromFile and LoadAnnotations'
            )
        image, labels = results['render']()
        if results['label_map'] is not None:
            table = np.arange(256, dtype=np.uint8)
            table[list(results['label_map'])] = list(results['label_map'].values())
            labels = table[labels]
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2], gt_seg_map=labels)
        results['seg_fields'].append('gt_seg_map')
        return results


@DATASETS.register_module()
class SyntheticPolypDataset(ProceduralDataset):
    """Drawn frames of a bowel with polyps, to try the software without real data.

    **Synthetic: no patient, no endoscope, no annotator.** A score on this set shows that the code works and says
    nothing about clinical performance; for that use :class:`mmgps.datasets.PolypDataset` with a real set.

    The frames vary in mucosa, vessels, folds, lumen, highlights, debris, focus, exposure and the endoscope's black
    surround; the polyps vary in form (sessile, pedunculated, flat), size, colour and surface. Some frames show two
    polyps, a few none. The mask is exact, because the same inequality draws it and the polyp.
    """

    METAINFO = {'classes': ('background', 'polyp'), 'palette': [[0, 0, 0], [0, 220, 120]]}
    render = staticmethod(render_polyp_frame)


@DATASETS.register_module()
class SyntheticShapesDataset(ProceduralDataset):
    """Textured solids, mounds, dents and flat stars in front of textured ground; synthetic.

    Colour, texture and light are independent of the class, so a network has to learn form and shading. The demo's base
    weights come from this set (``configs/demo/README.md``).
    """

    METAINFO = {
        'classes': ('background', *SHAPES),
        'palette': [[0, 0, 0], [230, 60, 60], [60, 180, 75], [0, 130, 200],
                    [245, 200, 50], [145, 30, 180], [70, 240, 240], [240, 240, 240]],
    }  # fmt: skip
    render = staticmethod(render_shapes)
