"""A run with NaN ends with an error that names the cause, and no checkpoint holds NaN."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny import tiny_config, train

from mmgps.engine.resuming.checkpoints import DivergedError


@HOOKS.register_module(force=True)
class Spoil(Hook):
    """Make the loss or a parameter NaN before iteration ``at``."""

    def __init__(self, at: int, what: str) -> None:
        self.at, self.what = at, what

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        head = runner.model.decode_head
        if self.what == 'loss':
            head.loss_decode.loss_weight = float('nan') if runner.iter == self.at else 1.0
        elif runner.iter == self.at:
            head.conv_seg.bias.data[0] = torch.nan if self.what == 'parameter' else torch.inf


@pytest.mark.parametrize('method', ['GPS', 'FullTuning'])
def test_a_loss_of_nan_ends_the_run_at_once(method: str, tmp_path: Path) -> None:
    hooks = [dict(type='mmgps.TuneHook', method=dict(type=f'mmgps.{method}')), dict(type='mmgps.ExactResumeHook')]
    cfg = tiny_config(tmp_path, custom_hooks=[*hooks, dict(type='Spoil', at=4, what='loss')])
    with pytest.raises(DivergedError, match=r"loss is nan in iteration 5 and \d+ of \d+ parameters .* first '"):
        train(cfg)
    assert (tmp_path / 'last_checkpoint').read_text().endswith('iter_4.pth')
    assert all(
        value.isfinite().all()
        for path in tmp_path.glob('*.pth')
        for value in torch.load(path, weights_only=True)['state_dict'].values()
    )


def test_a_loss_of_nan_that_spoils_nothing_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss scaler skips such a step."""
    from mmgps.engine import GPSOptimWrapper

    step = GPSOptimWrapper.update_params
    monkeypatch.setattr(GPSOptimWrapper, 'update_params', lambda self, loss: loss.isfinite() and step(self, loss))
    cfg = tiny_config(tmp_path)
    cfg.custom_hooks.append(dict(type='Spoil', at=4, what='loss'))
    assert train(cfg).iter == 6


@pytest.mark.parametrize('what', ['parameter', 'infinity'])
def test_no_checkpoint_holds_a_parameter_that_is_no_number(what: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr('mmgps.engine.resuming.exact_resume_hook.check_loss', lambda *args: None)
    cfg = tiny_config(tmp_path)
    cfg.custom_hooks.append(dict(type='Spoil', at=5, what=what))
    with pytest.raises(DivergedError, match=r'parameters hold NaN or infinity, first .* No checkpoint of it is'):
        train(cfg)
    assert (tmp_path / 'last_checkpoint').read_text().endswith('iter_4.pth')
    assert not (tmp_path / 'iter_6.pth').exists()
