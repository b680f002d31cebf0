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
    """Make sure that copies made by ``EMAHook``, and graphs made of the model, have all that the model has by now.

    Raises:
        ValueError: If the model grew since, or runs past what ``method`` puts behind its layers.
    """
    if isinstance(method, InjectionMethod) and _is_fused(runner, target):
        raise ValueError(
            f'efficient_conv_bn_eval computes convolutions in one with their norms, past what {method.name} puts '
            'behind them; leave it out of the config'
        )
    names = unwrapped(runner.model).state_dict().keys()
    for hook in runner.hooks:
        copied = getattr(hook, 'ema_model', None)
        if isinstance(copied, nn.Module) and not names <= _copied(copied):
            raise ValueError(
                f'{type(hook).__name__} copied the model before the method added modules to it, and would leave them '
                "out; put the method in place with type='mmgps.TunedBackbone' if it can be, else train without the hook"
            )


def check_same_names(runner: Runner) -> None:
    """Make sure that copies of a model that followed its checkpoint are copies of what it is now.

    Raises:
        ValueError: Names the hook.
    """
    names = unwrapped(runner.model).state_dict().keys()
    for hook in runner.hooks:
        copied = getattr(hook, 'ema_model', None)
        if isinstance(copied, nn.Module) and names != _copied(copied):
            raise ValueError(
                f'{type(hook).__name__} copied the model as the config builds it, and the checkpoint was trained by '
                'another method; test it by the config of its run, or without that hook'
            )


def _is_fused(runner: Runner, target: str) -> bool:
    """Whether convolutions of the backbone at ``target`` are computed in one with their norms, or will be."""
    asked = runner.cfg.get('efficient_conv_bn_eval') or ()
    names = [asked] if isinstance(asked, str) else asked
    backbone = unwrapped(runner.model).get_submodule(target)
    return any(f'{name}.'.startswith(f'{target}.') or f'{target}.'.startswith(f'{name}.') for name in names) or any(
        getattr(part, 'efficient_conv_bn_eval_forward', None) for part in backbone.modules()
    )


def _copied(averaged: nn.Module) -> set[str]:
    inner: Any = averaged.module
    return set(inner.state_dict())


def rewrap(runner: Runner) -> None:
    """Wrap the model anew, since DDP fixes at construction which parameters it reduces.

    With ``compile`` in the config, mmengine has compiled ``train_step`` of the old wrapper; that of the new one is too.
    """
    if not is_model_wrapper(runner.model):
        return
    if isinstance(runner, FlexibleRunner):
        with _norms_as_they_are(runner.strategy):
            runner.model = runner.strategy.model = runner.strategy._wrap_model(runner.model.module)
    else:
        with _norms_as_they_are(runner.cfg):
            runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), runner.model.module)
        runner._maybe_compile('train_step')


@contextmanager
def _norms_as_they_are(options: Any) -> Iterator[None]:
    """A context without ``sync_bn`` in ``options``.

    The first wrapping made every norm a SyncBN. A second conversion would make each anew, without hooks: what a method
    put behind it would no longer run.
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
    """Make sure that the strategy of a ``FlexibleRunner`` can train what a method chooses.

    Args:
        runner: Any runner.
        sparse: Config of what trains the chosen connections.
        lean: Whether the hook has lean options.

    Raises:
        TypeError: For one that shards or converts the model before it is known what is trained, or that shards it under
            lean options, which read weights in backward that are gathered for forward alone.
        ShardingError: If the run has something that the strategy of mmgps cannot shard.
    """
    strategy = getattr(runner, 'strategy', None)
    if isinstance(strategy, GPSFSDPStrategy):
        if lean:
            raise TypeError(
                'lean options of the hook are not for mmgps.GPSFSDPStrategy, which gathers weights layer by layer; '
                'leave lean out of the hook, or train without sharding'
            )
        check_run(runner, sparse)
    elif strategy is not None and type(strategy) not in (SingleDeviceStrategy, DDPStrategy):
        raise TypeError(
            f'{type(strategy).__name__} lays the parameters out anew before it is known which are trained; set '
            "strategy=dict(type='mmgps.GPSFSDPStrategy')"
        )


def model_on_device(runner: Any) -> AbstractContextManager[None]:
    """A context with the model of ``runner`` on its device, whatever its strategy does with it afterwards."""
    strategy = getattr(runner, 'strategy', None)
    return strategy.on_device() if isinstance(strategy, GPSFSDPStrategy) else nullcontext()


def shard_base(runner: Any, training: SparseTraining) -> None:
    """Spread what is frozen over the processes, if the strategy of ``runner`` does that.

    Args:
        runner: Whose optimizers hold what is trained and nothing else.
        training: Which follows its weights.
    """
    strategy = getattr(runner, 'strategy', None)
    if isinstance(strategy, GPSFSDPStrategy):
        strategy.shard()
        if isinstance(training, CompactTraining):
            training.follow()
