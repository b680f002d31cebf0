"""Settings of a comparison, and its runs: their configs, folders and results."""

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
from mmgps.engine.configs.config import type_name
from mmgps.utils.atomic_file import read_json, write_atomically, write_json

from .candidates import ON_THE_HEAD, Candidate, set_rate
from .trials import hold_out, positions, score_at_the_end, shorten, split

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Run:
    """One training run.

    Args:
        candidate: Method.
        lr: Learning rate.
        seed: Seed of the run.
        trial: True if the run is scored on held-out training images to choose a rate.
        cfg: Complete config, without a work dir.
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
        """Hash of everything that the run depends on except data and weights."""
        content = dict(format=FORMAT, config=self.cfg.to_dict(), lr=self.lr, target=self.target)
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]

    @property
    def kind(self) -> Path:
        """Folder of this run without the digest of its settings."""
        return self.top / self.candidate.folder / (f'trial_{self.lr:g}' if self.trial else f'seed{self.seed}')

    @property
    def folder(self) -> Path:
        """Folder of this run. Other settings have another folder, so results never mix."""
        return self.kind.with_name(f'{self.kind.name}-{self.digest}')

    @property
    def log(self) -> Path:
        return self.folder / 'log.txt'

    def result(self) -> dict[str, Any] | None:
        """Return the result; None if the run has not finished."""
        found = read_json(self.folder / 'result.json')
        return found if found and found.get('digest') == self.digest else None

    def under_other_settings(self) -> list[Path]:
        """Return the folders of this run under other settings."""
        return [path for path in sorted(self.kind.parent.glob(f'{self.kind.name}-*')) if path != self.folder]

    def prepare(self) -> None:
        """Write the files that the training process reads."""
        path = self.folder / 'config.py'
        if not path.exists():
            cfg = copy.deepcopy(self.cfg)
            cfg.work_dir = str(self.folder)
            write_atomically(path, cfg.pretty_text.encode())
        rate = None if self.candidate.name in ON_THE_HEAD else self.lr
        facts = dict(digest=self.digest, method=self.candidate.label, trial=self.trial, lr=self.lr, seed=self.seed)
        write_json(self.folder / 'run.json', {**facts, 'target': self.target, 'backbone_lr': rate})

    def discard_checkpoints(self) -> None:
        """Delete the checkpoints of a finished trial."""
        for path in self.folder.glob('*.pth'):
            path.unlink()


@dataclass(frozen=True)
class Settings:
    """Settings of a comparison.

    Args:
        cfg: Config that every run starts from.
        name: Name of the config.
        candidates: Methods to compare.
        seeds: Seeds of the final runs.
        grids: Rates to try, by label.
        fixed: Rates that are not searched, by label.
        work_dir: Folder of runs and tables.
        share: Share of the training images that trials hold out.
        trial_share: Length of trials as a share of the epochs or iterations.
        split_seed: Seed of the held-out images and of the trials.
        on_holdout: Hold out these images in the final runs too, and score on them.
        jobs: Number of simultaneous runs.
        threads: Threads of each run.
        costs: ``step_s`` and ``peak_bytes`` measured separately, by label; None to use the costs of the runs.
        stated: Facts to print with the results, such as options that changed the config.
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
        """Make a run that trains on a part of the training images and is scored on the rest."""
        return self._run(candidate, lr, self.split_seed, trial=True)

    def final(self, candidate: Candidate, lr: float, seed: int) -> Run:
        """Make a run that trains on all images and is scored on the validation set at the end; see ``on_holdout``."""
        return self._run(candidate, lr, seed, trial=False)

    def _run(self, candidate: Candidate, lr: float, seed: int, trial: bool) -> Run:
        cfg, target = self._tuned(candidate, lr, seed)
        if trial or self.on_holdout:
            chosen = positions(cfg)
            kept, held = split(len(chosen), self.share, self.split_seed)
            hold_out(cfg, ([chosen[at] for at in kept], [chosen[at] for at in held]))
            shorten(cfg, self.trial_share if trial else 1.0, len(kept) / len(chosen))
        score_at_the_end(cfg)
        top = Path(os.path.abspath(self.work_dir)) / 'runs'  # absolute for mmengine's note of the last checkpoint
        return Run(candidate, lr, seed, trial, cfg, target, top)

    def _tuned(self, candidate: Candidate, lr: float, seed: int) -> tuple[Config, str]:
        cfg = copy.deepcopy(self.cfg)
        cfg.pop('work_dir', None)
        cfg.pop('resume', None)
        tune_config(cfg, candidate.name, dict(candidate.options))
        [hook] = [hook for hook in cfg.custom_hooks if type_name(hook) == 'mmgps.TuneHook']
        target = str(hook.get('target', 'backbone'))
        set_rate(cfg, candidate, lr, target)
        cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': seed}
        hooks = cfg.setdefault('default_hooks', {})
        hooks['checkpoint'] = {
            'type': 'CheckpointHook',
            **(hooks.get('checkpoint') or {}),
            'max_keep_ckpts': 1,  # mmengine removes a checkpoint only after it has written the next one
        }
        return cfg, target


def stated_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Format the options that changed the config, for the results; paths keep only their last part."""
    values = {key: value.rpartition('/')[2] if isinstance(value, str) else value for key, value in options.items()}
    return {'cfg_options': ' '.join(f'{key}={value}' for key, value in values.items())} if options else {}
