"""What was made of the model before a method changed it: copies, and the wrapper of distributed training."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from .selection_pass import unwrapped


def check_copies(runner: Runner) -> None:
    """Make sure that copies made before, by ``EMAHook``, have all that the model has by now.

    Raises:
        ValueError: If the model grew since.
    """
    names = unwrapped(runner.model).state_dict().keys()
    for hook in runner.hooks:
        copied = getattr(hook, 'ema_model', None)
        if isinstance(copied, nn.Module) and not names <= _copied(copied):
            raise ValueError(
                f'{type(hook).__name__} copied the model before the method added modules to it, and would leave them '
                "out; put the method in place with type='mmgps.TunedBackbone' if it can be, else train without the hook"
            )


def _copied(averaged: nn.Module) -> set[str]:
    inner: Any = averaged.module
    return set(inner.state_dict())


def rewrap(runner: Runner) -> None:
    """Wrap the model anew, since DDP fixes at construction which parameters it reduces.

    With ``compile`` in the config, mmengine has compiled ``train_step`` of the old wrapper; that of the new one is too.
    """
    if is_model_wrapper(runner.model):
        runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), runner.model.module)
        runner._maybe_compile('train_step')
