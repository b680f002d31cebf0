"""GPS by three lines in zoo configs, with the training tools of the mm packages, in separate processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmgps.selection import unpack_selection
from mmgps.utils.requirements import declare_missing_operators, require

require('mmseg')

from zoos.architectures import zoo  # noqa: E402
from zoos.pictures import draw_pictures  # noqa: E402
from zoos.shrink import STEPS, shrink  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    'mmseg': 'cgnet/cgnet_fcn_4xb8-60k_cityscapes-512x1024.py',
    'mmpretrain': 'lenet/lenet5_mnist.py',
}


@pytest.mark.parametrize('stack', CONFIGS)
def test_two_iterations(stack: str, tmp_path: Path) -> None:
    pytest.importorskip(stack)
    draw_pictures(tmp_path)
    cfg = shrink(Config.fromfile(zoo(stack) / CONFIGS[stack]), stack, str(tmp_path), 32)
    cfg.optim_wrapper.type = 'mmgps.GPSOptimWrapper'
    cfg.custom_hooks = [dict(type='mmgps.GPSHook', k=1, num_batches=1), dict(type='mmgps.ExactResumeHook')]
    if declare_missing_operators():  # mmpretrain can be imported only after mmgps
        cfg.custom_imports = dict(imports=['mmgps.engine'])
    cfg.dump(tmp_path / 'config.py')
    tool = zoo(stack).parent / 'tools/train.py'
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', str(tool), 'config.py', '--work-dir', 'run'],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    saved = torch.load((tmp_path / 'run/last_checkpoint').read_text().strip(), weights_only=True)
    assert saved['meta']['iter'] == STEPS
    selection = unpack_selection(saved['mmgps_selection'])
    assert len(selection) == sum(shape.neurons for shape in selection.connections.values()) > 0
