"""The shipped demo: its weights fit, its configs build and train."""

from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS

from mmgps.engine import BeforeAfterHook

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
WEIGHTS = CONFIGS / 'demo' / 'vit-mini_shapes.pth'
LEAVES = ['gps_polyp_demo.py', 'demo/pretrain_shapes.py']


def test_base_weights_fit_the_backbone_exactly() -> None:
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIGS / 'gps_polyp_demo.py')
    assert Path(cfg.model.backbone.init_cfg.checkpoint).resolve() == WEIGHTS
    backbone = MODELS.build(cfg.model.backbone)
    weights = torch.load(WEIGHTS, weights_only=True)
    assert set(weights) == set(backbone.state_dict())
    backbone.init_weights()
    for name, value in backbone.state_dict().items():
        assert torch.isfinite(value).all()
        # mmseg interpolates the positions of 8 x 8 tokens to the demo's 12 x 12 when it loads them.
        if name != 'pos_embed':
            assert torch.equal(value, weights[name].float()), name
    assert backbone.pos_embed.shape == (1, 1 + 12 * 12, 128)
    assert backbone.pos_embed[:, 1:].std() > 0.1
    assert WEIGHTS.stat().st_size < 4_000_000


@pytest.mark.parametrize('leaf', LEAVES)
def test_config_trains_and_validates(leaf: str, tmp_path: Path) -> None:
    """Scored on the four pictures that it trains on, without warm-up."""
    cfg = Config.fromfile(CONFIGS / leaf)
    cfg.work_dir, cfg.param_scheduler = str(tmp_path), []
    cfg.train_cfg.update(max_iters=30, val_interval=30)
    cfg.default_hooks.scores = dict(type='mmgps.BeforeAfterHook')
    cfg.val_dataloader.dataset.seed = cfg.train_dataloader.dataset.seed
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.length = 4
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 30
    [scores] = [hook for hook in runner.hooks if isinstance(hook, BeforeAfterHook)]
    assert scores.after['mIoU'] > scores.before['mIoU'] + 10


def test_train_and_val_are_different_worlds() -> None:
    for leaf in LEAVES:
        cfg = Config.fromfile(CONFIGS / leaf)
        assert cfg.train_dataloader.dataset.seed != cfg.val_dataloader.dataset.seed
        assert cfg.test_dataloader.dataset.seed == cfg.val_dataloader.dataset.seed
