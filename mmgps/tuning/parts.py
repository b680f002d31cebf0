"""The part that a layer plays in a network.

The type of the owner decides, and for the parts of a transformer its structure: two linear layers that widen and narrow
again are an MLP, one that triples its input and one that keeps it are an attention; so are three or two that give what
one does, in a module that has heads. The names of layers are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

from torch import nn

from mmgps.architectures import LAST_NORMS
from mmgps.selection.roles import CONVOLUTIONS, HEADS, type_names
from mmgps.sparse.install import computes_natively


class Part(StrEnum):
    """The part that a site plays."""

    QKV = 'qkv'
    """Query, key and value projections of an attention, in one map or in several."""
    PROJ = 'proj'
    """The output projection of an attention."""
    FC1 = 'fc1'
    FC2 = 'fc2'
    """First and last linear layer of an MLP."""
    LINEAR = 'linear'
    """Any other linear layer."""
    CONV = 'conv'
    GROUPED = 'grouped'
    """A convolution that is grouped, depthwise included, or pads by other numbers than zeros."""
    NORM = 'norm'
    BLOCK = 'block'
    """The last norm of a residual block of convolutions."""


# What attention modules call the size of a head.
HEAD_SIZES = ('head_dim', 'head_size', 'attention_head_size')


def as_parts(given: str | Iterable[str]) -> tuple[Part, ...]:
    """Parts by their names.

    Raises:
        ValueError: Names the allowed ones.
    """
    names = [given] if isinstance(given, str) else list(given)
    allowed = [part.value for part in Part]
    wrong = [name for name in names if name not in allowed]
    if wrong or not names:
        raise ValueError(f'parts names one or more of {", ".join(allowed)}; got {names}')
    return tuple(Part(name) for name in names)


def structural_parts(backbone: nn.Module) -> dict[int, Part]:
    """Id of each layer and norm that plays a part by its place in ``backbone`` to that part."""
    return {**dict(_transformer_parts(backbone)), **dict(_last_norms(backbone))}


def own_part(owner: nn.Module) -> Part | None:
    """The part that a layer plays wherever it stands, None for what is no plain linear layer or convolution."""
    if not computes_natively(owner):
        return None
    if isinstance(owner, nn.Linear):
        return Part.LINEAR
    if isinstance(owner, CONVOLUTIONS):
        plain = owner.groups == 1 and owner.padding_mode == 'zeros'
        return Part.CONV if plain else Part.GROUPED
    return None


def _transformer_parts(backbone: nn.Module) -> Iterator[tuple[int, Part]]:
    """Id of a linear layer to its part in an attention or MLP."""
    for module in backbone.modules():
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        if isinstance(module, nn.MultiheadAttention):
            continue
        own = [layer for layer in module.children() if isinstance(layer, nn.Linear)]
        attention = _attention_layers(module, own) or _attention_layers(module, layers)
        if attention:
            yield from ((id(layer), Part.PROJ if layer is attention[-1] else Part.QKV) for layer in attention)
        elif len(layers) == 2 and layers[1].out_features == layers[0].in_features:
            (first, last), width = layers, layers[0].in_features
            if first.out_features == 3 * width and last.in_features == width:
                yield from ((id(first), Part.QKV), (id(last), Part.PROJ))
            # a gated MLP has a first layer twice as wide
            elif first.out_features in (last.in_features, 2 * last.in_features):
                yield from ((id(first), Part.FC1), (id(last), Part.FC2))


def _attention_layers(module: nn.Module, layers: list[nn.Linear]) -> list[nn.Linear]:
    """The projections of an attention whose query, key and value are several maps, the one out last; else none.

    They are three maps of which two are alike, two of which one is twice as wide, or one that gives three times what
    the last takes, or twice where the query comes from elsewhere. What gives a number for each head beside them, as in
    CaiT and ConViT, is passed over.
    """
    if not 2 <= len(layers) <= 6:
        return []
    owner = next(part for part in module.modules() if layers[0] in part.children())
    heads = [count for name in HEADS if isinstance(count := getattr(owner, name, None), int)]
    width = layers[0].in_features
    layers = [layer for layer in layers if layer.out_features not in heads or layer.in_features == width not in heads]
    if len(layers) < 2 or not (heads or any(hasattr(owner, name) for name in HEAD_SIZES)):
        return []
    *into, out = layers
    if out.out_features not in (into[0].in_features, out.in_features):
        return []
    widths = sorted(layer.out_features for layer in into)
    shared = len({layer.in_features for layer in into}) == 1
    alike = len(into) == 3 and into[1].in_features == into[2].in_features and len(set(widths)) < 3
    paired = len(into) == 2 and shared and widths[1] == 2 * widths[0]
    packed = len(into) == 1 and widths[0] in (2 * out.in_features, 3 * out.in_features)
    return layers if alike or paired or packed else []


def _last_norms(backbone: nn.Module) -> Iterator[tuple[int, Part]]:
    for module in backbone.modules():
        for name in type_names(module) & LAST_NORMS.keys():
            yield id(getattr(module, LAST_NORMS[name])), Part.BLOCK
