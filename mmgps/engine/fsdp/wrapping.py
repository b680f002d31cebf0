"""Keep EMA copies and distributed wrappers valid after a method changed the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from mmengine._strategy import DDPStrategy, SingleDeviceStrategy
from mmengine.model import is_model_wrapper
from mmengine.runner import FlexibleRunner, Runner
from torch import nn

from mmgps.sparse import CompactTraining, SparseTraining
from mmgps.tuning import InjectionMethod, TuningMethod

from ..tuned_backbone import unwrapped
from . import GPSFSDPStrategy, check_run


def check_made_before(runner: Runner, method: TuningMethod, target: str) -> None:
    """Check that copies of the model, such as that of ``EMAHook``, and fused layers have the modules of ``method``.

    Raises:
        ValueError: If a copy lacks tensors of the model, or if fused convolutions skip the added modules.
    """
    if isinstance(method, InjectionMethod) and _is_fused(runner, target):
        raise ValueError(
            f'efficient_conv_bn_eval fuses convolutions with their norms and skips the modules that {method.name} adds '
            'between them; leave it out of the config'
        )
    names = unwrapped(runner.model).state_dict().keys()
    for hook, copied in _copies(runner):
        if not names <= copied:
            raise ValueError(
                f'{hook} copied the model before the method added modules to it, and would leave them out; put the '
                "method in place with type='mmgps.TunedBackbone' if it can be, else train without the hook"
            )


def check_same_names(runner: Runner) -> None:
    """Check that copies of the model have the same tensors as the model after it followed its checkpoint.

    Raises:
        ValueError: If they have others; names the hook.
    """
    names = unwrapped(runner.model).state_dict().keys()
    for hook, copied in _copies(runner):
        if names != copied:
            raise ValueError(
                f'{hook} copied the model that the config builds, and the checkpoint was trained by another method; '
                'test it by the config of its run, or without that hook'
            )


def _is_fused(runner: Runner, target: str) -> bool:
    """Return True if convolutions of the backbone at ``target`` are fused with their norms, or will be."""
    asked = runner.cfg.get('efficient_conv_bn_eval') or ()
    names = [asked] if isinstance(asked, str) else asked
    backbone = unwrapped(runner.model).get_submodule(target)
    return any(f'{name}.'.startswith(f'{target}.') or f'{target}.'.startswith(f'{name}.') for name in names) or any(
        getattr(part, 'efficient_conv_bn_eval_forward', None) for part in backbone.modules()
    )


def _copies(runner: Runner) -> Iterator[tuple[str, set[str]]]:
    """Class of each hook that averages the model, and the names of the tensors in its copy."""
    for hook in runner.hooks:
        averaged = getattr(hook, 'ema_model', None)
        if isinstance(averaged, nn.Module):
            inner: Any = averaged.module
            yield type(hook).__name__, set(inner.state_dict())


def rewrap(runner: Runner) -> None:
    """Wrap the model again, since DDP decides at construction which parameters it reduces.

    With ``compile`` in the config, ``train_step`` of the new wrapper is compiled like that of the old one.
    """
    if not is_model_wrapper(runner.model):
        return
    if isinstance(runner, FlexibleRunner):
        with _without_sync_bn(runner.strategy):
            runner.model = runner.strategy.model = runner.strategy._wrap_model(runner.model.module)
    else:
        with _without_sync_bn(runner.cfg):
            runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), runner.model.module)
        runner._maybe_compile('train_step')


@contextmanager
def _without_sync_bn(options: Any) -> Iterator[None]:
    """Context without ``sync_bn`` in ``options``.

    The first wrapping made every norm a SyncBN. A second conversion would replace each norm and lose the hooks that run
    injected modules.
    """
    asked = getattr(options, 'sync_bn', None)
    if asked is None:
        yield
        return
    options.sync_bn = None
    try:
        yield
    finally:
        options.sync_bn = asked


def check_strategy(runner: Any, sparse: dict[str, Any], lean: bool = False) -> None:
    """Check that the strategy of a ``FlexibleRunner`` can train the selected parameters.

    ``sparse`` is the config of the sparse training; ``lean`` is True if the hook has lean options.

    Raises:
        TypeError: For a strategy that shards or converts the model before the trained parameters are known, or that
            shards it under lean options, whose backward reads weights that are gathered for forward only.
        ShardingError: If the strategy of mmgps cannot shard the run.
    """
    strategy = getattr(runner, 'strategy', None)
    if isinstance(strategy, GPSFSDPStrategy):
        if lean:
            raise TypeError(
                'mmgps.GPSFSDPStrategy gathers weights layer by layer, which lean options of the hook do not support; '
                'leave lean out of the hook, or train without sharding'
            )
        check_run(runner, sparse)
    elif strategy is not None and type(strategy) not in (SingleDeviceStrategy, DDPStrategy):
        raise TypeError(
            f'{type(strategy).__name__} rearranges the parameters before the trained ones are known; set '
            "strategy=dict(type='mmgps.GPSFSDPStrategy')"
        )


def model_on_device(runner: Any) -> AbstractContextManager[None]:
    """Context with the full model of ``runner`` on its device, even if a strategy shards it later."""
    strategy = getattr(runner, 'strategy', None)
    return strategy.on_device() if isinstance(strategy, GPSFSDPStrategy) else nullcontext()


def shard_base(runner: Any, training: SparseTraining) -> None:
    """Shard the frozen parameters, if ``runner`` has a strategy for it; ``training`` follows its weights.

    The optimizers must hold exactly the trained parameters.
    """
    strategy = getattr(runner, 'strategy', None)
    if isinstance(strategy, GPSFSDPStrategy):
        strategy.shard()
        if isinstance(training, CompactTraining):
            training.follow()
