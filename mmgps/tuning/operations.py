"""What is put behind a map: it gets the input and the output and gives a new output.

An operation is a child of the module that owns the map, and one hook that holds no state runs the children of whatever
module it is called on. So a copied or pickled network keeps its operations, names of the base stay, and autocast,
gradient checkpointing and DDP see ordinary modules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

from torch import Tensor, nn

from mmgps.selection import Injected

from .channels import LAYOUTS
from .sites import InjectionError


class Operation(Injected, ABC):
    """Changes the output of one map."""

    key: ClassVar[str]
    """Its name within the owner of the map."""
    dim: int
    """The dimension of the output that holds its channels, 1 or -1, unless the call of the owner says another."""

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor, rows: slice, dim: int) -> Tensor:
        """The new output.

        Args:
            x: The input of the map.
            y: Its output.
            rows: Which outputs of the map ``y`` holds: an attention may compute some at a time.
            dim: The dimension of ``y`` that holds them, 1 or -1.
        """

    def merge(self, weight: Tensor, bias: Tensor | None) -> None:
        """Change ``weight`` ``[outputs, inputs]`` and ``bias`` ``[outputs]`` in place to what the map computes with it.

        Raises:
            InjectionError: If that is not possible.
        """
        raise InjectionError(f'{type(self).__name__} is no linear map of the output and cannot be merged')

    def neutralize(self) -> None:
        """Set the numbers to those that leave the output as it is. Most operations start with such."""


def neutralize_unused(model: nn.Module, unused: Collection[str]) -> None:
    """Let operations that take no part in training leave the base as it is, so that merging folds nothing in of them.

    Args:
        model: The whole of it.
        unused: Names of parameters that get no gradient.
    """
    for path, module in model.named_modules():
        if isinstance(module, Operation) and all(f'{path}.{n}' in unused for n, _ in module.named_parameters()):
            module.neutralize()


def operations_of(module: nn.Module) -> list[Operation]:
    """What was put behind the map of ``module``, in order."""
    return [child for child in module.children() if isinstance(child, Operation)]


def run_operations(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
    """Forward hook of every owner with operations."""
    x = args[0] if args else next(iter(kwargs.values()))
    for operation in operations_of(module):
        output = operation(x, output, slice(None), LAYOUTS.get(kwargs.get('data_format', ''), operation.dim))
    return output
