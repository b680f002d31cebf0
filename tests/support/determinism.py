"""Deterministic algorithms for a run, as far as torch has them."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class Deterministic(Hook):
    """As ``randomness=dict(deterministic=True)``, but warns where torch has no deterministic form of an operation."""

    def before_run(self, runner) -> None:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.use_deterministic_algorithms(True, warn_only=True)
