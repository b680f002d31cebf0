"""A tiny config with a validation set, and comparisons on it with fake runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip('mmseg')

import fake_child
from mmengine.config import Config
from tiny import PIPELINE, tiny_config

from mmgps.compare import Settings, grids_of, parse_assignments, parse_candidate, processes, run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    data = dict(type='TinyPictures', count=6, pipeline=PIPELINE)
    cfg = tiny_config(
        tmp_path,
        max_iters=4,
        val_dataloader=dict(
            batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data
        ),
        val_cfg=dict(type='ValLoop'),
        val_evaluator=[dict(type='mmgps.PolypMetric', structure=False), dict(type='IoUMetric', iou_metrics=['mDice'])],
        custom_imports=dict(imports=['tiny']),
    )
    cfg.pop('work_dir')
    cfg.experiment_name = 'tiny'
    return cfg


@pytest.fixture
def settings(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Make the settings of a comparison that runs ``fake_child.py``."""
    monkeypatch.setattr(processes, 'CHILD', (fake_child.__file__,))
    monkeypatch.setattr(processes, 'POLL_S', 0.01)
    monkeypatch.setattr(run, 'draw_comparison', lambda found, path: path.touch())

    def make(*methods: str, lr=(), lrs=(), **changes) -> Settings:
        candidates = [parse_candidate(text) for text in methods]
        fixed = parse_assignments(lr, candidates)
        options = dict(
            cfg=config,
            name='tiny.py',
            candidates=candidates,
            seeds=[0, 1],
            grids=grids_of(candidates, parse_assignments(lrs, candidates), fixed),
            fixed={label: rate for label, (rate,) in fixed.items()},
            work_dir=tmp_path / 'compared',
        )
        return Settings(**{**options, **changes})

    return make
