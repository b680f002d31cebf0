"""Real runs of a comparison: their data, their results, and resuming after a kill."""

import json
import os
import signal
from pathlib import Path

import pytest
import tiny
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import IterBasedTrainLoop

import mmgps.engine.hooks.before_after_hook as before_after_hook
from mmgps.compare import parse_candidate
from mmgps.compare.child import has_checkpoint, train
from mmgps.compare.runs import Run, Settings
from mmgps.engine.resuming.checkpoints import DivergedError

HEAD = 8 * 16 * 9 + 2 * 8 + (8 + 1) * 2
NEURONS = 240


@pytest.fixture
def run(config: Config, tmp_path: Path):
    """Make a run in the folder ``name``."""

    def make(method: str = 'gps', trial: bool = False, name: str = 'runs', rate: float = 3e-3, **changes) -> Run:
        config.experiment_name = f'{tmp_path.name}-{name}-{method}'  # one logger per name in a process
        candidate = parse_candidate(method)
        settings = Settings(config, name, [candidate], [0], {}, {}, tmp_path / name, share=0.25, **changes)
        found = settings.trial(candidate, rate) if trial else settings.final(candidate, rate, 0)
        found.prepare()
        return found

    return make


class Killed(BaseException):
    """Simulates SIGKILL, which the test process would not survive."""


