"""Lean options of the hook in runs of mmseg's ViT."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.runner import Runner
from tiny import Stop, assert_same_bits, state_of, tiny_config, tiny_model, train

from mmgps.engine import tune_config
from mmgps.engine.fsdp import GPSFSDPStrategy
from mmgps.engine.fsdp.wrapping import check_strategy

LEAN = [dict(type='mmgps.FusedAttention'), dict(type='mmgps.Recomputation', hidden=0.5)]
HOOKS = {
    'gps': dict(type='mmgps.GPSHook', k=2),
    'bias': dict(type='mmgps.TuneHook', method=dict(type='mmgps.BiasTuning')),
    'full': dict(type='mmgps.TuneHook', method=dict(type='mmgps.FullTuning')),
    'lora': dict(type='mmgps.TuneHook', method=dict(type='mmgps.LoRA', rank=2)),
}


def trained(folder: Path, hook: dict, **changes) -> Runner:
    return train(tiny_config(folder, custom_hooks=[hook, dict(type='mmgps.ExactResumeHook')], **changes))


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((value - one[key]).abs().max().item() for key, value in other.items())


@pytest.mark.parametrize('name', HOOKS)
@pytest.mark.parametrize('with_cp', [False, True])
def test_a_run_with_options_is_the_run_without(name: str, with_cp: bool, tmp_path: Path) -> None:
    """They agree up to rounding; drop path and dropout draw the same numbers."""
    optimizer = dict(type='mmgps.GPSOptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    changes = dict(max_iters=2, model=tiny_model(with_cp=with_cp), optim_wrapper=optimizer)
    lean = trained(tmp_path / 'lean', {**HOOKS[name], 'lean': LEAN}, **changes)
    plain = trained(tmp_path / 'plain', HOOKS[name], **changes)
    found, expected = state_of(lean), state_of(plain)
    assert list(found) == list(expected)
    before = state_of(trained(tmp_path / 'before', HOOKS[name], **{**changes, 'max_iters': 0}))
    moved, differing = (
        max((value - one[key]).abs().max() for key, value in expected.items()) for one in (before, found)
    )
    assert differing < 1e-2 * moved
    attention = lean.model.backbone.layers[0].attn.attn
    assert vars(attention)['forward'].fused
    assert 'forward' not in vars(plain.model.backbone.layers[0].attn.attn) or name in ('gps', 'lora')


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    hooks = [{**HOOKS['gps'], 'lean': LEAN}, dict(type='mmgps.ExactResumeHook')]
    whole = train(tiny_config(tmp_path / 'whole', custom_hooks=hooks))
    with pytest.raises(Stop):
        train(tiny_config(tmp_path / 'cut', custom_hooks=[*hooks, dict(type='StopAt', at=3)]))
    resumed = train(tiny_config(tmp_path / 'cut', custom_hooks=hooks, resume=True))
    assert_same_bits(state_of(resumed), state_of(whole))


def test_another_method_keeps_the_options(tmp_path: Path) -> None:
    told = dict(lean=LEAN, micro_batches=dict(size=2))
    cfg = tiny_config(tmp_path, custom_hooks=[{**HOOKS['gps'], **told}])
    (hook, *_) = tune_config(cfg, 'bias').custom_hooks
    assert hook.method.type == 'mmgps.BiasTuning'
    assert {key: hook[key] for key in told} == told


def test_sharded_weights_are_refused() -> None:
    runner = SimpleNamespace(strategy=GPSFSDPStrategy.__new__(GPSFSDPStrategy))
    with pytest.raises(TypeError, match='leave lean out of the hook'):
        check_strategy(runner, dict(type='CompactTraining'), lean=True)


def test_nothing_to_change_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    convolutions = dict(
        type='EncoderDecoder',
        data_preprocessor=tiny_model()['data_preprocessor'],
        backbone=dict(type='ResNetV1c', depth=18, base_channels=4, stem_channels=4),
        decode_head={**tiny_model()['decode_head'], 'in_channels': 32, 'in_index': 3},
    )
    lean = [dict(type='mmgps.Recomputation'), dict(type='mmgps.FusedAttention')]
    cfg = tiny_config(tmp_path, model=convolutions, custom_hooks=[{**HOOKS['bias'], 'lean': lean}])
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match=r'ResNetV1c has no nn\.MultiheadAttention; remove mmgps\.FusedAttention'):
        runner.train()
    assert not any(module._forward_hooks for module in runner.model.backbone.modules())
