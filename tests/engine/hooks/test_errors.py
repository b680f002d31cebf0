"""Bad input raises an error that names the value and the next step."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny import tiny_config, tiny_model, train

from mmgps.engine import NoBatchError
from mmgps.selection import (
    NonFiniteGradientError,
    SelectionFileError,
    SelectionMismatchError,
    load_selection,
    save_selection,
)
from mmgps.tuning import GPS


@pytest.mark.parametrize('k', [0, -1, 1.5, True])
def test_k_below_one(k: object) -> None:
    with pytest.raises(ValueError, match=f'at least 1, got {k!r}'):
        GPS(k)


def test_unknown_role() -> None:
    with pytest.raises(ValueError, match=r"got \['norms'\]; allowed: \['bias'"):
        GPS(full_roles=['norms'])


def test_a_single_role() -> None:
    assert GPS(full_roles='bias').settings()['full_roles'] == ['bias']
    with pytest.raises(ValueError, match=r"got \['norms'\]; allowed: \['bias'"):
        GPS(full_roles='norms')


def test_k_above_a_fan_in_is_clamped_and_said_once() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2), torch.nn.Linear(2, 9))
    gradients = {name: torch.randn_like(value) for name, value in net.named_parameters()}
    with pytest.warns(UserWarning, match=r'k=4 exceeds .* of 2 layers \(first .0\.weight., least fan-in 2\)') as seen:
        selection = GPS(4).select(net, gradients)
    assert len(seen) == 1
    assert {name: len(item) for name, item in selection.connections.items()} == {
        '0.weight': 12,
        '1.weight': 8,
        '2.weight': 18,
    }


@pytest.mark.parametrize('target', ['backbones', 'encoder.vit', ''])
def test_a_target_that_matches_nothing(target: str, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.custom_hooks[0].target = target
    with pytest.raises(ValueError, match=r'no module of EncoderDecoder; nearest: .*backbone'):
        train(cfg)


def test_a_plain_optimizer_wrapper(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.optim_wrapper.type = 'OptimWrapper'
    with pytest.raises(TypeError, match=r"set optim_wrapper.type to 'mmgps.GPSOptimWrapper'"):
        train(cfg)


def test_two_hooks(tmp_path: Path) -> None:
    hooks = [dict(type='mmgps.GPSHook', target=f'backbone.layers.{at}') for at in (0, 1)]
    with pytest.raises(ValueError, match=r'one mmgps.GPSHook or mmgps.TuneHook is expected .* the run has 2 of them'):
        train(tiny_config(tmp_path, custom_hooks=hooks))


def test_a_wrapper_without_a_hook(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"add dict\(type='mmgps.GPSHook'\) to custom_hooks"):
        train(tiny_config(tmp_path, custom_hooks=[]))


def test_nan_gradients_name_the_layer(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.model.decode_head.loss_decode.loss_weight = float('nan')
    with pytest.raises(NonFiniteGradientError, match=r"first in 'patch_embed.projection.weight'"):
        train(cfg)


def test_an_empty_data_set(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, workers=0)
    cfg.train_dataloader.dataset.count = 0
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=False, round_up=False)
    with pytest.raises(NoBatchError, match='0 samples for batches of 4'):
        train(cfg)


@pytest.mark.parametrize('count', [0, -3])
def test_num_batches_below_one(count: int, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.custom_hooks[0].num_batches = count
    with pytest.raises(ValueError, match=f'at least 1, or None for all data, got {count}'):
        train(cfg)


def test_selection_files(tmp_path: Path) -> None:
    train(tiny_config(tmp_path, max_iters=0))
    path = tmp_path / 'selection.safetensors'
    cfg = tiny_config(tmp_path / 'b', max_iters=0)
    cfg.custom_hooks[0].selection = str(path)
    cfg.model = tiny_model() | {}
    cfg.model.backbone.num_layers = 1
    cfg.model.backbone.out_indices = (0,)
    with pytest.raises(SelectionMismatchError, match=r"names 'layers\.1\..*another architecture"):
        train(cfg)
    path.write_bytes(path.read_bytes()[:-7])
    cfg = tiny_config(tmp_path / 'c', max_iters=0)
    cfg.custom_hooks[0].selection = str(path)
    with pytest.raises(SelectionFileError, match='no intact selection file'):
        train(cfg)


def test_a_selection_file_of_another_method(tmp_path: Path) -> None:
    """It is refused before training; settings that it does not record are accepted, also on resuming."""
    train(tiny_config(tmp_path, max_iters=0))
    file = str(tmp_path / 'selection.safetensors')
    made = r"selection\.safetensors was made by gps with {.*'k': 1, .*"
    for hook, message in (
        (dict(type='mmgps.GPSHook', k=5), made + "asks for gps with {.*'k': 5, .*; name the method and settings of"),
        (dict(type='mmgps.TuneHook', method=dict(type='mmgps.LoRA')), made + "asks for lora with {'rank': 8"),
    ):
        with pytest.raises(ValueError, match=message):
            train(tiny_config(tmp_path / 'other', max_iters=0, custom_hooks=[dict(**hook, selection=file)]))
    save_selection(replace(load_selection(file), settings={'score': 'GradientScore'}), file)
    hooks = [dict(type='mmgps.GPSHook', k=5, selection=file)]
    train(tiny_config(tmp_path / 'bare', max_iters=2, custom_hooks=hooks))
    assert train(tiny_config(tmp_path / 'bare', max_iters=3, custom_hooks=hooks, resume=True)).iter == 3
    hooks = [dict(type='mmgps.TuneHook', method=dict(type='mmgps.SPTLoRA', budget=0.1), selection=file)]
    with pytest.raises(ValueError, match=r'made by gps with {.*GradientScore.}, .* asks for spt-lora with'):
        train(tiny_config(tmp_path / 'spt', max_iters=0, custom_hooks=hooks))


def test_a_selection_that_trains_what_is_frozen(tmp_path: Path) -> None:
    """Parameters that the user froze stay frozen, with a selection file and on resuming."""
    train(tiny_config(tmp_path, max_iters=2))
    frozen = tiny_model(frozen_exclude=['layers.1.attn'])
    message = r'trains \d+ parameters .* frozen: (?!.*layers\.1\.attn).*layers\.0\.attn.*; select anew'
    cfg = tiny_config(tmp_path / 'file', max_iters=0, model=frozen)
    cfg.custom_hooks[0].selection = str(tmp_path / 'selection.safetensors')
    with pytest.raises(SelectionMismatchError, match=message):
        train(cfg)
    with pytest.raises(SelectionMismatchError, match=message):
        train(tiny_config(tmp_path, max_iters=3, model=frozen, resume=True))


class Tied(Hook):
    """Tie a weight of the backbone to the head."""

    def before_run(self, runner: Runner) -> None:
        model = runner.model
        model.decode_head.shared = torch.nn.Linear(16, 32, bias=False)
        model.decode_head.shared.weight = model.backbone.layers[0].ffn.layers[0][0].weight


def test_a_chosen_weight_that_the_head_owns_too(tmp_path: Path) -> None:
    """It stays one weight whose chosen numbers are trained, as under masked training."""
    found = []
    for sparse in ('CompactTraining', 'MaskedTraining'):
        cfg = tiny_config(tmp_path / sparse, custom_hooks=[dict(type='mmgps.GPSHook'), dict(type=Tied)])
        cfg.custom_hooks[0].sparse = dict(type=sparse)
        model = train(cfg).model
        assert model.decode_head.shared.weight is model.backbone.layers[0].ffn.layers[0][0].weight
        found.append(model.state_dict())
    for name, value in found[1].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-3, atol=1e-4)