def stop_before(iteration: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = IterBasedTrainLoop.run_iter

    def stopping(self, batch) -> None:
        if self._iter == iteration:
            raise Killed
        original(self, batch)

    monkeypatch.setattr(IterBasedTrainLoop, 'run_iter', stopping)


def test_a_trial_reads_no_image_of_the_validation_set(run, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The validation set cannot even be built here. The images that score the trial neither train it nor select."""
    seen: list[int] = []
    transform = tiny.DrawTiny.transform
    monkeypatch.setattr(
        tiny.DrawTiny, 'transform', lambda self, results: (seen.append(results['number']), transform(self, results))[1]
    )
    config.val_dataloader.dataset.type = 'NotThere'
    config.test_dataloader = config.val_dataloader
    config.test_evaluator, config.test_cfg = config.val_evaluator, dict(type='TestLoop')
    trial = run(trial=True)
    train(trial.folder)
    held = Config.fromfile(trial.folder / 'config.py').val_dataloader.dataset.indices
    assert len(held) == 4
    assert seen[-4:] == held
    assert set(seen[:-4]) == set(range(16)) - set(held)
    assert trial.result()['metrics']['mDice'] > 0
    with pytest.raises(KeyError, match='NotThere'):
        train(run(name='final').folder)


def test_result(run) -> None:
    done = run('gps')
    train(done.folder)
    found = done.result()
    assert (found['trained'], found['backbone_trained']) == (HEAD + 2 * NEURONS, 2 * NEURONS)
    assert found['total'] == found['backbone_total'] + HEAD
    assert 0 < found['step_s'] < 60
    assert found['peak_bytes'] > 2**26
    assert found['iterations'] == 4
    assert {'Dice', 'IoU', 'mDice'} <= found['metrics'].keys()
    assert {'machine', 'commit', 'torch', 'mmengine', 'mmcv', 'mmseg', 'threads'} <= found.keys()


@pytest.mark.parametrize('method', ['full', 'linear', 'bias'])
def test_numbers_of_other_methods(method: str, run) -> None:
    done = run(method)
    train(done.folder)
    found = done.result()
    expected = {'full': found['backbone_total'], 'linear': 0, 'bias': NEURONS + 4 * 16}[method]
    assert (found['trained'], found['backbone_trained']) == (HEAD + expected, expected)


def test_a_trial_that_diverges_has_a_result_without_scores(run) -> None:
    trial = run(trial=True, rate=1e25)
    train(trial.folder)
    result = trial.result()
    assert (result['metrics'], result['lr']) == ({}, 1e25)
    assert 'NaN or infinity' in result['diverged']
    with pytest.raises(DivergedError):
        train(run(rate=1e25, name='final').folder)


def test_a_killed_run_resumes_from_its_checkpoint(run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = run(name='whole'), run(name='cut')
    train(whole.folder)
    with monkeypatch.context() as patch:
        stop_before(3, patch)
        with pytest.raises(Killed):
            train(cut.folder)
    assert cut.result() is None
    assert has_checkpoint(cut.folder)
    steps = []
    original = IterBasedTrainLoop.run_iter
    monkeypatch.setattr(
        IterBasedTrainLoop, 'run_iter', lambda self, batch: (steps.append(self._iter), original(self, batch))
    )
    train(cut.folder)
    assert steps == [2, 3]
    assert cut.result()['metrics'] == whole.result()['metrics']
    saved = tiny.torch.load(cut.folder / 'iter_4.pth', weights_only=True)['mmgps_cost']
    assert len(saved['times']) == 4


def test_killed_after_the_last_checkpoint_and_before_the_score(run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = run(name='whole'), run(name='cut')
    train(whole.folder)
    original = CheckpointHook._save_checkpoint

    def saving(self, runner) -> None:
        original(self, runner)
        if runner.iter == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointHook, '_save_checkpoint', saving)
        with pytest.raises(Killed):
            train(cut.folder)
    train(cut.folder)
    assert cut.result()['metrics'] == whole.result()['metrics']
    assert cut.result()['step_s'] > 0


def test_killed_while_a_checkpoint_was_written(run) -> None:
    """The run starts anew if the note of the last checkpoint is empty or names a missing file."""
    done = run()
    for note in ('', str(done.folder / 'iter_2.pth')):
        (done.folder / 'last_checkpoint').write_text(note)
        assert not has_checkpoint(done.folder)
    train(done.folder)
    assert done.result()['iterations'] == 4


@pytest.mark.parametrize('place', ['default_hooks', 'custom_hooks'])
def test_nothing_is_scored_before_training(place: str, run, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a run covers selecting and training only."""
    hook = dict(type='mmgps.BeforeAfterHook')
    if place == 'default_hooks':
        config.default_hooks.scores = hook
    else:
        config.custom_hooks = [*config.get('custom_hooks', []), hook]
    monkeypatch.setattr(before_after_hook, 'evaluate', lambda runner: pytest.fail('scored before training'))
    for trial in (True, False):
        done = run('linear', trial)
        train(done.folder)
        assert done.result()['peak_bytes'] > 0


def test_the_rate_applies_to_the_backbone_and_the_head_keeps_its_own(run) -> None:
    done = run('bias', rate=2e-4)
    train(done.folder)
    saved = tiny.torch.load(done.folder / 'iter_4.pth', weights_only=True)
    rates = {group['initial_lr'] for group in saved['optimizer']['param_groups'] if group['params']}
    assert sorted(rates) == pytest.approx([2e-4, 1e-2])


def test_the_rate_of_linear_probing_applies_to_the_head(run) -> None:
    done = run('linear', rate=2e-4)
    train(done.folder)
    saved = tiny.torch.load(done.folder / 'iter_4.pth', weights_only=True)
    assert {group['initial_lr'] for group in saved['optimizer']['param_groups'] if group['params']} == {2e-4}


def test_a_config_that_sets_another_rate_is_refused(run, config: Config) -> None:
    config.optim_wrapper.paramwise_cfg = dict(custom_keys={'layers.0.attn': dict(lr_mult=5.0)})
    with pytest.raises(ValueError, match=r'parameters of backbone train at 0.05 instead of the compared rate 0.003'):
        train(run('bias').folder)


@pytest.mark.slow
def test_a_run_survives_sigkill(config: Config, tmp_path: Path) -> None:
    """SIGKILL ends one process in the middle, and another one resumes the run."""
    import sys

    from mmgps.compare.processes import start

    config.train_cfg.max_iters = 60
    candidate = parse_candidate('gps')
    one = Settings(config, 'tiny', [candidate], [0], {}, {}, tmp_path).final(candidate, 3e-3, 0)
    environment = os.pathsep.join([str(Path(tiny.__file__).parent), *sys.path])
    with pytest.MonkeyPatch.context() as patch, (tmp_path / 'lock').open('w') as lock:
        patch.setenv('PYTHONPATH', environment)
        process = start(one, 1, lock.fileno())
        while not has_checkpoint(one.folder):
            assert process.poll() is None, one.log.read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert one.result() is None
        assert start(one, 1, lock.fileno()).wait() == 0, one.log.read_text()
    assert one.result()['iterations'] == 60
    assert json.loads((one.folder / 'run.json').read_text())['digest'] == one.digest
