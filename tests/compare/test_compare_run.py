"""Flow of a comparison: its runs, repetitions and failures."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_child
import pytest
from mmengine.config import Config

from mmgps.compare import RunFailedError, run_comparison, text_of
from mmgps.compare.processes import locked


def calls(settings) -> list[str]:
    path = settings.work_dir / 'runs/calls.txt'
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def test_every_method_has_its_trials_and_then_its_seeds_at_the_best_rate(settings) -> None:
    chosen = settings('full', 'gps', lrs=['full=3e-5,1e-4,3e-4', 'gps=1e-3,3e-3,1e-2'])
    found = run_comparison(chosen)
    trials = ['full/trial_3e-05', 'full/trial_0.0001', 'full/trial_0.0003', 'gps/trial_0.001', 'gps/trial_0.003',
              'gps/trial_0.01']  # fmt: skip
    assert calls(chosen) == [*trials, 'full/seed0', 'gps/seed0', 'full/seed1', 'gps/seed1']
    assert [(row['method'], row['seed'], row['lr']) for row in found.rows] == [
        ('full', 0, 3e-4), ('full', 1, 3e-4), ('gps', 0, 3e-3), ('gps', 1, 3e-3),
    ]  # fmt: skip
    kept = {path.parent.name.rpartition('-')[0] for path in chosen.work_dir.rglob('*.pth')}
    assert kept == {'seed0', 'seed1'}


@pytest.mark.parametrize('on_holdout', [False, True])
def test_runs_are_scored_on_held_out_images_if_asked(on_holdout: bool, settings) -> None:
    chosen = settings('gps', on_holdout=on_holdout, share=0.5, trial_share=0.25)
    found = run_comparison(chosen)
    configs = [Config.fromfile(path) for path in sorted(chosen.work_dir.rglob('config.py'))]
    assert [cfg.randomness.seed for cfg in configs] == [0, 1, 0, 0, 0]
    assert [cfg.train_cfg.max_iters for cfg in configs] == [4, 4, 1, 1, 1]
    sets = [tuple(cfg[f'{part}_dataloader'].dataset.get('indices') for part in ('train', 'val')) for cfg in configs]
    kept, held = sets[-1]
    assert sorted(kept + held) == list(range(16))
    assert sets[:2] == ([(kept, held)] if on_holdout else [(None, None)]) * 2
    place = 'held-out training images' if on_holdout else 'validation set'
    assert f'of the last step on the {place}, ' in text_of(found)


def test_finished_runs_are_not_repeated(settings) -> None:
    first = settings('bias', lr=['bias=3e-3'], seeds=[0])
    run_comparison(first)
    again = settings('bias', 'gps', lr=['bias=3e-3', 'gps=1e-3'], seeds=[0, 1])
    found = run_comparison(again)
    assert calls(first) == ['bias/seed0', 'gps/seed0', 'bias/seed1', 'gps/seed1']
    assert len(found.rows) == 4


@pytest.mark.parametrize('content', ['', '{"metrics": {"Dice"', '{"digest": "of others", "metrics": {}}'])
def test_a_damaged_or_foreign_result_counts_as_none(content: str, settings) -> None:
    chosen = settings('bias', lr=['bias=3e-3'], seeds=[0])
    run_comparison(chosen)
    [path] = chosen.work_dir.rglob('result.json')
    path.write_text(content)
    assert len(run_comparison(chosen).rows) == 1
    assert calls(chosen) == ['bias/seed0'] * 2


@pytest.mark.parametrize(
    ('change', 'anew'),
    [
        (dict(), False),
        (dict(lr=['gps=1e-3']), True),
        (dict(iterations=3), True),
        (dict(method='gps:k=2'), True),
        (dict(decay=0.1), True),
    ],
)
def test_changed_settings_are_noticed(change: dict, anew: bool, settings, config, caplog) -> None:
    run_comparison(settings('gps', lr=['gps=3e-3'], seeds=[0]))
    config.train_cfg.max_iters = change.get('iterations', 4)
    config.optim_wrapper.optimizer.weight_decay = change.get('decay', 0.05)
    changed = settings(change.get('method', 'gps'), lr=change.get('lr', ['gps=3e-3']), seeds=[0])
    found = run_comparison(changed)
    assert len(calls(changed)) == 1 + anew
    assert len(found.rows) == 1
    assert len(list(changed.work_dir.rglob('result.json'))) == 1 + anew


def test_a_failing_run_names_its_log_and_the_others_continue(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings('full', 'bias', 'gps', lr=['bias=1e-3'])
    monkeypatch.setenv('FAKE_FAIL', 'bias')
    with pytest.raises(RunFailedError, match=r'^2 runs failed') as error:
        run_comparison(chosen)
    for seed in (0, 1):
        log = next(chosen.work_dir.glob(f'runs/bias/seed{seed}-*/log.txt'))
        assert f'bias, seed {seed} at 0.001: exited with 1; its log is {log}' in str(error.value)
    assert 'which ends: ValueError: no such luck' in str(error.value)
    rows = json.loads((chosen.work_dir / 'table.json').read_text())['rows']
    assert [row['method'] for row in rows] == ['full', 'full', 'gps', 'gps']
    monkeypatch.delenv('FAKE_FAIL')
    assert len(run_comparison(chosen).rows) == 6


def test_a_failed_trial_prevents_the_final_runs_of_its_method(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings('bias', 'gps')
    monkeypatch.setenv('FAKE_FAIL', 'gps')
    with pytest.raises(RunFailedError, match=r'3 runs failed(.|\n)*gps, trial of 0.001: exited with 1'):
        run_comparison(chosen)
    assert not any(call.startswith('gps/seed') for call in calls(chosen))
    assert calls(chosen).count('bias/seed1') == 1


def test_a_rate_that_diverges_is_the_worst(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('FAKE_DIVERGE', '3e-3')
    found = run_comparison(settings('gps', seeds=[0]))
    assert [row['lr'] for row in found.rows] == [1e-3]
    assert [trial['score'] for trial in found.trials[1:]] == [None, None]
    assert '0.003: -' in text_of(found)


def test_rates_that_all_diverge_are_named(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('FAKE_DIVERGE', '1e-3')
    with pytest.raises(RunFailedError, match=r'gps: training diverged at each of the rates 0.001, 0.003, 0.01.*--lrs'):
        run_comparison(settings('gps', 'bias', lr=['bias=1e-3'], seeds=[0]))


def test_simultaneous_jobs(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the four runs waits until all have started."""
    monkeypatch.setenv('FAKE_TOGETHER', '4')
    chosen = settings('bias', 'gps', lr=['bias=3e-3', 'gps=3e-3'], jobs=4)
    run_comparison(chosen)
    assert sorted(calls(chosen)) == ['bias/seed0', 'bias/seed1', 'gps/seed0', 'gps/seed1']


