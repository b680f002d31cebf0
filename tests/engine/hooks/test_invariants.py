"""Unselected numbers stay bit-identical, whatever trains the rest."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny import PIPELINE, base_state, frozen_numbers, state_of, tiny_config, tiny_model, train

from mmgps.selection import load_selection
from mmgps.tuning import count_parts

ADAMW = dict(type='AdamW', lr=1e-2, weight_decay=0.05)
WRAPPERS = {
    'adamw': dict(optimizer=ADAMW),
    'adamw-clip': dict(optimizer=ADAMW, clip_grad=dict(max_norm=0.1)),
    'sgd-momentum': dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.05)),
    'accumulation': dict(optimizer=ADAMW, accumulative_counts=2),
    'paramwise': dict(
        optimizer=ADAMW, paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.5)))
    ),
}


@HOOKS.register_module(force=True)
class DrawBefore(Hook):
    """Advance the random state before the selection pass, as another initialization of the model would."""

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        torch.rand(1)


def test_the_selection_does_not_depend_on_what_was_drawn_before(tmp_path: Path) -> None:
    found = []
    for name, hooks in {'plain': [], 'drawn': [dict(type='DrawBefore')]}.items():
        cfg = tiny_config(tmp_path / name, max_iters=1)
        cfg.custom_hooks += hooks
        train(cfg)
        found.append(load_selection(tmp_path / name / 'selection.safetensors').connections)
    for name, connections in found[0].items():
        assert torch.equal(connections.positions, found[1][name].positions), name


@pytest.mark.parametrize('sparse', ['CompactTraining', 'MaskedTraining'])
@pytest.mark.parametrize('ema', [False, True], ids=['plain', 'ema'])
@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_frozen_numbers_are_bit_identical(wrapper: str, ema: bool, sparse: str, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path / 'run', optim_wrapper=dict(type='mmgps.GPSOptimWrapper', **WRAPPERS[wrapper]))
    cfg.custom_hooks[0].sparse = dict(type=sparse)
    if ema:
        cfg.custom_hooks.append(dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.3))
    base = base_state(cfg)
    runner = train(cfg)
    states = {'model': state_of(runner)}
    checkpoint = torch.load(tmp_path / 'run/iter_6.pth', weights_only=True)
    states['checkpoint'] = checkpoint['state_dict']
    if ema:
        states['ema'] = {
            name.removeprefix('module.'): value
            for name, value in checkpoint['ema_state_dict'].items()
            if name.startswith('module.')
        }
    frozen = frozen_numbers(runner, tmp_path / 'run')
    for where, state in states.items():
        assert state.keys() == base.keys(), where
        moved = 0
        for name, mask in frozen.items():
            after, before = state[f'backbone.{name}'], base[f'backbone.{name}']
            assert after.shape == before.shape
            assert torch.equal(after[mask], before[mask]), (where, name)
            moved += int((after[~mask] != before[~mask]).sum())
        assert moved > 0.9 * sum(int((~mask).sum()) for mask in frozen.values()), where
    assert not torch.equal(state['decode_head.conv_seg.weight'], base['decode_head.conv_seg.weight'])


@pytest.mark.parametrize(
    ('method', 'roles'),
    [('FullTuning', None), ('LinearProbe', set()), ('BiasTuning', {'bias', 'norm'})],
)
def test_simple_methods_train_what_they_say(method: str, roles: set | None, tmp_path: Path) -> None:
    from mmgps.selection import describe

    cfg = tiny_config(tmp_path, custom_hooks=[dict(type='mmgps.TuneHook', method=dict(type=f'mmgps.{method}'))])
    cfg.optim_wrapper.type = 'OptimWrapper'
    base, runner = base_state(cfg), None
    runner = train(cfg)
    moved = {
        name: entry
        for name, entry in describe(runner.model.backbone).items()
        if not torch.equal(entry.value, base[f'backbone.{name}'])
    }
    trained = {name for name, value in runner.model.backbone.named_parameters() if value.requires_grad}
    if roles is None:
        assert trained == set(describe(runner.model.backbone))
        assert len(moved) > 0.8 * len(trained)
    else:
        assert moved.keys() <= trained
        assert {entry.role.value for entry in moved.values()} == roles
        assert all(entry.is_bias for entry in moved.values())
    held = {id(value) for group in runner.optim_wrapper.param_groups for value in group['params']}
    assert held == {id(value) for value in runner.model.parameters() if value.requires_grad}


def test_what_the_user_froze_stays_frozen(tmp_path: Path) -> None:
    model = tiny_model(frozen_exclude=['layers.1.attn'])
    cfg = tiny_config(tmp_path, model=model)
    runner = train(cfg)
    selection = load_selection(tmp_path / 'selection.safetensors')
    names = [*selection.connections, *selection.whole]
    assert names
    assert all(name.startswith('layers.1.attn') for name in names)
    [backbone] = [count for count in count_parts(runner.model, 'backbone', selection) if count.part == 'backbone']
    assert backbone.trained == len(selection) + sum(
        value.numel() for name, value in runner.model.backbone.named_parameters() if name in selection.whole
    )


def test_zero_steps_change_nothing_and_selection_leaves_no_trace(tmp_path: Path) -> None:
    """A run that selects ends with the same head as a run with that selection file."""
    cfg = tiny_config(tmp_path / 'a')
    first = state_of(train(cfg))
    again = tiny_config(tmp_path / 'b')
    again.custom_hooks = [
        dict(type='mmgps.GPSHook', k=1, selection=str(tmp_path / 'a/selection.safetensors')),
        dict(type='mmgps.ExactResumeHook'),
    ]
    second = state_of(train(again))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_selection_without_the_resume_hook_leaves_the_order_of_training_alone(tmp_path: Path) -> None:
    """The selection pass does not affect mmengine's loader and random state."""
    finals = []
    for name, selection in (('a', None), ('b', str(tmp_path / 'a/selection.safetensors'))):
        cfg = tiny_config(tmp_path / name, custom_hooks=[dict(type='mmgps.GPSHook', k=1, selection=selection)])
        finals.append(state_of(train(cfg)))
    assert [name for name in finals[0] if not torch.equal(finals[0][name], finals[1][name])] == []


def test_the_pass_sees_all_training_data_once_through_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny

    drawn = []
    original = tiny.DrawTiny.transform
    monkeypatch.setattr(
        tiny.DrawTiny, 'transform', lambda self, results: (drawn.append(results['number']), original(self, results))[1]
    )
    cfg = tiny_config(tmp_path, max_iters=0)
    assert cfg.train_dataloader.dataset.pipeline == PIPELINE
    train(cfg)
    assert sorted(drawn) == list(range(16))
    drawn.clear()
    cfg = tiny_config(tmp_path / 'part', max_iters=0)
    cfg.custom_hooks[0].num_batches = 2
    train(cfg)
    assert len(set(drawn)) == 8


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_compact_equals_masked_in_a_runner(wrapper: str, tmp_path: Path) -> None:
    states, bytes_ = [], []
    for sparse in ('CompactTraining', 'MaskedTraining'):
        options = dict(type='mmgps.GPSOptimWrapper', **WRAPPERS[wrapper])
        cfg = tiny_config(tmp_path / sparse, optim_wrapper=options)
        cfg.custom_hooks[0].sparse = dict(type=sparse)
        runner = train(cfg)
        states.append(state_of(runner))
        moments = runner.optim_wrapper.optimizer.state.values()
        bytes_.append(sum(value.numel() for state in moments for value in state.values() if torch.is_tensor(value)))
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=2e-4, atol=2e-5, msg=name)
    assert bytes_[0] < 0.6 * bytes_[1]
