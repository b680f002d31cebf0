"""A segmentor, a data set and a config that train in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmengine.config.config
import numpy as np
import torch
import yapf.yapflib.yapf_api
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, TRANSFORMS
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.engine import tune_config  # noqa: E402
from mmgps.selection import load_selection  # noqa: E402

# mmengine formats the config at every start and for every checkpoint, which takes longer than a tiny run.
for module in (yapf.yapflib.yapf_api, mmengine.config.config):
    module.FormatCode = lambda text, **style: (text, True)


@DATASETS.register_module(force=True)
class TinyPictures(BaseSegDataset):
    """Pictures of a bright square."""

    METAINFO = dict(classes=('background', 'square'), palette=[[0, 0, 0], [255, 255, 255]])

    def __init__(self, count: int = 16, **options: Any) -> None:
        self.count = count
        super().__init__(serialize_data=False, **options)

    def load_data_list(self) -> list[dict]:
        return [
            dict(number=at, img_path=f'{at}.png', reduce_zero_label=False, seg_fields=[]) for at in range(self.count)
        ]


@TRANSFORMS.register_module(force=True)
class DrawTiny(BaseTransform):
    """Draw picture ``number`` with noise from NumPy's global generator, like an augmentation."""

    def transform(self, results: dict) -> dict:
        rng = np.random.default_rng(results['number'])
        image = rng.integers(0, 120, (32, 32, 3)).astype(np.float32)
        y, x, side = rng.integers(2, 16, 3)
        image[y : y + side, x : x + side] += 100
        image += np.random.normal(0, 5, image.shape)  # noqa: NPY002
        target = np.zeros((32, 32), np.uint8)
        target[y : y + side, x : x + side] = 1
        results.update(img=image, gt_seg_map=target, img_shape=(32, 32), ori_shape=(32, 32), seg_fields=['gt_seg_map'])
        return results


class Stop(Exception):
    pass


@HOOKS.register_module(force=True)
class StopAt(Hook):
    """Raise :class:`Stop` before the iteration ``at``, for example between two checkpoints."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.at:
            raise Stop


#: Methods that add modules, with options for a network 16 wide.
INJECTED: dict[str, dict] = {
    'lora': dict(rank=2),
    'adapter': dict(bottleneck=2),
    'vpt-shallow': dict(tokens=3),
    'vpt-deep': dict(tokens=3),
    'ssf': dict(),
    'spt-lora': dict(budget=0.3, rank=2),
    'spt-adapter': dict(budget=0.3, rank=1),
}

PIPELINE = [dict(type='DrawTiny'), dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]


def tiny_model(**backbone: Any) -> dict:
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[100.0] * 3, std=[50.0] * 3, size=(32, 32), seg_pad_val=255
        ),
        backbone=dict(
            type='VisionTransformer',
            img_size=(32, 32),
            patch_size=8,
            embed_dims=16,
            num_layers=2,
            num_heads=2,
            mlp_ratio=2,
            out_indices=(1,),
            drop_rate=0.1,
            drop_path_rate=0.1,
            patch_bias=True,
            **backbone,
        ),
        decode_head=dict(
            type='FCNHead',
            in_channels=16,
            in_index=0,
            channels=8,
            num_convs=1,
            concat_input=False,
            num_classes=2,
            norm_cfg=dict(type='BN'),
            loss_decode=dict(type='CrossEntropyLoss'),
        ),
        test_cfg=dict(mode='whole'),
    )


def resnet(**options) -> dict:
    """Replace the ViT of the model by a narrow ResNet-18 of two stages."""
    shape = dict(depth=18, base_channels=8, stem_channels=8, num_stages=2, out_indices=(1,), strides=(1, 2))
    backbone = dict(type='ResNet', dilations=(1, 1), norm_eval=True, norm_cfg=dict(type='BN'), **shape, **options)
    return dict(tiny_model(), backbone=backbone)


def tiny_config(work_dir: Path, max_iters: int = 6, workers: int = 0, **changes: Any) -> Config:
    """Return the config of an iteration-based run; ``changes`` replace whole top-level keys."""
    data = dict(type='TinyPictures', pipeline=PIPELINE)
    cfg = dict(
        default_scope='mmseg',
        model=tiny_model(),
        train_dataloader=dict(
            batch_size=4,
            num_workers=workers,
            persistent_workers=bool(workers),
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=data,
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=1000),
        optim_wrapper=dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05)),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=max_iters, by_epoch=False)] if max_iters else None,
        custom_hooks=[dict(type='mmgps.GPSHook', k=1), dict(type='mmgps.ExactResumeHook')],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1000),
            checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False, save_last=False),
        ),
        randomness=dict(seed=3),
        log_level='ERROR',
        work_dir=str(work_dir),
        experiment_name=f'{Path(work_dir).name}-{np.random.default_rng().integers(2**40)}',
    )
    cfg.update(changes)
    return Config(cfg)


def plain_config(folder: Path, **changes):
    """Return a config without mmgps that ``tune_config`` has switched to GPS, like the command line."""
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05))
    return tune_config(tiny_config(folder, **{'optim_wrapper': wrapper, 'custom_hooks': [], **changes}), 'gps')


def train(cfg: Config) -> Runner:
    runner = Runner.from_cfg(cfg)
    try:
        runner.train()
    finally:
        stop_workers(runner)
    return runner


def stop_workers(runner: Runner) -> None:
    """End the data loader's worker processes.

    Otherwise Python's garbage collector closes their queues first, during any later test, and torch then waits five
    seconds for each worker.
    """
    loops = [runner._train_loop, runner._val_loop]
    loaders = [runner._train_dataloader, *(getattr(loop, 'dataloader', None) for loop in loops)]
    for iterator in {id(it): it for it in (getattr(loader, '_iterator', None) for loader in loaders) if it}.values():
        iterator._shutdown_workers()


def state_of(runner: Runner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def base_state(cfg) -> dict[str, torch.Tensor]:
    """Return the weights that training starts from."""
    cfg = cfg.copy()
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=0)
    cfg.param_scheduler = None
    cfg.work_dir += '-base'
    cfg.experiment_name += '-base'
    return state_of(train(cfg))


def frozen_numbers(runner, work_dir: Path) -> dict[str, torch.Tensor]:
    """Return masks of the frozen values in the backbone, by parameter name."""
    backbone = runner.model.backbone
    frozen = {name: torch.ones_like(value, dtype=torch.bool) for name, value in backbone.named_parameters()}
    selection = load_selection(work_dir / 'selection.safetensors')
    for name in selection.whole:
        frozen[name][:] = False
    for parameter, connections in selection.resolve(backbone):
        frozen[parameter.name] = ~connections.mask(parameter.neurons)
    return frozen


def assert_same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    differing = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert differing == []
