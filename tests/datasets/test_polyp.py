"""The polyp data set, on miniatures and on the real copy, and the base configs."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import init_default_scope
from support.polyp_files import blob, encode, frame, kvasir, write_folder

from mmgps.datasets import PolypDataset
from mmgps.datasets.polyp import PolypDataError
from mmgps.datasets.prepare import convert, get_source

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets'
VAL = sorted(get_source('kvasir-seg').official_val())[:2]
IDS = ['a', 'b', 'c', *VAL]
TRAIN = dict(img_path='images/train', seg_map_path='annotations/train')


@pytest.fixture
def prepared(tmp_path):
    """A miniature, as written by the tool."""
    raw = write_folder(tmp_path / 'raw', kvasir(IDS))
    convert(get_source('kvasir-seg'), raw, tmp_path / 'set', allow_partial=True)
    return tmp_path / 'set'


def build(root, prefix=TRAIN, **options):
    return PolypDataset(data_root=str(root), data_prefix=prefix, **options)


def names(dataset):
    return [Path(dataset[i]['img_path']).name for i in range(len(dataset))]


def test_a_prepared_set_is_read(prepared):
    dataset = build(prepared)
    assert names(dataset) == ['a.jpg', 'b.jpg', 'c.jpg']
    assert dataset.metainfo['classes'] == ('background', 'polyp')
    assert len(dataset.metainfo['palette']) == 2
    assert dataset.metainfo['reduce_zero_label'] is False
    assert dataset[0]['seg_map_path'] == f'{prepared}/annotations/train/a.png'


def test_png_images_are_found_by_themselves(tmp_path):
    members = {}
    for name in 'xy':
        members[f'images/train/{name}.png'] = encode(frame(1, (8, 6)), '.png')
        members[f'annotations/train/{name}.png'] = encode(blob((8, 6)) // 255, '.png')
    dataset = build(write_folder(tmp_path / 'set', members))
    assert names(dataset) == ['x.png', 'y.png']


def test_a_list_of_ids(prepared):
    (prepared / 'some.txt').write_text('c\na\n')
    assert names(build(prepared, ann_file='some.txt')) == ['c.jpg', 'a.jpg']
    assert names(build(prepared, ann_file='train.txt')) == ['a.jpg', 'b.jpg', 'c.jpg']


def test_images_without_masks_can_be_predicted(prepared):
    shutil.rmtree(prepared / 'annotations')
    dataset = build(prepared, dict(img_path='images/val'), test_mode=True)
    assert len(dataset) == 2


def raises(match, *args, **options):
    with pytest.raises(PolypDataError, match=match):
        build(*args, **options)


COMMAND = r'Expected images .* images/\{train,val\} and .*python tools/prepare_polyp.py kvasir-seg --out '


def test_a_missing_root(tmp_path):
    raises(f'{tmp_path}/no/images/train does not exist. {COMMAND}{tmp_path}/no', tmp_path / 'no')


@pytest.mark.parametrize('folder', ['images/train', 'annotations/train'])
def test_an_empty_folder(prepared, folder):
    shutil.rmtree(prepared / folder)
    (prepared / folder).mkdir()
    raises(f'{prepared}/{folder} is empty. {COMMAND}', prepared)


def test_neither_jpg_nor_png(prepared):
    for path in (prepared / 'images/train').iterdir():
        path.rename(path.with_suffix('.webp'))
    raises('holds neither .jpg nor .png images', prepared)


def test_jpg_and_png(prepared):
    shutil.copy(prepared / 'images/train/a.jpg', prepared / 'images/train/z.png')
    raises('holds .jpg and .png images: name one with img_suffix', prepared)
    assert len(build(prepared, img_suffix='.jpg')) == 3


def test_a_suffix_that_no_image_has(prepared):
    raises(r"no image ends in '\.bmp'", prepared, img_suffix='.bmp')


def test_a_missing_list(prepared):
    raises(r'the list .*fold1\.txt does not exist', prepared, ann_file='fold1.txt')


def test_a_list_of_missing_ids(prepared):
    (prepared / 'some.txt').write_text('a\n' + ''.join(f'q{i}\n' for i in range(10)))
    raises(r'10 of 11 files are missing: .*q0\.jpg, .*q7\.jpg and 2 more', prepared, ann_file='some.txt')


def test_an_image_without_mask(prepared):
    (prepared / 'annotations/train/b.png').unlink()
    raises(r'1 of 3 files are missing: .*annotations/train/b\.png', prepared)


@pytest.mark.parametrize('values', [[0, 255], [0, 3, 250], [2]])
def test_raw_masks_are_refused(prepared, values):
    mask = np.resize(np.array(values, np.uint8), (48, 60))
    cv2.imwrite(str(prepared / 'annotations/train/a.png'), mask)
    raises(r'annotations/train/a\.png holds the values \[', prepared)


def piped(root):
    init_default_scope('mmseg')
    steps = ('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs')
    return build(root, pipeline=[dict(type=step) for step in steps])


@pytest.mark.parametrize('values', [[0, 255], [0, 3, 250], [2]])
def test_a_later_raw_mask_is_refused_when_it_is_loaded(prepared, values):
    """mmseg would silently ignore its polyp."""
    mask = np.resize(np.array(values, np.uint8), (48, 60))
    cv2.imwrite(str(prepared / 'annotations/train/b.png'), mask)
    dataset = piped(prepared)
    assert dataset[0]
    with pytest.raises(PolypDataError, match=rf'annotations/train/b\.png holds the values \[{values[0]}.*{COMMAND}'):
        dataset[1]


def test_a_mask_is_checked_once(prepared, monkeypatch):
    dataset, looks = piped(prepared), []
    original = dataset._check_values
    monkeypatch.setattr(dataset, '_check_values', lambda path: (looks.append(path), original(path)))
    assert all(dataset[at] for at in (0, 1, 2, 1, 0))
    assert len(looks) == len(set(looks)) == 2


@pytest.mark.parametrize('values', [[0], [1], [0, 1], [0, 1, 255]])
def test_prepared_masks_are_taken(prepared, values):
    mask = np.resize(np.array(values, np.uint8), (48, 60))
    cv2.imwrite(str(prepared / 'annotations/train/a.png'), mask)
    assert len(build(prepared)) == 3


def loaded(config, part, root):
    """Build the data set of a config's dataloader like mmengine's runner, on the folder ``root``."""
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIGS / config)[f'{part}_dataloader'].dataset
    cfg.data_root = str(root)
    return ROOT_DATASETS.build(cfg)


@pytest.mark.parametrize(('config', 'size'), [('kvasir_seg.py', 352), ('kvasir_seg_224x224.py', 224)])
def test_base_configs(prepared, config, size):
    train, val = (loaded(config, part, prepared) for part in ('train', 'val'))
    sample = train[0]
    assert sample['inputs'].shape == (3, size, size)
    mask = sample['data_samples'].gt_sem_seg.data
    assert mask.shape == (1, size, size)
    assert mask.unique().tolist() == [0, 1]
    sample = val[0]
    assert sample['inputs'].shape == (3, size, size)
    assert sample['data_samples'].gt_sem_seg.data.shape == (1, 48, 60)
    assert sample['data_samples'].ori_shape == (48, 60)
    torch.testing.assert_close(
        sample['data_samples'].gt_sem_seg.data[0].numpy(), blob((60, 48)).astype(np.int64) // 255
    )


@pytest.mark.parametrize('config', ['kvasir_seg.py', 'kvasir_seg_224x224.py'])
def test_base_configs_test_on_their_validation_set(config):
    cfg = Config.fromfile(CONFIGS / config)
    assert cfg.test_dataloader == cfg.val_dataloader
    assert cfg.test_evaluator == cfg.val_evaluator
    assert cfg.train_dataloader.dataset.data_prefix.img_path == 'images/train'
    assert [metric.type for metric in cfg.val_evaluator] == ['mmgps.PolypMetric', 'IoUMetric']


def test_training_flips_both_ways(prepared):
    dataset = loaded('kvasir_seg.py', 'train', prepared)
    samples = [dataset[0] for _ in range(40)]
    plain = next(s for s in samples if not s['data_samples'].flip)
    axes = {'horizontal': (2,), 'vertical': (1,), 'diagonal': (1, 2), None: ()}
    assert {s['data_samples'].flip_direction for s in samples} == set(axes)
    for sample in samples:
        turned = axes[sample['data_samples'].flip_direction]
        torch.testing.assert_close(sample['inputs'], plain['inputs'].flip(turned), rtol=0, atol=0)
        mask = plain['data_samples'].gt_sem_seg.data.flip(turned)
        torch.testing.assert_close(sample['data_samples'].gt_sem_seg.data, mask, rtol=0, atol=0)


def test_the_real_copy(real_data):
    root = real_data / 'kvasir_seg_352'
    train, val = (loaded('kvasir_seg.py', part, root) for part in ('train', 'val'))
    assert (len(train), len(val)) == (880, 120)
    listed = build(root, dict(img_path='images/val', seg_map_path='annotations/val'), ann_file='val.txt')
    assert {listed[i]['img_path'] for i in range(120)} == {val.get_data_info(i)['img_path'] for i in range(120)}
    sample = val[7]
    assert sample['inputs'].dtype == torch.uint8
    assert sample['inputs'].float().std() > 10
    assert sample['data_samples'].gt_sem_seg.data.unique().tolist() == [0, 1]


def test_a_set_as_published_is_told_how_to_become_one(tmp_path):
    write_folder(tmp_path / 'raw', {'images/a.jpg': b'', 'masks/a.jpg': b''})
    with pytest.raises(PolypDataError, match=rf'--source {tmp_path}/raw --out data/kvasir_seg, then --data-root'):
        build(tmp_path / 'raw')
