"""Kills, full disks and damaged files cost at most the iterations since the last checkpoint."""

import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmseg.evaluation import IoUMetric
from tiny import PIPELINE, assert_same_bits, state_of, tiny_config, train

import mmgps.engine.hooks.tune_hook as tune_hook
import mmgps.engine.resuming.checkpoints as whole_checkpoints
from mmgps.engine import build_runner
from mmgps.engine.resuming.checkpoints import LastCheckpointError, check_last_checkpoint
from mmgps.utils.atomic_file import atomic_file

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize('kills', [3, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random_and_resumed_equals_uninterrupted(kills: int, tmp_path: Path) -> None:
    paths = os.pathsep.join(str(ROOT / folder) for folder in ('', 'tools/dev', 'tests/support'))
    environment = {**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, '-m', 'faults', '--kills', str(kills), '--seed', '1', '--out', str(tmp_path / 'faults')]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert f'\n{kills} kills of ' in answer.stdout


def with_best(work_dir: Path, **changes):
    """Config of a run with validations that keeps one checkpoint and the best."""
    cfg = tiny_config(work_dir, **changes)
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, save_best='mIoU', rule='greater')
    cfg.train_cfg.val_interval = 2
    data = dict(type='TinyPictures', count=2, pipeline=[PIPELINE[0], PIPELINE[2]])
    cfg.val_dataloader = dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data)
    cfg.val_cfg, cfg.val_evaluator = dict(type='ValLoop'), dict(type='IoUMetric')
    return cfg


def checkpoints(work_dir: Path) -> list[str]:
    return sorted(path.name for path in work_dir.glob('*.pth'))


def test_files_and_names_are_those_of_mmengine(tmp_path: Path) -> None:
    train(with_best(tmp_path / 'ours'))
    plain = with_best(tmp_path / 'theirs')
    plain.custom_hooks = plain.custom_hooks[:1]
    train(plain)
    assert len(checkpoints(tmp_path / 'ours')) == 2
    for folder in ('ours', 'theirs'):
        assert (tmp_path / folder / 'last_checkpoint').read_text() == str(tmp_path / folder / 'iter_6.pth')
        assert [name for name in checkpoints(tmp_path / folder) if not name.startswith('best')] == ['iter_6.pth']
    ours, theirs = (torch.load(tmp_path / folder / 'iter_6.pth', weights_only=True) for folder in ('ours', 'theirs'))
    assert ours.keys() - theirs.keys() == {'mmgps_run', 'mmgps_hooks'}
    assert theirs.keys() < ours.keys()
    assert ours['message_hub']['runtime_info'].keys() == theirs['message_hub']['runtime_info'].keys()
    assert ours['message_hub']['runtime_info']['keep_ckpt_ids'] == [6]
    assert not list(tmp_path.rglob('*.part'))


def test_nothing_is_removed_before_the_new_one_is_whole_and_named(tmp_path: Path, monkeypatch) -> None:
    removed = []
    original = os.remove

    def remove(path, **options) -> None:
        if str(path).endswith('.pth'):
            named = Path((tmp_path / 'last_checkpoint').read_text())
            removed.append(Path(path).name)
            assert named != Path(path)
            assert torch.load(named, weights_only=True)['meta']['iter'] > 2
        original(path, **options)

    monkeypatch.setattr(os, 'remove', remove)
    train(with_best(tmp_path))
    assert {'iter_2.pth', 'iter_4.pth'} <= set(removed)


def test_the_best_checkpoint_stays_under_a_name_that_does_not_change(tmp_path: Path, monkeypatch) -> None:
    """A hook that counts epochs in a loop by iteration names every best checkpoint after epoch 0."""
    scores = iter((0.1, 0.2, 0.15))
    monkeypatch.setattr(IoUMetric, 'compute_metrics', lambda self, results: {'mIoU': next(scores)})
    cfg = with_best(tmp_path)
    cfg.default_hooks.checkpoint.by_epoch = True
    train(cfg)
    [best] = tmp_path.glob('best*.pth')
    assert best.name == 'best_mIoU_epoch_0.pth'


def test_the_best_checkpoint_of_another_run_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resumed run repeats the validation of its checkpoint, and an equal score is not better."""
    scores = iter((0.1, 0.2, 0.3, 0.3, 0.4, 0.5))
    monkeypatch.setattr(IoUMetric, 'compute_metrics', lambda self, results: {'mIoU': next(scores)})
    train(with_best(tmp_path / 'a'))
    before = checkpoints(tmp_path / 'a')
    train(with_best(tmp_path / 'b', max_iters=10, resume=True, load_from=str(tmp_path / 'a/iter_6.pth')))
    assert checkpoints(tmp_path / 'a') == before == ['best_mIoU_iter_6.pth', 'iter_6.pth']
    assert 'best_mIoU_iter_10.pth' in checkpoints(tmp_path / 'b')


def test_best_checkpoints_that_a_kill_left_go_with_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is killed between writing the new best file and removing the old; later scores are lower."""
    scores = iter((0.1, 0.5, 0.2, 0.3, 0.4))
    monkeypatch.setattr(IoUMetric, 'compute_metrics', lambda self, results: {'mIoU': next(scores)})
    train(with_best(tmp_path))
    assert checkpoints(tmp_path) == ['best_mIoU_iter_4.pth', 'iter_6.pth']
    others = ['best_mIoU_iter_4.txt', 'best_mDice_iter_2.pth', 'best_mIoU_by_hand.pth', 'mine.pth']
    for name in ('best_mIoU_iter_2.pth', *others):
        (tmp_path / name).write_bytes((tmp_path / 'best_mIoU_iter_4.pth').read_bytes())
    (tmp_path / '.best_mIoU_iter_5.pth.part').write_bytes(b'half')
    train(with_best(tmp_path, max_iters=8, resume=True))
    kept = {path.name for path in tmp_path.iterdir() if path.suffix in ('.pth', '.txt', '.part')}
    assert kept == {'best_mIoU_iter_4.pth', 'iter_8.pth', *others}


