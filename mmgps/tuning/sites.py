"""The linear maps and norms of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from mmgps.selection import Role, describe
from mmgps.selection.usage import reads_weights
from mmgps.sparse.attention import runs_natively

from .parts import Part, own_part, structural_parts


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
    parts = structural_parts(backbone)
    readers = dict(_read(backbone))
    found: dict[int, Site] = {}
    for path, owner in backbone.named_modules():
        host, attribute = attentions.get(id(owner)), 'weight'
        part = Part.PROJ if host is not None else parts.get(id(owner)) or own_part(owner)
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


def _read(backbone: nn.Module) -> Iterator[tuple[int, str]]:
    """Id of each layer whose weight the module around it reads instead of calling it, to the type of that module.

    A module that has code for both reads the weight where it composes a bias of vectors of its own, as BEiT does.
    """
    for module in backbone.modules():
        composes = any(value.dim() == 1 for value in module.parameters(recurse=False))
        for child, called in reads_weights(module).items():
            layer = getattr(module, child, None)
            if isinstance(layer, nn.Linear) and (composes or not called):
                yield id(layer), type(module).__name__
