"""Small runs that resume under other settings and record their data and rates."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny import PIPELINE, tiny_config, train

#: A schedule that depends on scores, and the score of each epoch.
PLATEAU = dict(type='ReduceOnPlateauLR', monitor='score', rule='greater', factor=0.5, patience=1)
SCORES = [0.0, 0.5, 0.6, 0.55, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]


@HOOKS.register_module(force=True)
class Watch(Hook):
    """Records the rate and the pictures of every iteration."""

    def __init__(self, seen: list | None = None) -> None:
        self.seen = [] if seen is None else seen

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        pictures = [sample.img_path for sample in data_batch['data_samples']]
        self.seen.append((runner.iter, runner.optim_wrapper.get_lr()['lr'][0], pictures))

    def before_train(self, runner) -> None:
        self.seen = []


@HOOKS.register_module(force=True)
class Score(Hook):
    """Adds a score to the metrics of each validation, by epoch."""

    priority = 'VERY_HIGH'

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def after_val_epoch(self, runner, metrics=None) -> None:
        metrics['score'] = self.scores[runner.epoch]


def by_epochs(work_dir: Path, epochs: int = 4, batch: int = 4, count: int = 16, **changes: Any) -> Config:
    cfg = tiny_config(work_dir, log_level='WARNING', **changes)
    if 'param_scheduler' not in changes:
        cfg.param_scheduler = None
    cfg.train_dataloader.update(batch_size=batch, sampler=dict(type='DefaultSampler', shuffle=True))
    cfg.train_dataloader.dataset.count = count
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=1000)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='Watch')]
    return cfg


def by_iterations(work_dir: Path, iterations: int, **changes: Any) -> Config:
    cfg = tiny_config(work_dir, max_iters=iterations, log_level='WARNING', **changes)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='Watch')]
    return cfg


def validated(cfg: Config, scores: list[float]) -> Config:
    cfg.val_dataloader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='TinyPictures', count=1, pipeline=PIPELINE),
    )
    cfg.val_cfg, cfg.val_evaluator = dict(type='ValLoop'), dict(type='IoUMetric')
    cfg.train_cfg.val_interval = 1
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='Score', scores=scores)]
    return cfg


def resume(cfg: Config, checkpoint: Path) -> Any:
    cfg.resume, cfg.load_from = True, str(checkpoint)
    return train(cfg)


def seen(runner: Any) -> list[tuple[int, float, list[str]]]:
    return next(hook.seen for hook in runner.hooks if isinstance(hook, Watch))


def rates(runner: Any) -> list[float]:
    return [rate for _, rate, _ in seen(runner)]


def log_of(runner: Any) -> str:
    return '\n'.join(path.read_text() for path in Path(runner.log_dir).glob('*.log'))


def train_four_epochs(folder: Path) -> Path:
    """Train on 16 pictures in batches of 4, with a checkpoint per epoch and one in between."""
    cfg = by_epochs(folder)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='CheckpointHook', interval=6, by_epoch=False)]
    train(cfg)
    return folder


def in_parts(length: int) -> list[dict]:
    return [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=0.5, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', begin=0.5, end=length, convert_to_iter_based=True),
    ]
