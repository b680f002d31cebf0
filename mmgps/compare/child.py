"""The process of one run: ``python -m mmgps.compare.child FOLDER``.

It resumes from the last checkpoint in the folder, and ends as soon as the process that started it has died.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path


def start_parent_watchdog() -> None:
    """End this process when its parent dies, even by SIGKILL.

    Only the parent holds the other end of the standard input, so that end closes with the parent. Start the process
    with ``stdin=subprocess.PIPE``.
    """
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    # sys.stdin would hold a lock while reading, and data loader workers would inherit it.
    while os.read(0, 1):
        pass
    os._exit(1)


def train(folder: Path) -> None:
    """Train the config in ``folder``, from its last checkpoint if it has one, and write its result.

    A trial that diverges writes a result without scores, since its rate would be too high the next time as well.
    """
    # These imports take seconds; the watchdog has to run before them.
    from mmengine.config import Config
    from mmengine.runner import Runner

    from mmgps.engine import weights_only
    from mmgps.engine.resuming.checkpoints import DivergedError
    from mmgps.utils.atomic_file import read_json, write_json

    from .record import RecordHook

    facts = read_json(folder / 'run.json')
    cfg = Config.fromfile(folder / 'config.py')
    cfg.work_dir = str(folder)
    if has_checkpoint(folder):
        cfg.resume, cfg.load_from = True, None
    with weights_only():
        runner = Runner.from_cfg(cfg)
        runner.register_hook(RecordHook(folder / 'result.json', facts['target'], facts, facts['backbone_lr']))
        try:
            runner.train()
        except DivergedError as error:
            if not facts['trial']:
                raise
            write_json(folder / 'result.json', {**facts, 'metrics': {}, 'diverged': str(error)})


def has_checkpoint(folder: Path) -> bool:
    """Tell whether the note that mmengine writes after each checkpoint names an existing file."""
    note = folder / 'last_checkpoint'
    return note.is_file() and bool(name := note.read_text().strip()) and Path(name).is_file()


if __name__ == '__main__':
    start_parent_watchdog()
    train(Path(sys.argv[1]))
