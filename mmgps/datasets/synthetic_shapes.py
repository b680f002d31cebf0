"""The pre-training domain of the demo: piles of solids, nothing like an endoscope's view."""

from __future__ import annotations

from mmgps.datasets.procedural import ProceduralDataset
from mmgps.datasets.render.solids import SHAPES, render_shapes
from mmgps.registry import DATASETS


@DATASETS.register_module()
class SyntheticShapesDataset(ProceduralDataset):
    """Textured solids, mounds, dents and flat stars in front of textured ground; synthetic.

    Colour, texture and light are drawn apart from the class, so that form and shading have to be learnt. The demo's
    base weights come from this set (``configs/demo/README.md``).
    """

    METAINFO = {
        'classes': ('background', *SHAPES),
        'palette': [
            [0, 0, 0],
            [230, 60, 60],
            [60, 180, 75],
            [0, 130, 200],
            [245, 200, 50],
            [145, 30, 180],
            [70, 240, 240],
            [240, 240, 240],
        ],
    }
    render = staticmethod(render_shapes)
