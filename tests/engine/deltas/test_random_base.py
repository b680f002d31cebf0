"""A backbone that a weights file failed to fill is not tuned from random numbers."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import FlexibleRunner, Runner
from mmseg.models import VisionTransformer
from tiny import tiny_config, tiny_model, train
from torch import nn

from mmgps.engine import tune_config
from mmgps.engine.deltas.base_model import named_weights
from mmgps.rewiring import no_hook
from mmgps.tuning import LoadingWatch, RandomBaseError

PLAIN = dict(patch_size=8, embed_dims=16, num_layers=2, num_heads=2, mlp_ratio=2, out_indices=(1,), patch_bias=True)


def weights(**changes) -> dict[str, torch.Tensor]:
    """Weights of a backbone like that of the tiny model, with ``changes``."""
    init_default_scope('mmseg')
    options = dict(type='VisionTransformer', img_size=(32, 32), **PLAIN)
    return MODELS.build({**options, **changes}).state_dict()


def config(folder: Path, state: dict[str, torch.Tensor], load_from: bool = False, **changes):
    """Config of a run of two iterations that starts from ``state``, by ``init_cfg`` or by ``load_from``."""
    folder.mkdir(exist_ok=True)
    file = str(folder / 'pretrained.pth')
    torch.save(dict(state_dict=state), file)
    model = tiny_model()
    if not load_from:
        model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=file)
    return tiny_config(folder, max_iters=1, model=model, load_from=file if load_from else None, **changes)


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    ('names', 'load_from'),
    [('blocks.', False), ('backbone.', False), ('blocks.', True), ('', True), ('encoder.', True)],
)
def test_names_that_do_not_fit(names: str, load_from: bool, tmp_path: Path) -> None:
    runner = Runner.from_cfg(config(tmp_path, under(names, weights()), load_from))
    with pytest.raises(RandomBaseError, match=r'pretrained\.pth gave 0\.0% of .*VisionTransformer.*allow_random_base'):
        runner.train()
    assert not list(tmp_path.glob('selection.safetensors'))


def test_the_error_names_both_sides(tmp_path: Path) -> None:
    """The nearest name comes first."""
    state = dict(reversed(under('blocks.', weights()).items()))
    with pytest.raises(RandomBaseError, match=r"parameters are .*: 'cls_token'.*the file holds 'blocks\.cls_token'"):
        train(config(tmp_path / 'near', state))
    with pytest.raises(RandomBaseError, match=r"the file holds nothing whose name begins with 'backbone\.'"):
        train(config(tmp_path / 'none', weights(), load_from=True))


def test_only_a_few_tensors_fit(tmp_path: Path) -> None:
    state = {name: value for name, value in weights().items() if name in ('cls_token', 'pos_embed')}
    with pytest.raises(RandomBaseError, match=r'gave \d\.\d% of'):
        train(config(tmp_path, state))


def test_all_but_a_block_fits(tmp_path: Path) -> None:
    state = {name: value for name, value in weights().items() if not name.startswith('layers.1.')}
    with pytest.raises(RandomBaseError, match=r"gave 7\d\.\d% of .*: 'layers\.1\.ln1\.weight'"):
        train(config(tmp_path, state))


def test_another_size_of_the_same_architecture(tmp_path: Path) -> None:
    with pytest.raises(RandomBaseError, match='have another shape'):
        train(config(tmp_path, weights(embed_dims=32)))


@pytest.mark.parametrize(
    ('state', 'options'),
    [
        (weights, {}),
        (lambda: under('backbone.', weights()), dict(load_from=True)),
        (lambda: under('module.backbone.', weights()), dict(load_from=True)),
        (lambda: weights(img_size=(64, 64)), {}),
        (lambda: weights() | {'head.weight': torch.zeros(3)}, {}),
        (lambda: {name: value for name, value in weights().items() if '.ln' not in name}, {}),
    ],
    ids=['same', 'load_from', 'module', 'other-positions', 'surplus', 'without-norms'],
)
def test_what_fills_the_backbone_is_right(state, options: dict, tmp_path: Path) -> None:
    assert train(config(tmp_path, state(), **options)).iter == 1


def test_a_head_beside_a_backbone(tmp_path: Path) -> None:
    cfg = config(tmp_path, weights())
    torch.save(dict(state_dict={'decode_head.conv_seg.weight': torch.zeros(2, 8, 1, 1)}), tmp_path / 'head.pth')
    cfg.load_from = str(tmp_path / 'head.pth')
    assert train(cfg).iter == 1


def test_a_file_that_does_not_fit_beside_one_that_does(tmp_path: Path) -> None:
    cfg = config(tmp_path, weights())
    torch.save(dict(state_dict=under('backbone.blocks.', weights())), tmp_path / 'other.pth')
    cfg.load_from = str(tmp_path / 'other.pth')
    with pytest.raises(RandomBaseError, match=r'other\.pth and .*pretrained\.pth gave 0\.0%'):
        train(cfg)


@pytest.mark.parametrize('method', ['gps', 'lora', 'full', 'linear'])
def test_every_method_asks_and_can_be_told_to_go_on(method: str, tmp_path: Path) -> None:
    cfg = tune_config(config(tmp_path, under('blocks.', weights())), method)
    with pytest.raises(RandomBaseError):
        train(cfg)
    cfg = tune_config(config(tmp_path / 'allowed', under('blocks.', weights())), method)
    hook = next(hook for hook in cfg.custom_hooks if hook.type == 'mmgps.TuneHook')
    hook.allow_random_base = True
    assert train(tune_config(cfg, method)).iter == 1


def test_a_config_that_names_no_file_is_warned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for cfg, times in ((tiny_config(tmp_path / 'none', max_iters=1), 1), (config(tmp_path, weights()), 0)):
        runner = Runner.from_cfg(cfg)
        runner.logger.setLevel(logging.WARNING)
        runner.logger.addHandler(caplog.handler)
        caplog.clear()
        runner.train()
        said = [text for text in caplog.messages if 'names no file of weights' in text]
        assert len(said) == times


@MODELS.register_module(force=True)
class FilledByItself(VisionTransformer):
    """Backbone that loads a file by an argument that no library has."""

    def __init__(self, file: str | None = None, pretrained: bool = False, **options) -> None:
        super().__init__(**options)
        self.file = file

    def init_weights(self) -> None:
        if self.file:
            self.load_state_dict(torch.load(self.file, weights_only=True))


@pytest.mark.parametrize('own', [dict(file='own.pth'), dict(pretrained=True)], ids=['loads', 'names'])
def test_a_backbone_that_loads_some_itself_is_not_warned_of(
    own: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither is one with ``pretrained=True``, which may have loaded when it was built."""
    torch.save(weights(), tmp_path / 'own.pth')
    cfg = tiny_config(tmp_path, max_iters=1)
    cfg.model.backbone.update(own, type='FilledByItself')
    if 'file' in own:
        cfg.model.backbone.file = str(tmp_path / 'own.pth')
    runner = Runner.from_cfg(cfg)
    runner.logger.setLevel(logging.WARNING)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert not [text for text in caplog.messages if 'names no file of weights' in text]


