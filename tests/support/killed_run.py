"""Train a config for a few iterations, and optionally die by SIGKILL: python killed_run.py CONFIG DIR [AT]"""

import os
import signal
import sys

from mmgps.utils.requirements import require

require('mmseg')

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.registry import HOOKS  # noqa: E402
from mmengine.runner import Runner  # noqa: E402


@HOOKS.register_module()
class Deterministic(Hook):
    """Like ``randomness=dict(deterministic=True)``, but only warn about operations without a deterministic form."""

    def before_run(self, runner) -> None:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.use_deterministic_algorithms(True, warn_only=True)


@HOOKS.register_module()
class KillAt(Hook):
    """Kill this process before iteration ``at``, unless the run was resumed."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.at and not runner._resume:
            os.kill(os.getpid(), signal.SIGKILL)


def main(config: str, work_dir: str, at: int | None = None) -> None:
    cfg = Config.fromfile(config)
    cfg.work_dir = work_dir
    cfg.resume = at is None and os.path.exists(f'{work_dir}/last_checkpoint')
    cfg.train_cfg.update(max_iters=10, val_interval=5)
    cfg.default_hooks.checkpoint.update(interval=3, max_keep_ckpts=-1)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.indices = 24
    if at is not None:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='KillAt', at=at)]
    Runner.from_cfg(cfg).train()


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
