"""The fingerprint of the base that a delta belongs to, and the tensors of a network by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmgps.rewiring import Injected
from mmgps.selection import Selection, bits
from mmgps.sparse import WeightIndex
from mmgps.utils.text import listed

DIGEST_LENGTH = 16


class DeltaMismatchError(ValueError):
    """A delta belongs to another base, or to another architecture."""


@dataclass(frozen=True)
class BaseFingerprint:
    """Digests of all tensors of a backbone before training.

    Args:
        digests: Name of each parameter and buffer of the base to its :func:`digest`; without injected modules.
        rests: Name of each weight with chosen connections to a digest of its other numbers, which training must not
            change.
    """

    digests: Mapping[str, str]
    rests: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, backbone: nn.Module, selection: Selection | None = None) -> BaseFingerprint:
        """Read ``backbone``, whose numbers are those of the base.

        Args:
            backbone: With or without injected modules.
            selection: The selection that will be trained, to check later that nothing else changed.

        Raises:
            SelectionMismatchError: If the selection was made for another architecture.
        """
        injected = injected_names(backbone)
        digests = {name: digest(value) for name, value in tensors_of(backbone).items() if name not in injected}
        return cls(digests, rests_of(backbone, selection) if selection else {})

    def check(self, other: BaseFingerprint, what: str) -> None:
        """Make sure that ``other`` has the same numbers.

        Args:
            other: The fingerprint of the present base.
            what: Description of the present base, for the message.

        Raises:
            DeltaMismatchError: Names tensors that differ.
        """
        mine, found = self.digests, other.digests
        lost, new = [n for n in mine if n not in found], [n for n in found if n not in mine]
        if lost or new:
            raise DeltaMismatchError(
                f'the delta belongs to another architecture: {what} lacks {listed(lost)} and also has {listed(new)}'
            )
        shaped = [f'{n}: {kind(mine[n])}, found {kind(found[n])}' for n in mine if kind(mine[n]) != kind(found[n])]
        if shaped:
            raise DeltaMismatchError(f'the delta belongs to another architecture: {what} differs in {listed(shaped)}')
        wrong = [name for name in mine if mine[name] != found[name]]
        if wrong:
            raise DeltaMismatchError(
                f'the delta belongs to other weights of this architecture: {len(wrong)} of {len(mine)} tensors of '
                f'{what} differ, first {listed(wrong)}; load the base that the delta was made from, and remove any '
                'other delta before'
            )


def rests_of(backbone: nn.Module, selection: Selection) -> dict[str, str]:
    """Digest of each weight with connections in ``selection``, which count as zero."""
    found = {}
    for parameter, connections in selection.resolve(backbone):
        rest = parameter.value.detach().clone()
        places = WeightIndex(rest, parameter.neurons, connections)
        places.put(torch.zeros_like(places.take()))
        found[parameter.name] = digest(rest)
    return found


def digest(value: Tensor) -> str:
    """Type and shape of ``value``, and the start of the SHA-256 of its bits: ``float32[4,8] 0123456789abcdef``."""
    shape = ','.join(map(str, value.shape))
    found = hashlib.sha256(bits(value).numpy().data).hexdigest()[:DIGEST_LENGTH]
    return f'{str(value.dtype).removeprefix("torch.")}[{shape}] {found}'


def kind(digested: str) -> str:
    """Type and shape in a result of :func:`digest`."""
    return digested.partition(' ')[0]


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of the state dict of ``module``, not copied; a tied one appears once, under its first name."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def injected_names(module: nn.Module) -> set[str]:
    """Names, in the state dict of ``module``, of the tensors of injected modules."""
    parts = [(path, part) for path, part in module.named_modules() if isinstance(part, Injected)]
    return {below(path, name) for path, part in parts for name in part.state_dict(keep_vars=True)}


def below(path: str, name: str) -> str:
    """``name`` in the module at ``path``, as a name in the whole network."""
    return f'{path}.{name}' if path else name
