"""A selection records its loss, and a run resumes only under the same loss."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import train
from tiny_classes import PIPELINE, classes_config

from mmgps.engine import SupConLoss
from mmgps.selection import load_selection, pack_selection, save_selection, unpack_selection

BALANCED = dict(type='mmgps.ClassBalancedSampler', images_per_class=2)
SUPCON = dict(type='mmgps.SupConLoss', order=BALANCED, pipeline=PIPELINE)
TASK = dict(type='mmgps.TaskLoss')
DIFFERING = [
    ({**SUPCON, 'temperature': 0.1}, "SupConLoss with {'temperature': 0.07}.* SupConLoss with {'temperature': 0.1}"),
    ({**SUPCON, 'order': {**BALANCED, 'images_per_class': 4}}, "'images_per_class': 2.*'images_per_class': 4"),
    ({**SUPCON, 'pipeline': PIPELINE[1:]}, r"\[{'type': 'DrawClass'}.*'pipeline': \[{'type': 'PackInputs'}"),
    (TASK, "made by a SupConLoss with .*asks for a TaskLoss with {'type': 'TaskLoss'}; set loss of the hook"),
    (None, 'made by a SupConLoss .*asks for a TaskLoss'),
]  # fmt: skip


def config(work_dir: Path, loss: dict | None, **hook):
    given = {} if loss is None else dict(loss=loss)
    return classes_config(work_dir, custom_hooks=[dict(type='mmgps.GPSHook', **given, **hook)])


def resumed(work_dir: Path, loss: dict | None, **hook):
    cfg = config(work_dir, loss, **hook)
    cfg.resume, cfg.train_cfg.max_iters = True, 3
    return train(cfg)


def test_it_is_in_the_file_and_in_the_checkpoint(tmp_path: Path) -> None:
    train(config(tmp_path, SUPCON))
    said = load_selection(tmp_path / 'selection.safetensors').loss
    assert said == SupConLoss(order=BALANCED, pipeline=PIPELINE).settings()
    assert (said['type'], said['temperature'], said['order']['images_per_class']) == ('SupConLoss', 0.07, 2)
    assert unpack_selection(torch.load(tmp_path / 'iter_2.pth', weights_only=True)['mmgps_selection']).loss == said
    train(config(tmp_path / 'task', None))
    assert load_selection(tmp_path / 'task/selection.safetensors').loss == {'type': 'TaskLoss'}
    train(config(tmp_path / 'none', SUPCON, score=dict(type='mmgps.MagnitudeScore')))
    assert load_selection(tmp_path / 'none/selection.safetensors').loss is None


def test_another_loss_is_refused_on_resuming_and_beside_a_file(tmp_path: Path) -> None:
    """A hook without a loss accepts any selection file, and resumes from its own checkpoint."""
    train(config(tmp_path, SUPCON))
    file = str(tmp_path / 'selection.safetensors')
    for loss, message in DIFFERING:
        with pytest.raises(ValueError, match=f'selection of the checkpoint was {message}' if loss is TASK else message):
            resumed(tmp_path, loss)
        if loss is not None:
            with pytest.raises(ValueError, match=message):
                train(config(tmp_path / 'other', loss, selection=file))
    assert resumed(tmp_path, SUPCON).iter == 3
    for at, loss in enumerate((SUPCON, None)):
        train(config(tmp_path / f'file{at}', loss, selection=file))
        assert resumed(tmp_path / f'file{at}', loss, selection=file).iter == 3


def test_a_selection_that_says_nothing_of_its_loss_is_used(tmp_path: Path) -> None:
    train(config(tmp_path, SUPCON))
    selection = replace(load_selection(tmp_path / 'selection.safetensors'), loss=None)
    save_selection(selection, tmp_path / 'old.safetensors')
    assert train(config(tmp_path / 'file', TASK, selection=str(tmp_path / 'old.safetensors'))).iter == 2
    checkpoint = torch.load(tmp_path / 'iter_2.pth', weights_only=True)
    torch.save({**checkpoint, 'mmgps_selection': pack_selection(selection)}, tmp_path / 'iter_2.pth')
    assert resumed(tmp_path, TASK).iter == 3
