"""``runner.val()`` alone, and before ``runner.train()``."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from resuming import SCORES, Watch, by_epochs, train_four_epochs, validated
from tiny import assert_same_bits, state_of, train

import mmgps.engine.hooks.tune_hook as tune_hook


@pytest.fixture(scope='module')
def four_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_four_epochs(tmp_path_factory.mktemp('four'))


@pytest.mark.parametrize('exact', [True, False])
@pytest.mark.parametrize('stopping', [False, True], ids=['', 'stopping'])
def test_a_validation_before_training_resumes_nothing_less(
    stopping: bool, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One runner validates, then trains."""

    def config(name: str) -> Config:
        cfg = validated(by_epochs(tmp_path / name), SCORES)
        cfg.custom_hooks = cfg.custom_hooks if exact else [cfg.custom_hooks[0], *cfg.custom_hooks[2:]]
        if stopping:
            cfg.custom_hooks = [
                *cfg.custom_hooks,
                dict(type='EarlyStoppingHook', monitor='score', rule='greater', patience=99),
            ]
        return cfg

    whole = train(config('whole'))
    checkpoint = torch.load(tmp_path / 'whole/epoch_2.pth', weights_only=True)
    monkeypatch.setattr(tune_hook, 'select', lambda *args: pytest.fail('selected anew'))
    cfg = config('resumed')
    cfg.resume, cfg.load_from = True, str(tmp_path / 'whole/epoch_2.pth')
    runner = Runner.from_cfg(cfg)
    runner.val()
    steps: list[float] = []
    monkeypatch.setattr(Watch, 'before_train', lambda self, runner: steps.append(steps_of(runner)))
    runner.train()
    assert steps == [max(float(each['step']) for each in checkpoint['optimizer']['state'].values())]
    assert runner.epoch == 4
    if exact:
        assert_same_bits(state_of(runner), state_of(whole))


def steps_of(runner: Any) -> float:
    return max((float(each['step']) for each in runner.optim_wrapper.optimizer.state.values()), default=0.0)


def test_validating_before_training_starts_from_the_weights_of_load_from(four_epochs: Path, tmp_path: Path) -> None:
    """mmengine would initialize the weights again after loading them."""
    cfg = validated(by_epochs(tmp_path, 0), SCORES)
    cfg.load_from = str(four_epochs / 'epoch_4.pth')
    runner = Runner.from_cfg(cfg)
    runner.val()
    runner.train()
    assert_same_bits(state_of(runner), torch.load(four_epochs / 'epoch_4.pth', weights_only=True)['state_dict'])


@pytest.mark.parametrize('save_best', [None, 'score'])
def test_validating_alone(save_best: str | None, tmp_path: Path) -> None:
    cfg = validated(by_epochs(tmp_path, 1), SCORES)
    cfg.default_hooks.checkpoint.update(save_best=save_best, rule=save_best and 'greater')
    runner = Runner.from_cfg(cfg)
    assert 'mIoU' in runner.val()
    runner.train()
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert (tmp_path / 'best_score_epoch_1.pth').is_file() == bool(save_best)
