"""Check that a backbone was loaded from files, not left at random numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mmgps.rewiring import base_parameters, no_hook
from mmgps.utils.text import listed, nearest

ENOUGH = 0.9
"""Minimum share of the backbone's numbers that must come from loaded files."""


class RandomBaseError(ValueError):
    """A loaded file did not fit the backbone, which would start from random numbers."""


class LoadingWatch:
    """Watches ``load_state_dict`` of a backbone, from construction to :meth:`close`.

    A tensor counts if it arrives at its module in the right shape, even if the backbone renames or resizes it first.

    Args:
        backbone: The network that will be tuned.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._sizes: dict[int, tuple[str, int]] = {id(v): (n, v.numel()) for n, v in base_parameters(backbone)}
        self._kind = type(backbone).__name__
        self._loaded: set[int] = set()
        self._loads: list[_Load] = []
        self._handles = [
            module._register_load_state_dict_pre_hook(_Arrival(self, module, module is backbone))  # type: ignore[no-untyped-call]
            for module in backbone.modules()
        ]

    @property
    def loads(self) -> int:
        """Number of files or other state dicts that were loaded into the backbone."""
        return len(self._loads)

    def share(self, loaded: Collection[int] | None = None) -> float:
        """Share of the backbone's numbers that were loaded, or that lie in the parameters ``loaded``."""
        total = sum(size for _, size in self._sizes.values())
        taken = self._loaded if loaded is None else loaded
        return sum(self._sizes[at][1] for at in taken) / total if total else 1.0

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def check(self, origin: str, instead: str) -> None:
        """Make sure that each loaded file filled most of the backbone.

        A file without tensors for the backbone, such as that of a head, is allowed if another file filled it.

        Args:
            origin: Origin of the files, for the error message.
            instead: Advice for users who intend a random backbone.

        Raises:
            RandomBaseError: States the loaded share and names tensors of both sides.
        """
        filled = self.share() >= ENOUGH
        for load in self._loads:
            if self.share(load.loaded) < ENOUGH and not (filled and not load.offered):
                raise RandomBaseError(f'{origin} {self._says(load)}; {instead}')

    def _says(self, load: _Load) -> str:
        missing = [name for at, (name, _) in self._sizes.items() if at not in load.loaded]
        near = nearest(missing[0], load.offered, 1)
        offered = sorted(load.offered, key=lambda name: name != near)  # stable: the others stay in order
        held = listed(offered) if offered else f'nothing whose name begins with {load.prefix!r}'
        return (
            f'gave {self.share(load.loaded):.1%} of the numbers of {self._kind}, which would start from random '
            f'ones: {len(missing)} of its {len(self._sizes)} parameters are missing or have another shape: '
            f'{listed(missing)}; the file holds {held}. Give a file for this architecture with the names of its '
            'library (tools/extract_backbone.py takes a backbone out of a whole network, tools/convert_vit.py renames '
            'a ViT of mmseg for mmpretrain)'
        )

    def _arrive(self, module: nn.Module, state: Mapping[str, Any], prefix: str, is_root: bool) -> None:
        if is_root:
            self._loads.append(_Load(prefix, list(state)))
        for name, value in module.named_parameters(recurse=False):
            found = state.get(prefix + name)
            if isinstance(found, Tensor) and found.shape == value.shape and id(value) in self._sizes:
                self._loaded.add(id(value))
                if self._loads:
                    self._loads[-1].loaded.add(id(value))


@dataclass
class _Load:
    """One state dict that was loaded into the backbone.

    ``offered`` are the names in it, ``prefix`` is what the backbone's names in it begin with, and ``loaded`` are the
    ids of the parameters that it filled.
    """

    prefix: str
    offered: list[str]
    loaded: set[int] = field(default_factory=set)


class _Arrival:
    """Hook that runs before a module takes its tensors from a state dict. A copied module does not get it."""

    def __init__(self, watch: LoadingWatch, module: nn.Module, is_root: bool) -> None:
        self._watch, self._module, self._is_root = watch, module, is_root

    def __call__(self, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
        self._watch._arrive(self._module, state, prefix, self._is_root)

    def __reduce__(self) -> tuple[Any, ...]:
        return (no_hook, ())
