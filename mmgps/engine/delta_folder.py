"""The delta files of a run: how many are kept, and which is the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmgps.delta import Delta, save_delta

from .last_checkpoint import remove_other_best


class DeltaFolder:
    """Writes deltas to a folder and removes those that are too many.

    Args:
        name: Of the folder, below the work dir.
        limit: Deltas to keep beside the best; -1 keeps all.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self.path = Path(name)
        self.best_score: float | None = None
        self._kept: list[str] = []
        self._best: str | None = None
        self._resumed = False

    def enter(self, work_dir: str) -> None:
        """Be the folder of the run in ``work_dir``."""
        self.path = Path(work_dir) / self.name

    def write(self, delta: Delta, name: str) -> Path:
        """Write ``delta``, and remove the oldest beyond the limit."""
        path = self.path / f'{name}.safetensors'
        save_delta(delta, path)
        self._remove_other_best()
        self._kept = [*(kept for kept in self._kept if kept != path.name), path.name]
        while 0 < self.limit < len(self._kept):
            (self.path / self._kept.pop(0)).unlink(missing_ok=True)
        return path

    def write_best(self, delta: Delta, name: str, score: float) -> Path:
        """Write ``delta`` as the best, and remove the one that was it before."""
        path = self.path / f'{name}.safetensors'
        save_delta(delta, path)
        if self._best not in (None, path.name):
            (self.path / str(self._best)).unlink(missing_ok=True)
        self._best, self.best_score = path.name, score
        self._remove_other_best()
        return path

    def _remove_other_best(self) -> None:
        """Of a run that goes on from :meth:`state`: a best delta that it was killed before it could remove."""
        if self._resumed and self._best is not None and (self.path / self._best).is_file():
            remove_other_best(self.path, self._best)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {'kept': list(self._kept), 'best': self._best, 'best_score': self.best_score}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`. Of what a checkpoint calls a file of this folder, only the last part counts."""
        self._resumed = True
        self._kept, self.best_score = [Path(name).name for name in state['kept']], state['best_score']
        self._best = None if state['best'] is None else Path(state['best']).name
