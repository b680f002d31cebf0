"""The linear maps and norms of a network, and the part that each plays.

The type of the owner decides, and for the parts of a transformer its structure: two linear layers that widen and narrow
again are an MLP, one that triples its input and one that keeps it are an attention. Names are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch import nn

from mmgps.selection import Role, describe
from mmgps.selection.roles import CONVOLUTIONS, type_names
from mmgps.sparse.attention import runs_natively
from mmgps.sparse.install import computes_natively


class Part(StrEnum):
    """The part that a site plays."""

    QKV = 'qkv'
    """Query, key and value projections of an attention, in one map."""
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


# Residual blocks of convolutions, and the attribute of their last norm.
LAST_NORMS = {
    'mmseg.models.backbones.resnet.BasicBlock': 'norm2',
    'mmseg.models.backbones.resnet.Bottleneck': 'norm3',
    'mmpretrain.models.backbones.resnet.BasicBlock': 'norm2',
    'mmpretrain.models.backbones.resnet.Bottleneck': 'norm3',
    'mmdet.models.backbones.resnet.BasicBlock': 'norm2',
    'mmdet.models.backbones.resnet.Bottleneck': 'norm3',
}

# Attention that reads the weight of its ``qkv`` and never calls it.
READS_WEIGHTS = {
    'mmseg.models.backbones.beit.BEiTAttention',
    'mmpretrain.models.utils.attention.BEiTAttention',
}


class InjectionError(ValueError):
    """A method cannot do what it was asked for on this network."""


@dataclass(frozen=True)
class Site:
    """One map ``x -> y`` of a network.

    Args:
        path: Of the owner, below the network.
        owner: The module that owns the weight, and gets what is injected.
        name: Of the weight, below the network.
        weight: ``[outputs, inputs, *kernel]``, of a norm ``[outputs]``.
        bias: ``[outputs]``.
        part: What it is.
        attention: Where a ``nn.MultiheadAttention`` computes the map itself, that module.
        reader: The type of the module that reads the weight without calling its owner.
    """

    path: str
    owner: nn.Module
    name: str
    weight: nn.Parameter
    bias: nn.Parameter | None
    part: Part
    attention: nn.MultiheadAttention | None = None
    reader: str | None = None

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    def parameter_name(self, key: str, attribute: str) -> str:
        """The name that ``attribute`` of a module injected as ``key`` has, below the network."""
        return '.'.join(filter(None, [self.path, key, attribute]))


def find_sites(backbone: nn.Module) -> list[Site]:
    """All sites of ``backbone``, in the order of its modules; a map that is shared comes once."""
    known = {id(entry.value): name for name, entry in describe(backbone).items()}
    roles = {id(entry.value): entry.role for entry in describe(backbone).values()}
    attentions = {
        id(module.out_proj): module
        for module in backbone.modules()
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None and attends(module)
    }
    parts = {**dict(_transformer_parts(backbone)), **dict(_last_norms(backbone))}
    readers = dict(_read(backbone))
    found: dict[int, Site] = {}
    for path, owner in backbone.named_modules():
        host, attribute = attentions.get(id(owner)), 'weight'
        part = Part.PROJ if host is not None else parts.get(id(owner)) or _part(owner)
        if isinstance(owner, nn.MultiheadAttention) and id(owner.out_proj) in attentions:
            host, attribute, part = owner, 'in_proj_weight', Part.QKV
        weight = getattr(owner, attribute, None)
        if not isinstance(weight, nn.Parameter) or (part is None and roles[id(weight)] is not Role.NORM):
            continue
        bias = getattr(owner, attribute.replace('weight', 'bias'), None)
        site = Site(path, owner, known[id(weight)], weight, bias, part or Part.NORM, host, readers.get(id(owner)))
        found.setdefault(id(weight), site)
    return list(found.values())


def attends(module: nn.MultiheadAttention) -> bool:
    """Whether ``module`` computes as torch wrote it, what is injected into it aside."""
    own = vars(module).get('forward')
    return runs_natively(module) or getattr(own, 'injected', False)


def pick_sites(backbone: nn.Module, parts: Sequence[Part], method: str) -> list[Site]:
    """The sites that play one of ``parts`` and that the user did not freeze.

    Raises:
        InjectionError: If there is none, or if one is read without being called.
    """
    sites = find_sites(backbone)
    picked = [site for site in sites if site.part in parts and site.weight.requires_grad]
    if not picked:
        here = ', '.join(sorted({site.part.value for site in sites if site.weight.requires_grad})) or 'nothing at all'
        raise InjectionError(
            f'{method} goes to {", ".join(part.value for part in parts)}, and {type(backbone).__name__} has no such '
            f'part that is not frozen; it has {here}'
        )
    for site in picked:
        check_called(site, method)
    return picked


def check_called(site: Site, method: str) -> None:
    """Refuse a site whose weight is read without its owner being called.

    Raises:
        InjectionError: Names the site.
    """
    if site.reader is not None:
        raise InjectionError(
            f'{method} cannot change the output of {site.path!r}: {site.reader} reads its weight and never calls it; '
            'choose other parts, or a method that trains the weights'
        )


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


def _part(owner: nn.Module) -> Part | None:
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
        if len(layers) != 2 or isinstance(module, nn.MultiheadAttention):
            continue
        (first, last), width = layers, layers[0].in_features
        if last.out_features != width:
            continue
        if first.out_features == 3 * width and last.in_features == width:
            yield from ((id(first), Part.QKV), (id(last), Part.PROJ))
        elif first.out_features in (
            last.in_features,
            2 * last.in_features,
        ):  # gated MLPs have a first layer twice as wide
            yield from ((id(first), Part.FC1), (id(last), Part.FC2))


def _last_norms(backbone: nn.Module) -> Iterator[tuple[int, Part]]:
    for module in backbone.modules():
        for name in type_names(module) & LAST_NORMS.keys():
            yield id(getattr(module, LAST_NORMS[name])), Part.BLOCK


def _read(backbone: nn.Module) -> Iterator[tuple[int, str]]:
    for module in backbone.modules():
        if type_names(module) & READS_WEIGHTS:
            layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
            yield id(layers[0]), type(module).__name__
