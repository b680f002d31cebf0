import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import TRANSFORMS
from torch.nn import functional

from mmgps.visualization import OverlayHook, write_png
from mmgps.visualization.overlay import PREDICTION, TRUTH
from mmgps.visualization.overlay_hook import evenly_spaced
from mmgps.visualization.sample_view import ClassView, SampleView, named_classes

HEIGHT, WIDTH, COUNT = 70, 100, 7


class Bright(BaseModel):
    """Predict bright regions, shifted down by one pixel per training step."""

    def __init__(self):
        super().__init__()
        self.steps = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        inputs = torch.stack(list(inputs)).float()
        if mode == 'loss':
            return {'loss': -self.steps}
        resized = functional.interpolate(inputs, data_samples[0].ori_shape)
        bright = (resized[:, :1] > 150).long().roll(round(self.steps.item()), dims=2)
        for sample, labels in zip(data_samples, bright, strict=True):
            sample.pred_sem_seg = PixelData(data=labels)
        return data_samples


class DrawnFrame(BaseTransform):
    """A frame without a file: a bright blue box on red."""

    def transform(self, results):
        image, mask = frame(int(results['img_path'].rsplit('/')[-1][:-4]))
        return {'img_path': 'nowhere/frame.png', 'img': image, 'gt_seg_map': mask, 'ori_shape': mask.shape}


def frame(index):
    """BGR image and labels; blue is bright where the box is."""
    image, mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:40, 5 + 5 * index : 50 + 5 * index] = 1
    image[..., 2], image[mask == 1] = 120, (250, 0, 0)
    return image, mask


@pytest.fixture
def folder(tmp_path):
    for kind in ('images', 'masks'):
        (tmp_path / kind).mkdir()
    for index in range(COUNT):
        for kind, array in zip(('images', 'masks'), frame(index), strict=True):
            cv2.imwrite(str(tmp_path / f'{kind}/{index}.png'), array)
    return tmp_path


def loader(folder, load=('LoadImageFromFile', 'Resize', 'LoadAnnotations')):
    pipeline = [{'type': step} for step in (*load, 'PackSegInputs')]
    if 'Resize' in load:
        pipeline[1]['scale'] = (200, 140)
    dataset = {
        'type': 'BaseSegDataset',
        'metainfo': {'classes': ('background', 'polyp')},
        'data_root': str(folder),
        'data_prefix': {'img_path': 'images', 'seg_map_path': 'masks'},
        'img_suffix': '.png',
        'reduce_zero_label': False,
        'pipeline': pipeline,
    }
    sampler = {'type': 'DefaultSampler', 'shuffle': False}
    return {'batch_size': 3, 'num_workers': 0, 'sampler': sampler, 'dataset': dataset}


def runner(folder, hook, name, **extra):
    evaluator = {'type': 'IoUMetric'}
    return Runner(
        model=Bright(),
        work_dir=str(folder / 'work'),
        experiment_name=f'{name}_{id(folder)}',
        default_scope='mmseg',
        test_cfg={'type': 'TestLoop'},
        test_dataloader=loader(folder),
        test_evaluator=evaluator,
        val_cfg={'type': 'ValLoop'},
        val_dataloader=loader(folder),
        val_evaluator=evaluator,
        custom_hooks=[{'type': 'mmgps.OverlayHook', **hook}],
        **extra,
    )


def train(folder, hook):
    made = runner(
        folder,
        hook,
        'train',
        train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': 2, 'val_interval': 1},
        train_dataloader=loader(folder),
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 10.0}},
    )
    made.train()
    return made


def pictures(made, phase):
    paths = sorted(Path(made.log_dir, 'overlays', phase).iterdir())
    return {path.name: cv2.imread(str(path))[..., ::-1] for path in paths}


def test_after_training_the_last_validation_is_drawn(folder):
    made = train(folder, {'num_images': 3, 'columns': 2})
    assert made.model.steps.item() == 20
    found = pictures(made, 'val')
    assert list(found) == ['01_0.png', '02_3.png', '03_6.png', 'contact_sheet.png']
    scale = 320 / HEIGHT
    for index, name in ((0, '01_0.png'), (3, '02_3.png'), (6, '03_6.png')):
        drawn, column = found[name], round(scale * (25 + 5 * index))
        assert drawn.shape[0] == 320
        # Missed above, right in the middle, wrong below: the prediction lies 20 pixels lower.
        above, middle, below = (drawn[round(scale * row), column].astype(int) for row in (20, 35, 50))
        blue = np.array([0, 0, 250])
        assert np.abs(above - (0.65 * blue + 0.35 * np.array(TRUTH))).max() < 3
        assert np.abs(middle - blue).max() < 3
        assert np.abs(below - (0.65 * np.array([120, 0, 0]) + 0.35 * np.array(PREDICTION))).max() < 3


def test_after_testing_and_again_after_a_second_run(folder):
    made = runner(folder, {'num_images': 100}, 'test')
    made.test()
    assert len(pictures(made, 'test')) == COUNT + 1
    made.val()
    assert len(pictures(made, 'val')) == COUNT + 1
    log = next((folder / 'work').glob('*/*.log')).read_text()
    assert f'overlays of {COUNT} test images: {made.log_dir}/overlays/test/contact_sheet.png' in log


