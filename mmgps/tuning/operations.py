"""Operations, which methods place behind linear maps and norms, compute a new output from the input and the output.

An operation is a child of the module that owns the map. One stateless hook runs the operations of the module on which
it is called. So a copied or pickled network keeps its operations, names of the base stay, and autocast, gradient
checkpointing and DDP see ordinary modules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mmgps.rewiring import Injected
from mmgps.sparse.attention import ProjectingForward

from .sites import LAYOUTS, InjectionError, Site, channel_dim

MERGE = 'merge first (mmgps.tuning.merge_operations, or `delta merge`)'


class Operation(Injected, ABC):
    """Changes the output of one map."""

    key: ClassVar[str]
    """Name of the operation within the owner of the map."""
    dim: int
    """The channel dimension of the output, 1 or -1; the call of the owner may name another."""
    biased: bool
    """True if the map has a bias."""

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor, rows: slice, dim: int) -> Tensor:
        """The new output.

        Args:
            x: The input of the map.
            y: Its output.
            rows: The outputs of the map that ``y`` holds: an attention may compute some at a time.
            dim: The dimension of ``y`` that holds them, 1 or -1.
        """

    def merge(self, weight: Tensor, bias: Tensor | None) -> None:
        """Fold the operation into ``weight`` ``[outputs, inputs]`` and ``bias`` ``[outputs]``, in place.

        Raises:
            InjectionError: If that is not possible.
        """
        raise InjectionError(f'{type(self).__name__} is not a linear map of the output and cannot be merged')

    def neutralize(self) -> None:
        """Set the numbers so that the output does not change. Most operations start this way."""


def neutralize_unused(model: nn.Module, unused: Collection[str]) -> None:
    """Neutralize operations that take no part in training, so that merging them does not change the base.

    Args:
        model: The whole model.
        unused: Names of parameters that get no gradient.
    """
    for path, module in model.named_modules():
        if isinstance(module, Operation) and all(f'{path}.{n}' in unused for n, _ in module.named_parameters()):
            module.neutralize()


def operations_of(module: nn.Module) -> list[Operation]:
    """The operations behind the map of ``module``, in order."""
    return [child for child in module.children() if isinstance(child, Operation)]


def run_operations(module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Tensor:
    """Forward hook of every owner with operations.

    Args:
        module: The owner.
        args: Positional arguments of its call.
        rest: Keyword arguments and output. The keyword arguments are missing if something, such as quantization,
            replaced the owner and kept the hook.

    Raises:
        InjectionError: If the operations of the owner are gone, or if a norm was fused into it.
    """
    operations = operations_of(module)
    if not operations:
        raise InjectionError(
            f'a {type(module).__name__} replaced a layer with injected modules and lost them; {MERGE}, then convert '
            'the network'
        )
    kwargs: dict[str, Any] = rest[0] if len(rest) == 2 else {}
    output: Tensor = rest[-1]
    x = args[0] if args else next(iter(kwargs.values()))
    for operation in operations:
        if operation.biased != (getattr(module, 'bias', None) is not None):
            raise InjectionError(
                f'a {type(module).__name__} had {"a" if operation.biased else "no"} bias when {operation.key!r} was '
                f'put behind it: something fused a norm into it; {MERGE}, then convert the network'
            )
        output = operation(x, output, slice(None), LAYOUTS.get(kwargs.get('data_format', ''), operation.dim))
    return output


def run_within(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Forward hook of every ``nn.MultiheadAttention`` with operations, which run within its forward.

    ``nn.TransformerEncoderLayer`` calls its attention only if that has a hook.

    Raises:
        InjectionError: If the attention does not run them.
    """
    if 'forward' not in vars(module):
        raise InjectionError(
            f'a {type(module).__name__} lost the forward that runs its injected modules; build the network anew '
            f'with its method, or {MERGE}'
        )


def place(site: Site, operation: Operation) -> None:
    """Place ``operation`` behind the map at ``site``.

    Raises:
        InjectionError: If the map has an operation of this kind, or if its channel dimension is unknown.
    """
    owner = site.owner
    if hasattr(owner, operation.key):
        raise InjectionError(f'{site.path!r} already has {operation.key!r}; build the backbone anew')
    operation.to(site.weight.device, site.weight.dtype).train(owner.training)
    if site.attention is not None:
        if 'forward' not in vars(site.attention):
            TunedAttention(site.attention)
            site.attention.register_forward_hook(run_within)
    else:
        operation.dim, operation.biased = channel_dim(site), site.bias is not None
        if run_operations not in owner._forward_hooks.values():
            owner.register_forward_hook(run_operations, with_kwargs=True)
    owner.add_module(operation.key, operation)


def check_connected(backbone: nn.Module) -> None:
    """Make sure that every operation runs, since code that rebuilds modules may copy children and lose hooks.

    Raises:
        InjectionError: Names the module.
    """
    served = {
        id(part)
        for module in backbone.modules()
        if isinstance(vars(module).get('forward'), TunedAttention)
        for part in (module, module.out_proj)
    }
    for path, module in backbone.named_modules():
        hooked = run_operations in module._forward_hooks.values()
        if operations_of(module) and not hooked and id(module) not in served:
            raise InjectionError(
                f'{path!r} ({type(module).__name__}) holds {operations_of(module)[0].key!r} but does not run it: '
                'something, such as a conversion to SyncBN, rebuilt the module after the injection'
            )


class TunedAttention(ProjectingForward):
    """The forward of one ``nn.MultiheadAttention`` that has operations behind its projections.

    A copy of the module gets its own.

    Args:
        owner: The module, with one packed input projection.
    """

    injected = True

    def __init__(self, owner: nn.MultiheadAttention) -> None:
        # stops the fast inference path, which ignores operations
        super().__init__(owner, _check_arg_device=lambda _: False)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._owner,))

    def __call__(self, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        if query.is_nested:
            raise InjectionError(
                "nn.TransformerEncoder hands a padded batch to its attention as a nested tensor, which only torch's "
                'unchanged attention accepts; build the encoder with enable_nested_tensor=False, or merge first'
            )
        return super().__call__(query, *args, **kwargs)

    def project(self, x: Tensor, w: Tensor, b: Tensor | None, start: int) -> Tensor:
        y = F.linear(x, w, b)
        out = w is self._owner.out_proj.weight
        rows = slice(None) if out else slice(start, start + len(w))
        for operation in operations_of(self._owner.out_proj if out else self._owner):
            y = operation(x, y, rows, -1)
        return y
