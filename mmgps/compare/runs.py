"""A single run of the comparison: its config, its folder, its result."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmgps.engine import tune_config
from mmgps.engine.configs.config import type_name
from mmgps.utils.atomic_file import read_json, write_json

from .candidates import Candidate
from .holdout import hold_out, positions, split
from .rates import ON_THE_HEAD, set_rate
from .schedule import score_at_the_end, shorten

FORMAT = 1
KEPT_CHECKPOINTS = 2
"""mmengine deletes the oldest checkpoint before it writes the next: with one, a kill in between would leave none."""


@dataclass(frozen=True, eq=False)
class Run:
    """One training.

    Args:
        candidate: By which method.
        lr: At which rate.
        seed: Of the run.
        trial: Whether it is scored on held-out training images, to choose a rate.
        cfg: The whole config, without a work dir.
        target: Path of the backbone within the model.
        top: Folder of all runs.
    """

    candidate: Candidate
    lr: float
    seed: int
    trial: bool
    cfg: Config
    target: str
    top: Path

    def __str__(self) -> str:
        if self.trial:
            return f'{self.candidate.label}, trial of {self.lr:g}'
        return f'{self.candidate.label}, seed {self.seed} at {self.lr:g}'

    @cached_property
    def digest(self) -> str:
        """Of all that the run depends on but the contents of data and weights."""
        content = dict(format=FORMAT, config=self.cfg.to_dict(), lr=self.lr, target=self.target)
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]

    @property
    def kind(self) -> Path:
        """Folder of this run under whatever settings."""
        return self.top / self.candidate.folder / (f'trial_{self.lr:g}' if self.trial else f'seed{self.seed}')

    @property
    def folder(self) -> Path:
        """A folder of its own for other settings, so that nothing is ever mixed."""
        return self.kind.with_name(f'{self.kind.name}-{self.digest}')

    @property
    def log(self) -> Path:
        return self.folder / 'log.txt'

    def result(self) -> dict[str, Any] | None:
        """What the finished run wrote; None before."""
        found = read_json(self.folder / 'result.json')
        return found if found and found.get('digest') == self.digest else None

    def under_other_settings(self) -> list[Path]:
        """Folders of the same run that were made by other settings."""
        return [path for path in sorted(self.kind.parent.glob(f'{self.kind.name}-*')) if path != self.folder]

    def prepare(self) -> None:
        """Write what the process that trains reads."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / 'config.py'
        if not path.exists():
            cfg = copy.deepcopy(self.cfg)
            cfg.work_dir = str(self.folder)
            unfinished = self.folder / 'unfinished.py'
            cfg.dump(unfinished)
            os.replace(unfinished, path)
        rate = None if self.candidate.name in ON_THE_HEAD else self.lr
        facts = dict(digest=self.digest, method=self.candidate.label, trial=self.trial, lr=self.lr, seed=self.seed)
        write_json(self.folder / 'run.json', {**facts, 'target': self.target, 'backbone_lr': rate})

    def discard_checkpoints(self) -> None:
        """Free the space of a finished trial."""
        for path in self.folder.glob('*.pth'):
            path.unlink()


@dataclass(frozen=True)
class Recipe:
    """How the configs of all runs follow from one.

    Args:
        cfg: Of the comparison.
        top: Folder of all runs.
        share: Of the training images that trials hold out.
        trial_share: Of the epochs or iterations that trials take.
        split_seed: Of the choice of held-out images, and of the trials.
        on_holdout: Whether the runs that count, too, train without those images and are scored on them.
    """

    cfg: Config
    top: Path
    share: float = 0.125
    trial_share: float = 1.0
    split_seed: int = 0
    on_holdout: bool = False

    def trial(self, candidate: Candidate, lr: float) -> Run:
        """A run on a part of the training images, scored on the rest of them."""
        cfg, target = self._tuned(candidate, lr, self.split_seed)
        self._hold_out(cfg, self.trial_share)
        score_at_the_end(cfg)
        return Run(candidate, lr, self.split_seed, True, cfg, target, self.top)

    def final(self, candidate: Candidate, lr: float, seed: int) -> Run:
        """A run on all training images, whose last step is scored on the validation set; see ``on_holdout``."""
        cfg, target = self._tuned(candidate, lr, seed)
        if self.on_holdout:
            self._hold_out(cfg, 1.0)
        score_at_the_end(cfg)
        return Run(candidate, lr, seed, False, cfg, target, self.top)

    def _hold_out(self, cfg: Config, share: float) -> None:
        """Train on a part of the training images for ``share`` of the steps, and score on the rest of them."""
        chosen = positions(cfg)
        kept, held = split(len(chosen), self.share, self.split_seed)
        hold_out(cfg, ([chosen[at] for at in kept], [chosen[at] for at in held]))
        shorten(cfg, share, len(kept) / len(chosen))

    def _tuned(self, candidate: Candidate, lr: float, seed: int) -> tuple[Config, str]:
        cfg = copy.deepcopy(self.cfg)
        cfg.pop('work_dir', None)
        cfg.pop('resume', None)
        tune_config(cfg, candidate.name, dict(candidate.options))
        target = _target(cfg)
        set_rate(cfg, candidate, lr, target)
        cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': seed}
        hooks = cfg.setdefault('default_hooks', {})
        hooks['checkpoint'] = {
            'type': 'CheckpointHook',
            **(hooks.get('checkpoint') or {}),
            'max_keep_ckpts': KEPT_CHECKPOINTS,
        }
        return cfg, target


def _target(cfg: Config) -> str:
    """Path of the backbone, as the hook of :func:`mmgps.engine.tune_config` has it."""
    [hook] = [h for h in cfg.custom_hooks if type_name(h) == 'mmgps.TuneHook']
    return str(hook.get('target', 'backbone'))