def test_frames_without_files_come_from_the_networks_input(folder):
    TRANSFORMS.register_module('DrawnFrame', module=DrawnFrame, force=True)
    made = runner(folder, {'num_images': 1}, 'drawn')
    made._test_dataloader = loader(folder, ('DrawnFrame',))
    made.test()
    drawn = pictures(made, 'test')['01_frame.png']
    np.testing.assert_allclose(drawn[100, 100].astype(int), (0, 0, 250), atol=2)
    np.testing.assert_allclose(drawn[310, 10].astype(int), (120, 0, 0), atol=2)


def test_all_are_drawn_and_the_sheet_shows_some(folder, monkeypatch):
    sheets = []
    monkeypatch.setattr('mmgps.visualization.overlay_hook.MAX_ON_SHEET', 2)
    monkeypatch.setattr(
        'mmgps.visualization.overlay_hook.write_sheet',
        lambda folder, views, columns: sheets.append([view.name for view in views]),
    )
    made = runner(folder, {'num_images': None}, 'all')
    made.test()
    assert list(pictures(made, 'test')) == [f'{index + 1:02d}_{index}.png' for index in range(COUNT)]
    assert sheets == [['0', '6']]


def test_other_ranks_keep_and_write_nothing(folder, monkeypatch):
    monkeypatch.setattr('mmgps.visualization.overlay_hook.is_main_process', lambda: False)
    runner(folder, {}, 'rank').test()
    assert not list((folder / 'work').glob('**/overlays'))


def test_an_ignored_frame_is_named(folder):
    cv2.imwrite(str(folder / 'masks/0.png'), np.full((HEIGHT, WIDTH), 77, np.uint8))
    with pytest.raises(ValueError, match=r'images/0\.png: the truth holds 77'):
        runner(folder, {}, 'wrong').test()


def test_captions():
    image, mask = frame(0)
    view = SampleView('a', image, mask == 1, np.roll(mask == 1, 15, 0), np.ones_like(mask, bool))
    assert view.caption == 'Dice 50.0  a'
    assert SampleView('a', image, mask == 1).caption == 'a'


def test_classes_side_by_side():
    """Truth left, prediction right, in the colours of the data set; ignored and black regions stay plain."""
    image = np.full((40, 40, 3), 100, np.uint8)
    truth, prediction = np.zeros((40, 40), int), np.zeros((40, 40), int)
    truth[:20, :20], truth[20:, :20], truth[:20, 20:] = 1, 255, 300
    prediction[:, :20] = 2
    classes = named_classes(
        {'classes': ('ground', 'sky', 'sea'), 'palette': [(0, 0, 0), [0, 200, 0], np.array([0, 0, 200])]}
    )
    view = ClassView('a', image, prediction, truth, classes)
    drawn = view.draw()
    assert drawn.shape == (320, 320 + 8 + 320, 3)
    np.testing.assert_array_equal(drawn[80, 80], (50, 150, 50))
    np.testing.assert_array_equal(drawn[240, 80], (100, 100, 100))
    np.testing.assert_array_equal(drawn[240, 240], (100, 100, 100))
    assert len({tuple(drawn[80, column]) for column in (80, 240, 328 + 80, 328 + 240)}) == 4
    np.testing.assert_array_equal(drawn[240, 328 + 80], (50, 50, 150))
    assert [name for name, _ in view.legend] == ['ground', 'sky', 'sea', 'class 300']
    assert view.legend[:3] == classes
    # Ground: 400 of 400 and 800 predicted share 400. The others share nothing.
    assert view.caption == f'mean Dice {100 * (2 * 400 / (400 + 800)) / 4:.1f}  a'


def test_a_data_set_without_colours_gets_some():
    names = [str(at) for at in range(150)]
    for palette in (None, [], 'random'):
        found = named_classes({'classes': names, 'palette': palette})
        assert [name for name, _ in found] == names
        assert len({colour for _, colour in found}) > 140
    assert named_classes({}) == []


def test_classes_without_truth_are_one_picture():
    image, mask = frame(0)
    view = ClassView('a', image, 3 * mask, None, [])
    assert view.draw().shape == (320, round(WIDTH * 320 / HEIGHT), 3)
    assert view.caption == 'a'
    assert [name for name, _ in view.legend] == ['class 0', 'class 3']


def test_views_without_truth_can_be_drawn(folder):
    image, mask = frame(0)
    drawn = SampleView('a', image, mask == 1).draw()
    assert drawn.shape == (320, round(WIDTH * 320 / HEIGHT), 3)
    assert (drawn == PREDICTION).all(-1).any()
    assert not (drawn == TRUTH).all(-1).any()


@pytest.mark.parametrize(
    ('size', 'count', 'expected'),
    [(120, 4, {0, 40, 79, 119}), (3, 8, {0, 1, 2}), (5, 1, {0}), (1, 1, {0}), (0, 4, set())],
)
def test_positions_are_evenly_spaced(size, count, expected):
    assert evenly_spaced(size, count) == expected


@pytest.mark.parametrize('arguments', [{'num_images': 0}, {'columns': -1}])
def test_arguments_that_make_no_sense(arguments):
    with pytest.raises(ValueError, match='1 or more'):
        OverlayHook(**arguments)


def test_a_picture_that_cannot_be_written_ends_no_training(folder, monkeypatch):
    def full(path, content):
        raise OSError(28, f'No space left on device: {path} was not written')

    monkeypatch.setattr(sys.modules[write_png.__module__], 'write_atomically', full)
    made = train(folder, {'num_images': 3})
    assert made.model.steps.item() == 20
    said = ''.join(path.read_text() for path in Path(made.log_dir).glob('*.log'))
    for name in ('01_0.png', '03_6.png', 'contact_sheet.png'):
        assert f'{name} was not written; going on without it' in said