def test_the_files_that_a_config_names() -> None:
    model = dict(
        backbone=dict(type='TIMMBackbone', checkpoint_path='a.pth', pretrained=False),
        necks=[dict(init_cfg=dict(type='Pretrained', checkpoint='b.pth')), dict(pretrained=True)],
    )
    assert named_weights(model) == ['a.pth', 'b.pth', 'True']


def test_under_a_flexible_runner(tmp_path: Path) -> None:
    """A ``FlexibleRunner`` loads before it begins to run."""
    cfg = config(tmp_path, under('encoder.', weights()), load_from=True)
    cfg.env_cfg = {}
    with pytest.raises(RandomBaseError, match=r'pretrained\.pth gave 0\.0%'):
        FlexibleRunner.from_cfg(cfg).train()


def test_a_run_that_goes_on_is_not_asked(tmp_path: Path) -> None:
    """A resumed run has the weights of its checkpoint."""
    cfg = config(tmp_path, weights())
    cfg.default_hooks.checkpoint.interval = 1
    train(cfg)
    cfg = config(tmp_path, under('blocks.', weights()), resume=True)
    cfg.train_cfg.max_iters = 2
    assert train(cfg).iter == 2


def test_a_copy_made_meanwhile_is_not_watched() -> None:
    """Averaging hooks copy the model before training."""
    net = nn.Linear(3, 2)
    watch = LoadingWatch(net)
    twin = pickle.loads(pickle.dumps(net))
    assert [hook.hook for hook in twin._load_state_dict_pre_hooks.values()] == [no_hook()]
    net.load_state_dict(twin.state_dict())
    assert (watch.loads, watch.share()) == (1, 1.0)


def test_nothing_is_left_on_the_network(tmp_path: Path) -> None:
    runner = train(config(tmp_path, weights()))
    hooks = [hook for module in runner.model.modules() for hook in module._load_state_dict_pre_hooks.values()]
    assert hooks == []
