"""How much of a backbone was loaded from files, and not left at random numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from mmgps.rewiring import base_parameters, no_hook

from .trained import listed

ENOUGH = 0.9
"""Share of the backbone's numbers that has to come from the files that were loaded."""


class RandomBaseError(ValueError):
    """Next to nothing of a file fitted the backbone, which would be tuned from random numbers."""


class LoadingWatch:
    """Sees what is loaded into a backbone, from now on to :meth:`close`, by whatever calls ``load_state_dict``.

    A tensor counts if it arrives at its module in the right shape: one that the backbone renames or resizes in loading
    does.

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
        """Files, or other state dicts, that were loaded into the backbone."""
        return len(self._loads)

    def share(self, loaded: Collection[int] | None = None) -> float:
        """The numbers that were loaded, or those of some parameters, as a share of all of the backbone."""
        total = sum(size for _, size in self._sizes.values())
        taken = self._loaded if loaded is None else loaded
        return sum(self._sizes[at][1] for at in taken) / total if total else 1.0

    def close(self) -> None:
        """See no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def check(self, origin: str, instead: str) -> None:
        """Make sure that what was loaded filled the backbone, if anything was, and each file most of it.

        A file with nothing at all for the backbone, as one of a head, needs another beside it.

        Args:
            origin: Where it came from, for the error.
            instead: What to do if a random backbone is meant.

        Raises:
            RandomBaseError: Says how much fitted, and names tensors of both sides.
        """
        filled = self.share() >= ENOUGH
        for load in self._loads:
            if self.share(load.loaded) < ENOUGH and not (filled and not load.offered):
                raise RandomBaseError(f'{origin} {self._says(load)}; {instead}')

    def _says(self, load: _Load) -> str:
        missing = [name for at, (name, _) in self._sizes.items() if at not in load.loaded]
        near = get_close_matches(missing[0], load.offered, 1, 0.4)
        offered = [*near, *(name for name in load.offered if name not in near)]
        held = listed(offered) if offered else f'nothing whose name begins with {load.prefix!r}'
        return (
            f'gave {self.share(load.loaded):.1%} of the numbers of {self._kind}, which would be tuned from random '
            f'ones: {len(missing)} of its {len(self._sizes)} parameters are missing or of another shape: '
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

    Args:
        prefix: What the names of the backbone begin with there.
        offered: The names.
        loaded: Ids of the parameters that it gave.
    """

    prefix: str
    offered: list[str]
    loaded: set[int] = field(default_factory=set)


class _Arrival:
    """Hook before a module takes its tensors out of a state dict. A copied module gets none of it."""

    def __init__(self, watch: LoadingWatch, module: nn.Module, is_root: bool) -> None:
        self._watch, self._module, self._is_root = watch, module, is_root

    def __call__(self, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
        self._watch._arrive(self._module, state, prefix, self._is_root)

    def __reduce__(self) -> tuple[Any, ...]:
        return (no_hook, ())
