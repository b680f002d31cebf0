"""A single run of the comparison: its config, its folder, its result."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmgps.engine import tune_config
from mmgps.engine.config import type_name
from mmgps.whole_file import read_json, write_json

from .candidates import Candidate
from .rates import ON_THE_HEAD, set_rate
from .trials import hold_out, positions, score_at_the_end, shorten, split

FORMAT = 1


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
class Settings:
    """What to compare, and how.

    Args:
        cfg: What every run starts from.
        name: Of the config.
        candidates: The methods.
        seeds: Of the runs that count.
        grids: Label of a method to the rates to try.
        fixed: Label of a method to a rate that is not searched.
        work_dir: Where runs and tables go.
        share: Of the training images that trials hold out.
        trial_share: Of the epochs or iterations that trials take.
        split_seed: Of the choice of held-out images, and of the trials.
        on_holdout: Whether the runs that count, too, train without those images and are scored on them.
        jobs: Runs at a time.
        threads: Of each run.
        costs: Label to ``step_s`` and ``peak_bytes`` measured apart; None for those of the runs.
        stated: Printed with the results, such as options that changed the config.
    """

    cfg: Config
    name: str
    candidates: Sequence[Candidate]
    seeds: Sequence[int]
    grids: Mapping[str, Sequence[float]]
    fixed: Mapping[str, float]
    work_dir: Path
    share: float = 0.125
    trial_share: float = 1.0
    split_seed: int = 0
    on_holdout: bool = False
    jobs: int = 1
    threads: int = 1
    costs: Mapping[str, Mapping[str, float]] | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)

    def trial(self, candidate: Candidate, lr: float) -> Run:
        """A run on a part of the training images, scored on the rest of them."""
        cfg, target = self._tuned(candidate, lr, self.split_seed)
        self._hold_out(cfg, self.trial_share)
        score_at_the_end(cfg)
        return Run(candidate, lr, self.split_seed, True, cfg, target, self._top)

    def final(self, candidate: Candidate, lr: float, seed: int) -> Run:
        """A run on all training images, whose last step is scored on the validation set; see ``on_holdout``."""
        cfg, target = self._tuned(candidate, lr, seed)
        if self.on_holdout:
            self._hold_out(cfg, 1.0)
        score_at_the_end(cfg)
        return Run(candidate, lr, seed, False, cfg, target, self._top)

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
            'max_keep_ckpts': 1,  # enough, since the next one is written before this one is removed
        }
        return cfg, target

    @property
    def _top(self) -> Path:
        # Absolute, since the note of the last checkpoint is read by another process.
        return Path(os.path.abspath(self.work_dir)) / 'runs'


def _target(cfg: Config) -> str:
    """Path of the backbone, as the hook of :func:`mmgps.engine.tune_config` has it."""
    [hook] = [h for h in cfg.custom_hooks if type_name(h) == 'mmgps.TuneHook']
    return str(hook.get('target', 'backbone'))


def stated_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Options that changed the config, for the results: a path is cut down to its last part."""
    values = {key: value.rpartition('/')[2] if isinstance(value, str) else value for key, value in options.items()}
    return {'cfg_options': ' '.join(f'{key}={value}' for key, value in values.items())} if options else {}
