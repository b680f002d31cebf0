"""A run that ends in the midst of it."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


class Stop(Exception):
    pass


@HOOKS.register_module(force=True)
class StopAt(Hook):
    """Fails before the iteration ``at``, such as one between two checkpoints."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.at:
            raise Stop