def test_checkpoints_in_a_folder_of_their_own(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.default_hooks.checkpoint.filename_tmpl = 'saved/iter_{}.pth'
    train(cfg)
    assert checkpoints(tmp_path / 'saved') == ['iter_2.pth', 'iter_4.pth', 'iter_6.pth']


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Context in which files of this process cannot exceed ``size`` bytes, as on a full disk.

    Use it only around a save, since pytest also writes to a file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('kind', ['Runner', 'FlexibleRunner'])
def test_a_full_disk_leaves_the_checkpoint_before(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(cfg: Config) -> Any:
        runner = build_runner(Config({**cfg.to_dict(), 'runner_type': kind, 'env_cfg': {}}))
        runner.train()
        return runner

    whole = state_of(train(with_best(tmp_path / 'whole')))
    saved = []

    def then_full(save):
        def save_checkpoint(out_dir, filename, *args, **options):
            saved.append(filename)
            with limited(20_000) if 'iter_4' in filename else nullcontext():
                save(out_dir, filename, *args, **options)

        return original(save_checkpoint)

    original = whole_checkpoints._atomically
    with monkeypatch.context() as context:
        context.setattr(whole_checkpoints, '_atomically', then_full)
        with pytest.raises(OSError, match=r'File too large: .*iter_4.pth was not written; .* with --resume') as caught:
            train(with_best(tmp_path / 'cut'))
    assert caught.value.errno == errno.EFBIG
    assert saved[-1] == '.iter_4.pth.part'
    assert 'iter_2.pth' in checkpoints(tmp_path / 'cut')
    assert (tmp_path / 'cut/last_checkpoint').read_text().endswith('iter_2.pth')
    assert not list((tmp_path / 'cut').rglob('*.part'))
    for path in (tmp_path / 'cut').glob('*.pth'):
        assert torch.load(path, weights_only=True)['meta']['iter'] == 2
    resumed = train(with_best(tmp_path / 'cut', resume=True))
    assert_same_bits(state_of(resumed), whole)


def test_a_full_disk_while_the_selection_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_hook, 'save_selection', limited(1_500)(tune_hook.save_selection))
    with pytest.raises(OSError, match=r'selection.safetensors. was not written: .*File too large'):
        train(tiny_config(tmp_path))
    assert not list(tmp_path.rglob('*selection.safetensors*'))


def test_a_partial_file_of_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / '.a.pth.part').write_bytes(b'half')
    with atomic_file(tmp_path / 'a.pth', alone=True) as partial:
        partial.write_bytes(b'whole')
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


def test_a_work_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / 'run').touch()
    with pytest.raises(FileExistsError, match='run'):
        train(tiny_config(tmp_path / 'run'))


def test_a_read_only_work_dir() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        cfg = tiny_config(Path(name))
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # for the root user nothing is read-only
        try:
            with pytest.raises(PermissionError, match=name):
                train(cfg)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', r'last_checkpoint is empty; the newest complete checkpoint of the folder is .*: .* --resume .*iter_4.pth'),
        ('{}/iter_9.pth', r'names .*iter_9.pth, which is not there; .* --resume .*iter_4.pth'),
        ('{}/iter_6.pth', r'names .*iter_6.pth, which is damaged: its end is missing; .* --resume .*iter_4.pth'),
    ],
    ids=['empty', 'missing', 'truncated'],
)
def test_a_corrupt_last_checkpoint(content: str, message: str, tmp_path: Path) -> None:
    train(tiny_config(tmp_path))
    last = tmp_path / 'iter_6.pth'
    last.write_bytes(last.read_bytes()[:-1000])
    (tmp_path / 'last_checkpoint').write_text(content.format(tmp_path))
    with pytest.raises(LastCheckpointError, match=message):
        train(tiny_config(tmp_path, resume=True))
    flexible = tiny_config(tmp_path, resume=True, runner_type='FlexibleRunner', env_cfg={})
    with pytest.raises(LastCheckpointError, match=message):
        build_runner(flexible)
    assert train(tiny_config(tmp_path, resume=True, load_from=str(tmp_path / 'iter_4.pth'))).iter == 6


def test_without_any_checkpoint_a_corrupt_note_says_to_start_anew(tmp_path: Path) -> None:
    (tmp_path / 'last_checkpoint').touch()
    with pytest.raises(LastCheckpointError, match='no complete checkpoint; delete last_checkpoint'):
        check_last_checkpoint(tmp_path)


def test_resuming_before_the_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    """This includes deltas, whose hook looks for the base in the checkpoint."""
    states = []
    for name, resume in (('a', False), ('b', True)):
        cfg = tiny_config(tmp_path / name, resume=resume)
        cfg.custom_hooks.append(dict(type='mmgps.DeltaHook', by_epoch=False))
        states.append(state_of(train(cfg)))
    assert_same_bits(states[1], states[0])
