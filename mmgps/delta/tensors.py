"""The tensors of a network, each once."""

from __future__ import annotations

from torch import Tensor, nn

from mmgps.selection import Injected


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors themselves of the state dict of ``module``, by name; one that is tied comes once, by its first."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def injected_names(module: nn.Module) -> set[str]:
    """Names, in the state dict of ``module``, of what a method put beside the base."""
    parts = [(path, part) for path, part in module.named_modules() if isinstance(part, Injected)]
    return {below(path, name) for path, part in parts for name in part.state_dict(keep_vars=True)}


def below(path: str, name: str) -> str:
    """``name`` of the module at ``path``, as the network above it has it."""
    return f'{path}.{name}' if path else name