def test_one_comparison_at_a_time_in_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RuntimeError, match='another comparison runs in'), locked(tmp_path, 0.0):
        pass
    with locked(tmp_path, 0.0):
        pass


PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE)
time.sleep(60)
"""


def test_a_run_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Even if SIGKILL gives the parent no chance to react."""
    folder = tmp_path / 'runs/bias/seed0-x'
    folder.mkdir(parents=True)
    (folder / 'run.json').write_text(json.dumps(dict(method='bias', lr=1e-3, seed=0)))
    command = [sys.executable, '-c', PARENT, fake_child.__file__, str(folder)]
    parent = subprocess.Popen(command, env={**os.environ, 'FAKE_SLEEP': '60'})
    notes = tmp_path / 'runs/calls.txt'
    wait_until(lambda: notes.exists() and len(notes.read_text().split()) == 2)
    child = int(notes.read_text().split()[1])
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not alive(child))


def alive(process: int) -> bool:
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def wait_until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_repeated_methods_and_seeds(settings) -> None:
    with pytest.raises(ValueError, match='a method is named twice in bias, bias'):
        run_comparison(settings('bias', 'bias'))
    with pytest.raises(ValueError, match='a seed is named twice'):
        run_comparison(settings('bias', seeds=[1, 1]))


def test_a_config_without_validation(settings, config) -> None:
    config.pop('val_evaluator')
    with pytest.raises(ValueError, match='the config has no val_evaluator; a comparison needs a validation set'):
        run_comparison(settings('bias'))
