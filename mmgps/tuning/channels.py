"""Where the channels of an output are."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmgps.architectures import LINE_NORMS, MAP_NORMS
from mmgps.selection.roles import CONVOLUTIONS, type_names
from mmgps.selection.usage import statistic_dims

from .sites import InjectionError, Site

LAYOUTS = {'channel_first': 1, 'channels_first': 1, 'channel_last': -1, 'channels_last': -1}
"""What norms call a layout, and the dimension of the channels in it."""

CHANNELS_FIRST = (*CONVOLUTIONS, _NormBase, nn.GroupNorm)
LAYER_NORMS = (nn.LayerNorm, *([nn.RMSNorm] if hasattr(nn, 'RMSNorm') else []))


def channel_dim(site: Site) -> int:
    """The dimension of the output of a layer or norm that holds its channels, 1 or -1.

    A norm's ``data_format`` says it, else its type: other descendants of ``nn.LayerNorm`` have them last, as it has.
    So has a norm whose code takes its statistics over the last dimension and over no other.

    Raises:
        InjectionError: For a norm that neither is said of.
    """
    owner = site.owner
    said = getattr(owner, 'data_format', None)
    if said in LAYOUTS:
        return LAYOUTS[said]
    if isinstance(owner, CHANNELS_FIRST) or type_names(owner) & MAP_NORMS:
        return 1
    if isinstance(owner, nn.Linear) or (isinstance(owner, LAYER_NORMS) and site.weight.dim() == 1):
        return -1
    if site.weight.dim() == 1 and (type_names(owner) & LINE_NORMS or statistic_dims(owner) == {-1}):
        return -1
    raise InjectionError(
        f'it is not known which dimension of {site.path!r} ({type(owner).__name__}) holds its channels; set its '
        "data_format to 'channels_first' or 'channels_last', or choose a method that puts nothing behind norms"
    )
