"""Sites: the linear maps and norms of a network, the part that each plays, and its channel dimension.

The type of the owner decides, and for the parts of a transformer its structure: two linear layers that widen and narrow
again form an MLP. One layer that triples its input and one that keeps its width form an attention; so do two or three
that together triple it, in a module with heads. The names of layers are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from inspect import unwrap

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmgps.architectures import LAST_NORMS, LINE_NORMS, MAP_NORMS
from mmgps.rewiring import CONVOLUTIONS, HEADS, computes_natively, type_names
from mmgps.selection import Role, describe
from mmgps.selection.usage import reads_weights, statistic_dims
from mmgps.sparse.attention import runs_natively


class LayerPart(StrEnum):
    """The part that a layer plays in a network."""

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
    """A convolution that is grouped or depthwise, or pads with numbers other than zero."""
    NORM = 'norm'
    BLOCK = 'block'
    """The last norm of a residual block of convolutions."""


# Attributes in which attention modules keep the size of a head.
HEAD_SIZES = ('head_dim', 'head_size', 'attention_head_size')


class InjectionError(ValueError):
    """A network does not support what a method was asked to do."""


def as_parts(
    given: str | Iterable[str] | None, method: str, supported: Sequence[LayerPart]
) -> tuple[LayerPart, ...] | None:
    """Parts by name; None, which stands for the default of ``method``, stays None.

    Raises:
        ValueError: If a name is unknown; lists the allowed names.
        InjectionError: If ``method`` does not support one of the parts.
    """
    if given is None:
        return None
    names = [given] if isinstance(given, str) else list(given)
    allowed = [part.value for part in LayerPart]
    if not names or any(name not in allowed for name in names):
        raise ValueError(f'parts names one or more of {", ".join(allowed)}; got {names}')
    wrong = [str(name) for name in names if name not in supported]
    if wrong:
        raise InjectionError(f'{method} does not support {wrong}; it supports {", ".join(supported)}')
    return tuple(LayerPart(name) for name in names)


def structural_parts(backbone: nn.Module) -> dict[int, LayerPart]:
    """Parts of the layers and norms, by id, that follow from the structure of ``backbone``."""
    return {**dict(_transformer_parts(backbone)), **dict(_last_norms(backbone))}


def own_part(owner: nn.Module) -> LayerPart | None:
    """The part of a layer by its type alone; None if it is no plain linear layer or convolution."""
    if not computes_natively(owner):
        return None
    if isinstance(owner, nn.Linear):
        return LayerPart.LINEAR
    if isinstance(owner, CONVOLUTIONS):
        plain = owner.groups == 1 and owner.padding_mode == 'zeros'
        return LayerPart.CONV if plain else LayerPart.GROUPED
    return None


def _transformer_parts(backbone: nn.Module) -> Iterator[tuple[int, LayerPart]]:
    """Id of a linear layer to its part in an attention or MLP."""
    for module in backbone.modules():
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        if isinstance(module, nn.MultiheadAttention):
            continue
        own = [layer for layer in module.children() if isinstance(layer, nn.Linear)]
        attention = _attention_layers(module, own) or _attention_layers(module, layers)
        if attention:
            yield from ((id(layer), LayerPart.PROJ if layer is attention[-1] else LayerPart.QKV) for layer in attention)
        elif len(layers) == 2 and layers[1].out_features == layers[0].in_features:
            (first, last), width = layers, layers[0].in_features
            if first.out_features == 3 * width and last.in_features == width:
                yield from ((id(first), LayerPart.QKV), (id(last), LayerPart.PROJ))
            # a gated MLP has a first layer twice as wide
            elif first.out_features in (last.in_features, 2 * last.in_features):
                yield from ((id(first), LayerPart.FC1), (id(last), LayerPart.FC2))


def _attention_layers(module: nn.Module, layers: list[nn.Linear]) -> list[nn.Linear]:
    """The projections of an attention with separate query, key and value maps, the output last; else none.

    The inputs are three maps, two of them alike; two maps, one twice as wide as the other; or one map three times as
    wide as the output map, or twice if the query comes from elsewhere. Maps to one number per head, as in CaiT and
    ConViT, are ignored.
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


def _last_norms(backbone: nn.Module) -> Iterator[tuple[int, LayerPart]]:
    for module in backbone.modules():
        for name in type_names(module) & LAST_NORMS.keys():
            yield id(getattr(module, LAST_NORMS[name])), LayerPart.BLOCK


@dataclass(frozen=True)
class Site:
    """One map ``x -> y`` of a network.

    Args:
        path: Path of the owner in the network.
        owner: The module that owns the weight, and receives injected modules.
        name: Name of the weight in the network.
        weight: ``[outputs, inputs, *kernel]``; ``[outputs]`` for a norm.
        bias: ``[outputs]``.
        part: The part that the map plays.
        attention: The ``nn.MultiheadAttention`` that computes the map itself, if there is one.
        reader: The type of the module that reads the weight without calling its owner, if there is one.
    """

    path: str
    owner: nn.Module
    name: str
    weight: nn.Parameter
    bias: nn.Parameter | None
    part: LayerPart
    attention: nn.MultiheadAttention | None = None
    reader: str | None = None

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    def parameter_name(self, key: str, attribute: str) -> str:
        """The name, in the network, of ``attribute`` of a module injected as ``key``."""
        return '.'.join(filter(None, [self.path, key, attribute]))


