"""Shrink the training of a zoo config to seconds on a laptop, without changing its architecture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from .pictures import dataset, detection

BATCH_SIZE = 2
STEPS = 2
#: Arguments of transforms that hold sizes in pixels.
SIZES = ('scale', 'crop_size', 'size', 'img_scale', 'random_size_range')
AMP_OPTIONS = ('loss_scale', 'dtype', 'use_fsdp')


def shrink(cfg: Config, stack: str, data: str, side: int | None) -> Config:
    """Make ``cfg`` train ``STEPS`` iterations on drawn pictures without any download, in place.

    The model, the pipeline, the sampler, the loop, the hooks, the optimizer and its schedules stay. Automatic mixed
    precision, which mmengine supports on GPUs only, becomes float32.

    Args:
        cfg: Config from the zoo of ``stack``.
        stack: Package of the zoo.
        data: Folder of the pictures from :func:`zoos.pictures.draw_pictures`.
        side: Side of the training pictures in pixels; None for the size in the config.
    """
    without_pretrained(cfg.model)
    cfg.load_from, cfg.resume, cfg.work_dir = None, False, data
    cfg.log_level = 'ERROR'
    cfg.randomness = dict(seed=0)
    for phase in ('val', 'test'):
        cfg.update({f'{phase}_{part}': None for part in ('dataloader', 'cfg', 'evaluator')})
    _few_iterations(cfg)
    _in_float32(cfg.optim_wrapper)
    loader = cfg.train_dataloader
    batch_size = (loader.get('sampler') or {}).get('batch_size', BATCH_SIZE)
    loader.update(batch_size=batch_size, num_workers=0, persistent_workers=False)
    loader.pop('prefetch_factor', None)
    if stack == 'mmdet':
        loader.dataset = detection(loader.dataset, data, _classes(cfg.model))
    else:
        loader.dataset = dataset(cfg, stack, data, _inner(loader.dataset))
    if side is not None:
        _resize(loader.dataset, side)
        for preprocessor in (cfg.get('data_preprocessor'), cfg.model.get('data_preprocessor')):
            _resize(preprocessor, side)
    return cfg


def without_pretrained(part: Any) -> Any:
    """Remove all references to published weights from ``part``, in place."""
    if isinstance(part, dict):
        init = part.get('init_cfg')
        if isinstance(init, dict) and (init.get('type') == 'Pretrained' or 'checkpoint' in init):
            part['init_cfg'] = None
        if isinstance(part.get('pretrained'), str):
            part['pretrained'] = None
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ():
        without_pretrained(inner)
    return part


def _classes(model: Any) -> int:
    """Return the number of classes of a detector; 2 if it states none."""
    counts = (part['num_classes'] for part in _mappings(model) if isinstance(part.get('num_classes'), int))
    return next(counts, 2)


def _few_iterations(cfg: Config) -> None:
    """Train ``STEPS`` iterations or one epoch of as many, with a warm-up that starts high enough to move weights."""
    by_epoch = cfg.train_cfg.get('by_epoch') or cfg.train_cfg.get('type') == 'EpochBasedTrainLoop'
    if by_epoch:
        cfg.train_cfg.update(max_epochs=1)
    else:
        cfg.train_cfg.update(max_iters=STEPS)
    hooks = cfg.setdefault('default_hooks', {})
    hooks['checkpoint'] = dict(type='CheckpointHook', by_epoch=bool(by_epoch), interval=1 if by_epoch else STEPS)
    schedules = cfg.get('param_scheduler') or []
    schedules = schedules if isinstance(schedules, list) else [schedules]
    cfg.param_scheduler = [schedule for schedule in schedules if not schedule.get('begin')]  # others start too late
    for schedule in cfg.param_scheduler:
        if 'start_factor' in schedule:
            schedule['start_factor'] = 0.5


def _in_float32(wrapper: Any) -> None:
    if wrapper.get('type') == 'AmpOptimWrapper':
        wrapper['type'] = 'OptimWrapper'
        for option in AMP_OPTIONS:
            wrapper.pop(option, None)


def _inner(data: Any) -> Any:
    """Return the first data set with a pipeline inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    while 'pipeline' not in data:
        data = data['dataset'] if 'dataset' in data else data['datasets'][0]
    return data


def _resize(part: Any, side: int) -> None:
    """Let every transform in ``part`` make pictures of ``side`` pixels."""
    for transform in _mappings(part):
        for key in SIZES:
            value = transform.get(key)
            if isinstance(value, int):
                transform[key] = side
            elif isinstance(value, list | tuple) and all(isinstance(v, int) for v in value):
                transform[key] = (side, side)
            elif isinstance(value, list) and all(isinstance(v, list | tuple) for v in value):
                transform[key] = [(side, side)] * len(value)
        scales = transform.get('scales')
        if isinstance(scales, list | tuple):
            transform['scales'] = [side if isinstance(scales[0], int) else (side, side)]
        if 'border' in transform:  # RandomAffine crops a mosaic of four pictures by this
            transform['border'] = (-side // 2, -side // 2)
        if isinstance(transform.get('max_size'), int):
            transform['max_size'] = 2 * side


def _mappings(part: Any) -> Iterator[Any]:
    if isinstance(part, Mapping):
        yield part
        part = list(part.values())
    for inner in part if isinstance(part, list | tuple) else ():
        yield from _mappings(inner)
