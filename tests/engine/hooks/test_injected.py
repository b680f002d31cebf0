"""Methods that add modules, in a runner."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, load_checkpoint
from tiny import INJECTED, assert_same_bits, state_of, tiny_config, tiny_model, train

from mmgps.engine import METHOD_NAMES, TuneHook, tune_config
from mmgps.selection import unpack_selection
from mmgps.tuning import InjectionMethod

EMA = dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.3)


def config(work_dir: Path, method: str, form: str = 'backbone', **changes):
    """Config of a tiny run with ``method`` in the backbone or only in a hook."""
    cfg = tiny_config(work_dir, **changes)
    if form == 'backbone':
        return tune_config(cfg, method, INJECTED[method])
    named = {**METHOD_NAMES[method], **INJECTED[method]}
    cfg.custom_hooks = [dict(type='mmgps.TuneHook', method=named), dict(type='mmgps.ExactResumeHook')]
    return cfg


def saved(work_dir: Path, iteration: int) -> dict:
    return torch.load(work_dir / f'iter_{iteration}.pth', weights_only=True)


forms = pytest.mark.parametrize(
    ('method', 'form'), [(method, form) for method in INJECTED for form in ('backbone', 'hook')]
)


@forms
def test_base_keeps_its_bits_and_resumed_equals_uninterrupted(method: str, form: str, tmp_path: Path) -> None:
    base = state_of(train(config(tmp_path / 'base', method, form, max_iters=0)))
    cut = tmp_path / 'cut'
    schedule = [dict(type='CosineAnnealingLR', T_max=4, by_epoch=False, end=4)]
    train(config(cut, method, form, max_iters=2, param_scheduler=schedule))
    resumed = train(config(cut, method, form, max_iters=4, param_scheduler=schedule, resume=True))
    whole = train(config(tmp_path / 'whole', method, form, max_iters=4, param_scheduler=schedule))
    assert_same_bits(state_of(resumed), state_of(whole))
    selection = unpack_selection(saved(cut, 4)['mmgps_selection'])
    assert selection.method == method
    trained = {f'backbone.{name}' for name in (*selection.whole, *selection.connections)}
    state = state_of(whole)
    names = {name for name, _ in whole.model.named_parameters() if name.startswith('backbone.')}
    moved = {name for name in names if not torch.equal(state[name], base[name])}
    assert moved <= trained
    assert len(moved) > 0.8 * len(trained) > 0
    held = {id(value) for group in whole.optim_wrapper.param_groups for value in group['params']}
    [hook] = [hook for hook in whole.hooks if isinstance(hook, TuneHook)]
    swap = hook.tuned.training.replacements()  # maps a weight to the parameter that gets its gradient
    assert held >= {id(swap.get(value, value)) for value in whole.model.parameters() if value.requires_grad}
    assert len(held) == len(trained) + len(list(whole.model.decode_head.parameters()))


@pytest.mark.parametrize('method', INJECTED)
def test_both_forms_train_alike(method: str, tmp_path: Path) -> None:
    states = [state_of(train(config(tmp_path / form, method, form, max_iters=2))) for form in ('backbone', 'hook')]
    assert_same_bits(states[1], states[0])


@forms
def test_a_trained_checkpoint_is_tested_as_it_was_trained(method: str, form: str, tmp_path: Path) -> None:
    runner = train(config(tmp_path, method, form, max_iters=2))
    cfg = config(tmp_path / 'test', method, form)
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.test_dataloader = dict(**loader, dataset=cfg.train_dataloader.dataset)
    cfg.test_evaluator, cfg.test_cfg = dict(type='IoUMetric'), dict()
    cfg.load_from = str(tmp_path / 'iter_2.pth')
    tester = Runner.from_cfg(cfg)
    tester.test()
    assert_same_bits(state_of(tester), state_of(runner))


def test_ema_averages_what_was_put_in_place_at_building(tmp_path: Path) -> None:
    cfg = config(tmp_path, 'lora')
    cfg.custom_hooks.append(EMA)
    train(cfg)
    checkpoint = saved(tmp_path, 6)
    averaged = {name.removeprefix('module.'): value for name, value in checkpoint['ema_state_dict'].items()}
    factors = [name for name in checkpoint['state_dict'] if '.lora.' in name]
    assert factors
    assert all(not torch.equal(averaged[name], checkpoint['state_dict'][name]) for name in factors)


def test_ema_that_copied_the_model_before_is_refused(tmp_path: Path) -> None:
    cfg = config(tmp_path, 'lora', 'hook')
    cfg.custom_hooks.append(EMA)
    with pytest.raises(ValueError, match=r"EMAHook copied the model before .* type='mmgps.TunedBackbone'"):
        train(cfg)


def test_the_config_of_the_backbone_alone_is_enough(tmp_path: Path) -> None:
    cfg = config(tmp_path, 'lora')
    cfg.custom_hooks = []
    cfg.optim_wrapper.type = 'OptimWrapper'
    base = state_of(train(config(tmp_path / 'base', 'lora', max_iters=0)))
    after = state_of(train(cfg))
    moved = {n for n in after if n.startswith('backbone.') and not torch.equal(after[n], base[n])}
    assert moved
    assert all('.lora.' in name for name in moved)


def built(backbone: dict) -> torch.nn.Module:
    init_default_scope('mmseg')
    torch.manual_seed(5)
    model = MODELS.build(copy.deepcopy(backbone))
    model.init_weights()
    return model


def test_weights_of_the_base_load_without_a_complaint(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    plain = tiny_model()['backbone']
    base = built(plain)
    torch.save(base.state_dict(), tmp_path / 'base.pth')
    tuned_cfg = dict(type='mmgps.TunedBackbone', backbone=plain, method=dict(type='mmgps.LoRA'))
    for init in ({}, dict(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'base.pth')))):
        tuned = built({**tuned_cfg, 'backbone': {**plain, **init}})
        before = {name: value.clone() for name, value in tuned.state_dict().items() if '.lora.' in name}
        capfd.readouterr()
        load_checkpoint(tuned, str(tmp_path / 'base.pth'), map_location='cpu')
        said = ''.join(capfd.readouterr())
        assert 'missing keys' not in said
        for name, value in tuned.state_dict().items():
            assert torch.equal(value, base.state_dict()[name] if name not in before else before[name]), name
        assert any(value.abs().sum() > 0 for value in before.values())


@pytest.mark.parametrize('lost', ['layers.0.attn.attn.lora.a', 'layers.1.attn.attn.lora.b'])
def test_damaged_weights_are_complained_about(lost: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    tuned_cfg = dict(type='mmgps.TunedBackbone', backbone=tiny_model()['backbone'], method=dict(type='mmgps.LoRA'))
    tuned = built(tuned_cfg)
    state = {name: value for name, value in tuned.state_dict().items() if name != lost}
    torch.save(state, tmp_path / 'part.pth')
    load_checkpoint(tuned, str(tmp_path / 'part.pth'), map_location='cpu')
    assert f'missing keys in source state_dict: {lost}' in ''.join(capfd.readouterr())


def test_a_method_that_needs_gradients_is_refused_at_building() -> None:
    cfg = dict(type='mmgps.TunedBackbone', backbone=tiny_model()['backbone'], method=dict(type='mmgps.GPS'))
    with pytest.raises(TypeError, match=r"gps chooses connections .* add dict\(type='mmgps.TuneHook'"):
        built(cfg)


def test_a_hook_without_any_method(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, custom_hooks=[dict(type='mmgps.TuneHook')])
    with pytest.raises(ValueError, match=r'was given no method .* set method of the hook, or backbone=dict'):
        train(cfg)


def test_a_hook_with_another_method_than_the_backbone(tmp_path: Path) -> None:
    cfg = config(tmp_path, 'lora')
    cfg.custom_hooks = [dict(type='mmgps.GPSHook', k=1)]
    with pytest.raises(ValueError, match='built with lora, the hook asks for gps'):
        train(cfg)


def test_tune_takes_out_what_was_in_place(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    plain = cfg.model.backbone.to_dict()
    for method, kind in (('lora', 'mmgps.TunedBackbone'), ('lora', 'mmgps.TunedBackbone'), ('bias', plain['type'])):
        tune_config(cfg, method)
        assert cfg.model.backbone.type == kind
        inner = cfg.model.backbone.backbone if kind == 'mmgps.TunedBackbone' else cfg.model.backbone
        assert inner.to_dict() == plain


def test_a_backbone_at_another_place_of_the_config(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.custom_hooks[0].target = 'encoder.net'
    with pytest.raises(ValueError, match=r'no model\.encoder\.net to put mmgps\.LoRA into; set target'):
        tune_config(cfg, 'lora')
    cfg.model = dict(encoder=dict(net=dict(type='ResNet', depth=18)))
    tune_config(cfg, 'lora')
    assert cfg.model.encoder.net.type == 'mmgps.TunedBackbone'
    assert cfg.custom_hooks[0] == dict(type='mmgps.ExactResumeHook')
    assert cfg.custom_hooks[1] == dict(type='mmgps.TuneHook', target='encoder.net')


def test_a_target_moves_the_method(tmp_path: Path) -> None:
    """The target removes the method from the backbone of the config."""
    cfg = tiny_config(tmp_path)
    cfg.model.image_encoder = dict(type='ResNet', depth=18)
    plain = cfg.model.to_dict()
    tune_config(cfg, 'lora')
    tune_config(cfg, 'lora', target='image_encoder')
    assert cfg.model.image_encoder.type == 'mmgps.TunedBackbone'
    assert cfg.model.backbone.to_dict() == plain['backbone']
    tune_config(cfg, 'gps', target='decode_head')
    assert cfg.model.to_dict() == plain
    assert cfg.custom_hooks[-1].target == 'decode_head'


def test_names_stand_for_methods_that_build() -> None:
    from mmgps.engine import build_method

    for name, cfg in METHOD_NAMES.items():
        method = build_method(cfg)
        expected = 'gps' if name.startswith('gps-') else name
        assert method.name == expected
    injecting = {name for name in METHOD_NAMES if isinstance(build_method(METHOD_NAMES[name]), InjectionMethod)}
    assert injecting | {'spt-lora', 'spt-adapter'} == set(INJECTED)
    scores = {name: build_method(METHOD_NAMES[name]).settings() for name in METHOD_NAMES if name.startswith('gps')}
    assert len({str(settings) for settings in scores.values()}) == len(scores)


def test_pretrained_of_a_segmentor_reaches_the_backbone(tmp_path: Path) -> None:
    init_default_scope('mmseg')
    weights = tmp_path / 'base.pth'
    torch.save(MODELS.build(tiny_model()['backbone']).state_dict(), weights)
    cfg = tiny_model()
    tuned = dict(type='mmgps.TunedBackbone', backbone=cfg['backbone'], method=dict(type='mmgps.LoRA', rank=2))
    model = MODELS.build(ConfigDict(cfg, backbone=tuned, pretrained=str(weights)))
    model.init_weights()
    found = {name: value for name, value in model.backbone.state_dict().items() if '.lora.' not in name}
    assert_same_bits(found, torch.load(weights, weights_only=True))