def find_sites(backbone: nn.Module) -> list[Site]:
    """All sites of ``backbone``, in the order of its modules; a shared map appears once."""
    known = {id(entry.value): entry for entry in describe(backbone).values()}
    attentions = {
        id(module.out_proj): module
        for module in backbone.modules()
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None and attends(module)
    }
    parts = structural_parts(backbone)
    readers = dict(_read(backbone))
    found: dict[int, Site] = {}
    for path, owner in backbone.named_modules():
        host, attribute = attentions.get(id(owner)), 'weight'
        part = LayerPart.PROJ if host is not None else parts.get(id(owner)) or own_part(owner)
        if isinstance(owner, nn.MultiheadAttention) and id(owner.out_proj) in attentions:
            host, attribute, part = owner, 'in_proj_weight', LayerPart.QKV
        weight = getattr(owner, attribute, None)
        if not isinstance(weight, nn.Parameter) or (part is None and known[id(weight)].role is not Role.NORM):
            continue
        bias = getattr(owner, attribute.replace('weight', 'bias'), None)
        site = Site(
            path, owner, known[id(weight)].name, weight, bias, part or LayerPart.NORM, host, readers.get(id(owner))
        )
        found.setdefault(id(weight), site)
    return list(found.values())


def attends(module: nn.MultiheadAttention) -> bool:
    """Return True if ``module`` computes by torch's own code, apart from injected modules."""
    own = vars(module).get('forward')
    return runs_natively(module) or getattr(own, 'injected', False)


def pick_sites(backbone: nn.Module, parts: Sequence[LayerPart], method: str) -> list[Site]:
    """The sites with one of ``parts`` that the user did not freeze.

    Raises:
        InjectionError: If there is none, or if the weight of one is read without calling its owner.
    """
    sites = find_sites(backbone)
    picked = [site for site in sites if site.part in parts and site.weight.requires_grad]
    if not picked:
        here = ', '.join(sorted({site.part.value for site in sites if site.weight.requires_grad})) or 'nothing at all'
        raise InjectionError(
            f'{method} goes to {", ".join(parts)}, and {type(backbone).__name__} has no such part that is not frozen; '
            f'it has {here}'
        )
    for site in picked:
        check_called(site, method)
    return picked


def check_called(site: Site, method: str) -> None:
    """Make sure that no module reads the weight of ``site`` without calling its owner.

    Raises:
        InjectionError: If one does.
    """
    if site.reader is not None:
        raise InjectionError(
            f'{method} cannot change the output of {site.path!r}: {site.reader} reads its weight and never calls it; '
            'choose other parts, or a method that trains the weights'
        )


def _read(backbone: nn.Module) -> Iterator[tuple[int, str]]:
    """Id of each layer whose weight a module reads instead of calling the layer, and the type of that module.

    A module with code for both reads the weight if it composes a bias from its own vectors, as BEiT does.
    """
    for module in backbone.modules():
        composes = any(value.dim() == 1 for value in module.parameters(recurse=False))
        for child, called in reads_weights(module).items():
            layer = getattr(module, child, None)
            if isinstance(layer, nn.Linear) and (composes or not called):
                yield id(layer), type(module).__name__


LAYOUTS = {'channel_first': 1, 'channels_first': 1, 'channel_last': -1, 'channels_last': -1}
"""Names of layouts in norms, and the channel dimension of each."""

CHANNELS_FIRST = (*CONVOLUTIONS, _NormBase, nn.GroupNorm)
MOVING = {'permute', 'transpose', 'movedim', 'moveaxis', 'swapaxes', 'swapdims', 'rearrange'}
LAYER_NORMS = (nn.LayerNorm, *([nn.RMSNorm] if hasattr(nn, 'RMSNorm') else []))


def channel_dim(site: Site) -> int:
    """The channel dimension of the output of a layer or norm, 1 or -1.

    The ``data_format`` of a norm decides, else its type: descendants of ``nn.LayerNorm`` have channels last, unless
    their forward reorders dimensions. So do norms whose code takes statistics over the last dimension alone.

    Raises:
        InjectionError: For a norm whose channel dimension is unknown.
    """
    owner = site.owner
    said = getattr(owner, 'data_format', None)
    if said in LAYOUTS:
        return LAYOUTS[said]
    if isinstance(owner, CHANNELS_FIRST) or type_names(owner) & MAP_NORMS:
        return 1
    if isinstance(owner, nn.Linear):
        return -1
    if isinstance(owner, LAYER_NORMS) and site.weight.dim() == 1 and not _moves_dimensions(owner):
        return -1
    if site.weight.dim() == 1 and (type_names(owner) & LINE_NORMS or statistic_dims(owner) == {-1}):
        return -1
    raise InjectionError(
        f'the channel dimension of {site.path!r} ({type(owner).__name__}) is unknown; set its data_format to '
        "'channels_first' or 'channels_last', or choose a method that puts nothing behind norms"
    )


def _moves_dimensions(owner: nn.Module) -> bool:
    """True if the forward of ``owner`` reorders the dimensions of its input."""
    code = getattr(unwrap(type(owner).forward), '__code__', None)
    return code is not None and bool(MOVING & {*code.co_names})
