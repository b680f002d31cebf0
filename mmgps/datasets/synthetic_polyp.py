"""The demo's data: drawn colonoscopy-like frames with polyps."""

from __future__ import annotations

from mmgps.datasets.procedural import ProceduralDataset
from mmgps.datasets.render.endoscope import render_polyp_frame
from mmgps.registry import DATASETS


@DATASETS.register_module()
class SyntheticPolypDataset(ProceduralDataset):
    """Drawn frames of a bowel with polyps, for trying the software where no real data is at hand.

    **Synthetic: no patient, no endoscope, no annotator.** A score on this set says that the code works and nothing
    about clinical performance; for that use :class:`mmgps.datasets.PolypDataset` with a real set.

    The frames vary in mucosa, vessels, folds, lumen, highlights, debris, focus, exposure and the endoscope's black
    surround; the polyps in form (sessile, pedunculated, flat), size, colour and surface. Some frames show two polyps,
    a few none. The mask is exact: it is drawn by the same inequality as the polyp.
    """

    METAINFO = {'classes': ('background', 'polyp'), 'palette': [[0, 0, 0], [0, 220, 120]]}
    render = staticmethod(render_polyp_frame)
