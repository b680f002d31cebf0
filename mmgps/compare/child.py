"""The process of one run: python -m mmgps.compare.child FOLDER

It goes on from the last checkpoint in the folder, and ends as soon as the process that started it is gone.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mmgps.utils.requirements import require

require('mmengine')

from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from mmgps.engine import weights_only  # noqa: E402
from mmgps.engine.resuming.checkpoints import DivergedError  # noqa: E402  # noqa: E402
from mmgps.utils.atomic_file import read_json, write_json  # noqa: E402

from .lifeline import end_with_parent  # noqa: E402
from .record import RecordHook  # noqa: E402


@weights_only()
def train(folder: Path) -> None:
    """Train the config in ``folder``, from its last checkpoint if it has one, and write its result.

    A trial that diverges has a result too, without scores: its rate is too high, and would be again.
    """
    facts = read_json(folder / 'run.json')
    cfg = Config.fromfile(folder / 'config.py')
    cfg.work_dir = str(folder)
    if has_checkpoint(folder):
        cfg.resume, cfg.load_from = True, None
    runner = Runner.from_cfg(cfg)
    runner.register_hook(RecordHook(folder / 'result.json', facts['target'], facts, facts['backbone_lr']))
    try:
        runner.train()
    except DivergedError as error:
        if not facts['trial']:
            raise
        write_json(folder / 'result.json', {**facts, 'metrics': {}, 'diverged': str(error)})


def has_checkpoint(folder: Path) -> bool:
    """Whether the file that mmengine writes after each checkpoint names one that is there."""
    note = folder / 'last_checkpoint'
    return note.is_file() and bool(name := note.read_text().strip()) and Path(name).is_file()


if __name__ == '__main__':
    end_with_parent()
    train(Path(sys.argv[1]))
