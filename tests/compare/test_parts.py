"""Parts of a comparison: names, rates, the split, the schedule, metrics and costs."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmgps.compare import grids_of, parse_assignments, parse_candidate, read_costs
from mmgps.compare.candidates import set_rate
from mmgps.compare.runs import stated_options
from mmgps.compare.table import METRICS, leading, present
from mmgps.compare.trials import hold_out, positions, shorten, split


def test_a_candidate() -> None:
    found = parse_candidate('gps:k=5,full_roles=()')
    assert (found.label, found.name, dict(found.options)) == (
        'gps:k=5,full_roles=()',
        'gps',
        {'k': 5, 'full_roles': ()},
    )
    assert '/' not in parse_candidate('gps:k=5').folder
    assert parse_candidate('bias').options == ()


@pytest.mark.parametrize(
    ('text', 'options'),
    [
        ('lora:parts=qkv,proj', {'parts': ('qkv', 'proj')}),
        ('lora:parts=qkv,proj,rank=4', {'parts': ('qkv', 'proj'), 'rank': 4}),
        ('lora:parts=[qkv,proj],rank=4', {'parts': ('qkv', 'proj'), 'rank': 4}),
        ('lora:parts=["qkv", "proj"]', {'parts': ('qkv', 'proj')}),
        ('lora:parts=qkv', {'parts': 'qkv'}),
        ("gps:full_roles=('bias','scale'),k=2", {'full_roles': ('bias', 'scale'), 'k': 2}),
        ('gps:full_roles=(bias,),k=2', {'full_roles': ('bias',), 'k': 2}),
        ('gps:full_roles=bias', {'full_roles': 'bias'}),
        ('spt-lora:budget=1e-2', {'budget': 0.01}),
    ],
)
def test_options_of_several_values(text: str, options: dict) -> None:
    assert dict(parse_candidate(text).options) == options


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('gps:full_roles=(bias', r"'full_roles=\(bias': expected '\)' at the end"),
        ('gps:full_roles="bias', r"""expected '"' at the end"""),
        ('gps:full_roles=bias]', r"'\]' closes no bracket"),
        ('gps:k=5,6', r'at least 1, got \(5, 6\)'),
        ('lora:parts=qkv,nose', r"parts names one or more of .*got \['qkv', 'nose'\]"),
        ('gsp', r"unknown method 'gsp', .*nearest: gps"),
        ('gps:k', r"'k' is no option of a method; write KEY=VALUE"),
    ],
)
def test_a_wrong_candidate(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_candidate(text)


def test_assignments() -> None:
    candidates = [parse_candidate(text) for text in ('gps', 'gps:k=5', 'full')]
    found = parse_assignments(['gps=3e-3,1e-3', 'gps:k=5=0.1'], candidates)
    assert found == {'gps': (1e-3, 3e-3), 'gps:k=5': (0.1,)}
    assert parse_assignments(['gps=1'], candidates) == {'gps': (1,), 'gps:k=5': (1,)}
    with pytest.raises(ValueError, match=r"'bias', which is not among the compared methods"):
        parse_assignments(['bias=1e-3'], candidates)
    for wrong in ('gps', 'gps=', 'gps=fast', 'gps=0', 'gps=-1', 'gps=nan', 'gps=inf'):
        with pytest.raises(ValueError, match='expected METHOD=RATE'):
            parse_assignments([wrong], candidates)


def test_the_same_number_of_rates_for_every_method() -> None:
    candidates = [parse_candidate(text) for text in ('gps', 'full', 'linear', 'bias')]
    grids = grids_of(candidates, {}, {'bias': (1e-3,)})
    assert grids == {'gps': (1e-3, 3e-3, 1e-2), 'full': (3e-5, 1e-4, 3e-4), 'linear': (3e-3, 1e-2, 3e-2)}
    with pytest.raises(ValueError, match='the same number of rates to try, found gps 2, full 3, linear 3, bias 3'):
        grids_of(candidates, {'gps': (1, 2)}, {})
    with pytest.raises(ValueError, match='--lr takes one rate, got 2 for gps'):
        grids_of(candidates, {}, {'gps': (1, 2)})


def test_rates_leave_other_entries_alone(config: Config) -> None:
    keys = {'head': dict(lr_mult=2.0), 'backbone.norm': dict(decay_mult=0.0)}
    config.optim_wrapper.paramwise_cfg = dict(custom_keys=keys, norm_decay_mult=0.0)
    set_rate(config, parse_candidate('gps'), 2e-3, 'backbone')
    assert config.optim_wrapper.optimizer.lr == 1e-2
    assert config.optim_wrapper.paramwise_cfg == dict(
        custom_keys={
            'head': dict(lr_mult=2.0),
            'backbone.norm': dict(decay_mult=0.0, lr_mult=0.2),
            'backbone': dict(lr_mult=0.2),
        },
        norm_decay_mult=0.0,
    )
    config.optim_wrapper.optimizer.pop('lr')
    with pytest.raises(ValueError, match=r'optim_wrapper\.optimizer\.lr is not set'):
        set_rate(config, parse_candidate('gps'), 2e-3, 'backbone')


def test_split() -> None:
    kept, held = split(80, 0.125, 0)
    assert len(held) == 10
    assert sorted(kept + held) == list(range(80))
    assert (kept, held) == split(80, 0.125, 0)
    assert held != split(80, 0.125, 1)[1]
    assert held != list(range(70, 80))
    for share in (0.0, 1.0, 0.001):
        with pytest.raises(ValueError, match='choose --holdout'):
            split(80, share, 0)


@pytest.mark.parametrize(
    ('indices', 'expected'), [(None, range(16)), (5, range(5)), (-5, range(11, 16)), ([7, 3], [7, 3])]
)
def test_positions(indices, expected, config: Config) -> None:
    """A config that trains on a part of the images holds out images from this part."""
    config.train_dataloader.dataset.indices = indices
    assert positions(config) == list(expected)


def test_hold_out_within_a_wrapper(config: Config) -> None:
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=config.train_dataloader.dataset)
    config.val_dataloader.dataset.pipeline = [dict(type='DrawTiny'), dict(type='PackSegInputs')]
    assert positions(config) == list(range(16))
    hold_out(config, ([0, 2], [1]))
    assert config.train_dataloader.dataset.dataset.indices == [0, 2]
    assert config.val_dataloader.dataset.indices == [1]
    assert 'times' not in config.val_dataloader.dataset
    assert [step.type for step in config.val_dataloader.dataset.pipeline] == ['DrawTiny', 'PackSegInputs']
    assert config.train_dataloader.dataset.dataset.pipeline[1].type == 'RandomFlip'
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[])
    with pytest.raises(ValueError, match='consists of several sets'):
        positions(config)


def test_a_shorter_schedule_keeps_its_shape() -> None:
    """8 epochs of 110 iterations become 4 epochs of 96 or 97."""
    cfg = Config(dict(
        train_cfg=dict(max_epochs=8),
        param_scheduler=[
            dict(type='LinearLR', by_epoch=False, begin=0, end=50),
            dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=880, T_max=830),
            dict(type='MultiStepLR', milestones=[4, 6]),
            dict(type='LinearLR', begin=0, end=0.455, convert_to_iter_based=True),
            dict(type='mmgps.WarmUpCosineLR', warm_up=50, convert_to_iter_based=True),
        ],
    ))  # fmt: skip
    shorten(cfg, 0.5, 0.875)
    assert cfg.train_cfg.max_epochs == 4
    warm, cosine, steps, in_parts, both = cfg.param_scheduler
    assert (warm.begin, warm.end, cosine.begin, cosine.end, cosine.T_max) == (0, 22, 22, 385, 363)
    assert steps.milestones == [2, 3]
    assert (in_parts.begin, in_parts.end) == (0, 0.2275)
    assert (both.warm_up, 'end' in both) == (22, False)


def test_a_shorter_loop_over_iterations() -> None:
    """Fewer images do not reduce the number of iterations."""
    cfg = Config(dict(train_cfg=dict(max_iters=400), param_scheduler=dict(type='PolyLR', by_epoch=False, end=400)))
    shorten(cfg, 0.5, 0.875)
    assert (cfg.train_cfg.max_iters, cfg.param_scheduler.end) == (200, 200)
    for share in (0, 1.5):
        with pytest.raises(ValueError, match='set --trial-share'):
            shorten(cfg, share, 1)


def test_metrics() -> None:
    polyps = {'aAcc': 98.0, 'mIoU': 70.0, 'mDice': 80.0, 'Dice': 75.0}
    assert [metric.key for metric in present([polyps])] == ['dice', 'mdice', 'miou']
    assert leading([polyps]).of(polyps) == 75.0
    assert leading([{'accuracy/top1': 91.0}]).key == 'top1'
    assert METRICS[0].of({'colon/Dice': 60.0}) == 60.0
    assert METRICS[0].of({'mDice': 60.0}) is None
    with pytest.raises(ValueError, match='prints mAP; expected one of Dice, '):
        leading([{'mAP': 1.0}])


def test_costs(tmp_path: Path) -> None:
    path = tmp_path / 'costs.json'
    path.write_text(json.dumps({'methods': {
        'full': dict(step_s=2.0, peak_bytes=8), 'gps-compact-k1': dict(step_s=1.0, peak_bytes=None),
        'gps-compact-k5': dict(step_s=1.5, peak_bytes=6), 'lora-r8': dict(step_s=1.6, peak_bytes=7),
    }}))  # fmt: skip
    candidates = [parse_candidate(text) for text in ('full', 'gps', 'gps:k=5', 'bias')]
    assert read_costs(path, candidates) == {
        'full': dict(step_s=2.0, peak_bytes=8), 'gps': dict(step_s=1.0), 'gps:k=5': dict(step_s=1.5, peak_bytes=6),
    }  # fmt: skip
    with pytest.raises(ValueError, match='but of no compared method'):
        read_costs(path, candidates[3:])
    path.write_text('{}')
    with pytest.raises(ValueError, match='has no "methods"'):
        read_costs(path, candidates)


def test_stated_options_hide_paths() -> None:
    assert stated_options({'a.checkpoint': '/data/of/me/w.pth', 'b': 3}) == {'cfg_options': 'a.checkpoint=w.pth b=3'}
