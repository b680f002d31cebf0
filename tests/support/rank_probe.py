"""For runs of several processes on the CPU: import it through ``custom_imports``."""

from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmgps.selection import save_selection

if not torch.cuda.is_available():
    # mmengine's launcher picks a CUDA device for every process, whatever the backend.
    torch.cuda.set_device = lambda device: None


@HOOKS.register_module(force=True)
class RankProbe(Hook):
    """Write what each process holds when training ends.

    Args:
        folder: Where to.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def after_train(self, runner) -> None:
        [selection] = [hook.selection for hook in runner.hooks if hasattr(hook, 'selection')]
        save_selection(selection, self.folder / f'selection-{get_rank()}.safetensors')
        torch.save(runner.model.module.state_dict(), self.folder / f'state-{get_rank()}.pth')
