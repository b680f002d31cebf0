"""What the caller of a comparison decides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .candidates import Candidate
from .runs import Recipe


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

    def recipe(self) -> Recipe:
        # Absolute, since the note of the last checkpoint is read by another process.
        top = Path(os.path.abspath(self.work_dir)) / 'runs'
        return Recipe(self.cfg, top, self.share, self.trial_share, self.split_seed, self.on_holdout)


def stated_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Options that changed the config, for the results: a path is cut down to its last part."""
    values = {key: value.rpartition('/')[2] if isinstance(value, str) else value for key, value in options.items()}
    return {'cfg_options': ' '.join(f'{key}={value}' for key, value in values.items())} if options else {}
