"""One run at a time uses a work dir, and no run overwrites the files of another."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from ranks import run_ranks
from tiny import stop_workers, tiny_config, train

import mmgps.utils.lock
from mmgps.engine import WorkDirError, enter_work_dir, lock_work_dir, remove_run, set_work_dir
from mmgps.engine.configs.work_dir import files_of_a_run

from mmgps.engine import WorkDirError, enter_work_dir, lock_work_dir, remove_run, set_work_dir
from mmgps.engine.configs.work_dir import files_of_a_run

ROOT = Path(__file__).resolve().parents[3]

HOLDER = """
import os, sys, time
from mmgps.engine import lock_work_dir
lock = lock_work_dir(sys.argv[1])
if os.fork() == 0:  # like a data loader worker
    time.sleep(600)
    os._exit(0)
print('held', flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the work dir and has a forked child."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLDER, tmp_path / 'run'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == 'held\n'
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_second_run_is_refused_and_told_of_the_first(
    holder: subprocess.Popen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before it writes anything, also through a symbolic link, and by the hook alone."""
    monkeypatch.setattr('mmgps.engine.configs.work_dir.PATIENCE_S', 0.2)
    before = sorted(path.name for path in (tmp_path / 'run').iterdir())
    (tmp_path / 'link').symlink_to(tmp_path / 'run')
    message = (
        rf'run is in use by another run \(process {holder.pid} on \S+, since 20.*\): wait for its end, or give another'
    )
    for folder in ('run', 'link'):
        with pytest.raises(WorkDirError, match=message):
            enter_work_dir(tiny_config(tmp_path / folder))
    assert sorted(path.name for path in (tmp_path / 'run').iterdir()) == before
    with pytest.raises(WorkDirError, match=message):
        train(tiny_config(tmp_path / 'run'))
    assert not list((tmp_path / 'run').glob('*.*tensors')) + list((tmp_path / 'run').glob('*.pth'))


def test_the_lock_dies_with_its_process(holder: subprocess.Popen, tmp_path: Path) -> None:
    """The lock does not wait for forked children, which live a little longer."""
    os.kill(holder.pid, signal.SIGKILL)
    os.waitpid(holder.pid, 0)
    began = time.monotonic()
    assert lock_work_dir(str(tmp_path / 'run')) is not None
    assert time.monotonic() - began < 0.5
    os.killpg(holder.pid, 0)  # the fork is alive


def test_all_processes_of_a_run_are_refused(holder: subprocess.Popen, tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        (tmp_path / 'port').write_text(str(found.getsockname()[1]))
    run_ranks('work_dir_probe.py', 2, tmp_path)
    for rank in range(2):
        assert f'in use by another run (process {holder.pid} on' in (tmp_path / f'{rank}.txt').read_text()


def held_elsewhere(folder: Path) -> bool:
    """Return True if another process would be refused."""
    code = 'import sys, mmgps.utils.lock, pathlib; mmgps.utils.lock.take(pathlib.Path(sys.argv[1]), 0)'
    answer = subprocess.run(
        [sys.executable, '-c', code, folder / '.run.lock'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0 or 'TimeoutError' in answer.stderr
    return answer.returncode != 0


def test_a_process_may_hold_a_work_dir_again_and_lets_go_of_it_once(tmp_path: Path) -> None:
    first = lock_work_dir(str(tmp_path))
    second = lock_work_dir(str(tmp_path))
    assert first is second
    del first
    assert held_elsewhere(tmp_path)
    del second
    assert not held_elsewhere(tmp_path)


def test_a_run_that_is_over_holds_nothing(tmp_path: Path) -> None:
    runner = train(tiny_config(tmp_path / 'run', max_iters=2))
    assert not held_elsewhere(tmp_path / 'run')
    stop_workers(runner)


def test_a_fork_that_trains_itself_asks_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmgps.engine.configs.work_dir.PATIENCE_S', 0.2)
    lock = lock_work_dir(str(tmp_path))
    pid = os.fork()
    if pid == 0:
        try:
            lock_work_dir(str(tmp_path))
        except WorkDirError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert held_elsewhere(tmp_path)
    assert lock is not None


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(mmgps.utils.lock.fcntl, 'flock', refuse)
    assert lock_work_dir(str(tmp_path)) is None
    assert lock_work_dir('s3://bucket/run') is None


def test_a_strategy_with_a_launch_of_its_own_joins_later(tmp_path: Path) -> None:
    """DeepSpeed and ColossalAI launch by themselves; without a process group each process would take the lock."""
    cfg = tiny_config(tmp_path / 'run', launcher='pytorch', strategy=dict(type='ColossalAIStrategy'))
    assert enter_work_dir(cfg) is None
    assert not (tmp_path / 'run').exists()


def test_what_a_run_leaves(tmp_path: Path) -> None:
    """The list has every name that mmengine and the hooks generate, and no name of a user."""
    theirs = [
        'pretrained.pth',
        'epoch.pth',
        'my_epoch_3.pth',
        'notes.txt',
        'config.py',
        'deltas/mine.safetensors',
        '20261127_161902/run.log',
    ]
    of_runs = [
        *(
            'epoch_3.pth',
            'iter_40.pth',
            'best_mIoU_epoch_3.pth',
            'best_a_b_iter_40.pth',
            'epoch_3-0123abcd.pth',
            'ckpt-7.pt',
        ),
        *(
            'last_checkpoint',
            'selection.safetensors',
            'deltas/iter_40.safetensors',
            'deltas/best_Dice_epoch_3.safetensors',
        ),
    ]
    for name in [*theirs, *of_runs]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'last_checkpoint').write_text('elsewhere/ckpt-7.pt')
    (tmp_path / 'epoch_4.pth').mkdir()  # from a strategy that shards the model
    (tmp_path / 'epoch_4.pth/part').touch()
    assert files_of_a_run(tmp_path) == sorted(tmp_path / name for name in [*of_runs, 'epoch_4.pth'])
    remove_run(tmp_path)
    assert sorted(path for path in tmp_path.rglob('*') if path.is_file()) == sorted(tmp_path / name for name in theirs)


@pytest.mark.parametrize(
    'left', ['last_checkpoint', 'selection.safetensors', 'deltas/epoch_1.safetensors', 'iter_2.pth']
)
def test_files_of_another_run_are_not_overwritten(left: str, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).touch()
    with pytest.raises(WorkDirError, match=r'holds files of another run .*: continue .* --resume, .* by --overwrite'):
        enter_work_dir(cfg)
    assert enter_work_dir(cfg, overwrite=True) is not None
    cfg.resume = True
    assert enter_work_dir(cfg) is not None


def test_the_default_folder_is_that_of_config_and_method() -> None:
    for method, expected in ((None, 'work_dirs/vit_x'), ('lora', 'work_dirs/vit_x_lora')):
        cfg = Config()
        set_work_dir(cfg, 'configs/vit_x.py', None, method)
        assert cfg.work_dir == expected
        set_work_dir(cfg, 'configs/vit_x.py', 'mine', method)
        assert cfg.work_dir == 'mine'
