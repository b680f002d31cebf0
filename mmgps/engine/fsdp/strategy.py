"""FSDP for models that are mostly frozen."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed.fsdp
from mmengine._strategy import DDPStrategy
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.optim import BaseOptimWrapper
from torch import nn

from mmgps.registry import STRATEGIES

from ..optim import SelectiveStep, wrappers_of
from .shards import ShardingError, gathered_state, held_bytes, shard_frozen


@STRATEGIES.register_module()
class GPSFSDPStrategy(DDPStrategy):
    """Shard frozen parameters over the processes; trained ones stay complete on each, and their gradients are averaged.

    Use it with ``FlexibleRunner``. The model stays on the CPU until the trained parameters are known. Only a selection
    pass needs the full model on the device; a ``selection`` file or a resumed run does not. Process 0 writes
    checkpoints, which equal those of a run without FSDP.

    mmengine's ``FSDPStrategy`` flattens the parameters of several layers into one when the model is built, before the
    trained parameters are known, so it cannot train single connections, nor the bias of a frozen weight.

    Args:
        units: Names of the classes whose modules are gathered as a whole, such as ``TransformerEncoderLayer``; by
            default members of lists that hold two or more layers.
        options: Arguments of mmengine's ``DDPStrategy`` except ``model_wrapper``, since FSDP2 wraps nothing.

    Raises:
        ShardingError: If the installed torch has no FSDP2, or the run was not started by a launcher.
    """

    def __init__(self, *, units: Sequence[str] | None = None, **options: Any) -> None:
        if options.get('model_wrapper') is not None:
            raise ShardingError(
                'mmgps.GPSFSDPStrategy takes no model_wrapper: it shards the model in place; leave model_wrapper out'
            )
        super().__init__(**options)
        self.units = units
        if not self.distributed:
            raise ShardingError(
                'mmgps.GPSFSDPStrategy needs several processes; start them by '
                '`tools/dist_train.sh CONFIG GPUS`, or by torchrun with --launcher pytorch'
            )
        if not has_fsdp2():
            raise ShardingError(
                f'torch {torch.__version__} has no torch.distributed.fsdp.fully_shard that leaves parameters out; '
                'install a newer one, such as that of constraints.txt'
            )

    def _setup_distributed(self, launcher: str = 'pytorch', backend: str = 'nccl', **options: Any) -> None:
        """Join the processes; mmengine needs CUDA for this, but ``gloo`` also runs on the CPU."""
        if launcher == 'pytorch' and backend == 'gloo' and not torch.cuda.is_available():
            torch.distributed.init_process_group('gloo', **options)
        else:
            super()._setup_distributed(launcher, backend, **options)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        model = self.convert_model(model)
        training = 'max_iters' in self.dispatch_kwargs
        return model if training else model.to(get_device())

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> BaseOptimWrapper:
        """Build the wrapper as mmengine does, and check that it averages gradients.

        Raises:
            TypeError: For a wrapper that does not average gradients.
        """
        built = super().build_optim_wrapper(optim_wrapper, model)
        for wrapper in wrappers_of(built):
            if not isinstance(wrapper, SelectiveStep):
                raise TypeError(
                    f'{type(wrapper).__name__} does not average gradients over processes; under mmgps.GPSFSDPStrategy '
                    "set optim_wrapper.type to 'mmgps.GPSOptimWrapper' or 'mmgps.GPSAmpOptimWrapper'"
                )
        return built

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Context with the full model on the device."""
        self.model.to(get_device())
        try:
            yield
        finally:
            self.model.to('cpu')

    def shard(self) -> None:
        """Shard every parameter that no optimizer holds, see :func:`shard_frozen`."""
        within = {id(value) for value in self.model.parameters()}
        wrappers = wrappers_of(self.optim_wrapper)
        for wrapper in wrappers:
            held = [value for group in wrapper.optimizer.param_groups for value in group['params']]
            wrapper.averaged = [value for value in held if id(value) in within]
        trained = [value for wrapper in wrappers for value in wrapper.averaged]
        shard_frozen(self.model, trained, torch.device(get_device()), self.units)
        for wrapper in wrappers:  # moves the state to the device of the parameters
            wrapper.optimizer.load_state_dict(wrapper.optimizer.state_dict())
        here, whole = held_bytes(self.model)
        self.logger.info(f'frozen parameters: {here:,} of {whole:,} bytes on this process, of {self.world_size}')

    def save_checkpoint(self, filename: str, **options: Any) -> None:
        self._gathered = gathered_state(self.model, is_main_process())
        super().save_checkpoint(filename, **options)
        del self._gathered

    def model_state_dict(self) -> dict[str, Any]:
        return self._gathered

    def resume(self, filename: str, **options: Any) -> dict[str, Any]:
        """Resume through the CPU, so that the device need not hold a full checkpoint."""
        found: dict[str, Any] = super().resume(filename, **{**options, 'map_location': 'cpu'})
        return found


def has_fsdp2() -> bool:
    """Return True if torch can shard a part of the parameters in place."""
    fully_shard = getattr(torch.distributed.fsdp, 'fully_shard', None)
    return fully_shard is not None and 'ignored_params' in inspect.signature(fully_shard).parameters
