"""mmseg's own pipeline, inference and evaluator, on images of several sizes that are not square."""

import csv

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from torch import nn

import mmgps.evaluation  # noqa: F401

SIZES = [(61, 90), (120, 75), (61, 90)]


class Gallery(BaseMetric):
    """Keep the samples that the evaluator passes to a metric."""

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        self.kept = list(results)
        return {}


class Brightness(nn.Module):
    """Return the image itself, so that a 1x1 convolution can segment bright regions."""

    def forward(self, image):
        return [image]


@pytest.fixture
def folder(tmp_path):
    """Bright discs on dark ground with their masks; lossless, so brightness alone separates them."""
    for kind in ('images', 'masks'):
        (tmp_path / kind).mkdir()
    for index, (height, width) in enumerate(SIZES):
        y, x = np.mgrid[:height, :width]
        mask = ((y - 30) ** 2 + (x - 25 - 5 * index) ** 2 < 15**2).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f'images/{index}.png'), np.repeat(60 + 120 * mask[..., None], 3, 2))
        cv2.imwrite(str(tmp_path / f'masks/{index}.png'), mask)
    return tmp_path


def segmentor(channels, test_cfg):
    head = {
        'type': 'mmseg.FCNHead',
        'in_channels': 3,
        'channels': 3,
        'num_convs': 0,
        'concat_input': False,
        'dropout_ratio': 0,
        'num_classes': 2,
        'out_channels': channels,
        'threshold': 0.5 if channels == 1 else None,
        'loss_decode': {'type': 'mmseg.CrossEntropyLoss', 'use_sigmoid': channels == 1},
    }
    MODELS.register_module('Brightness', module=Brightness, force=True)
    model = MODELS.build(
        {
            'type': 'mmseg.EncoderDecoder',
            'backbone': {'type': 'mmseg.Brightness'},
            'decode_head': head,
            'data_preprocessor': {'type': 'mmseg.SegDataPreProcessor', 'mean': [120.0] * 3, 'std': [60.0] * 3},
            'test_cfg': ConfigDict(test_cfg),
        }
    )
    with torch.no_grad():
        signs = torch.tensor([1.0] if channels == 1 else [-1.0, 1.0])
        model.decode_head.conv_seg.weight.copy_(signs.view(-1, 1, 1, 1).expand(-1, 3, 1, 1))
        model.decode_head.conv_seg.bias.zero_()
    return model


def evaluate(model, folder, batch_size):
    gallery = Gallery(prefix='gallery')
    steps = ['LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackSegInputs']
    pipeline = [{'type': step} for step in steps]
    pipeline[1] |= {'scale': (64, 48), 'keep_ratio': False}
    runner = Runner(
        model=model,
        work_dir=str(folder / 'work'),
        experiment_name=f'size_{id(model)}',
        default_scope='mmseg',
        test_cfg={'type': 'TestLoop'},
        test_dataloader={
            'batch_size': batch_size,
            'num_workers': 0,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'dataset': {
                'type': 'BaseSegDataset',
                'metainfo': {'classes': ('background', 'polyp')},
                'data_root': str(folder),
                'data_prefix': {'img_path': 'images', 'seg_map_path': 'masks'},
                'img_suffix': '.png',
                'reduce_zero_label': False,
                'pipeline': pipeline,
            },
        },
        test_evaluator=[
            {'type': 'mmgps.PolypMetric', 'per_image_file': str(folder / 'scores.csv')},
            {'type': 'IoUMetric', 'iou_metrics': ['mDice', 'mIoU']},
            gallery,
        ],
    )
    return runner.test(), gallery.kept


@pytest.mark.parametrize('channels', [1, 2])
@pytest.mark.parametrize(
    'test_cfg',
    [{'mode': 'whole'}, {'mode': 'slide', 'crop_size': (32, 32), 'stride': (20, 20)}],
    ids=lambda c: c['mode'],
)
def test_scores_are_taken_at_the_original_size(folder, channels, test_cfg):
    found, kept = evaluate(segmentor(channels, test_cfg), folder, batch_size=2)
    dices = []
    for index, sample in enumerate(kept):
        assert sample['ori_shape'] == SIZES[index]
        for key in ('gt_sem_seg', 'pred_sem_seg', 'seg_logits'):
            assert tuple(sample[key]['data'].shape[-2:]) == SIZES[index]
        assert sample['img_shape'] == (48, 64)
        truth = cv2.imread(str(folder / f'masks/{index}.png'), -1)
        labels = sample['pred_sem_seg']['data'].numpy().reshape(truth.shape)
        dices.append(100 * 2 * (labels * truth).sum() / (labels.sum() + truth.sum()))
    assert 80 < min(dices) < 100
    assert found['Dice'] == pytest.approx(np.mean(dices), abs=1e-4)
    assert [float(row['Dice']) for row in csv.DictReader((folder / 'scores.csv').open())] == pytest.approx(
        dices, abs=1e-4
    )
    assert {'IoU', 'Sm', 'wFm', 'meanEm', 'maxEm', 'MAE', 'mDice', 'mIoU'} <= set(found)


def test_a_network_that_calls_everything_polyp(folder):
    model = segmentor(2, {'mode': 'whole'})
    model.decode_head.conv_seg.bias.data.copy_(torch.tensor([-100.0, 100.0]))
    found, _ = evaluate(model, folder, batch_size=1)
    shares = [(cv2.imread(str(folder / f'masks/{index}.png'), -1) == 1).mean() for index in range(len(SIZES))]
    assert found['IoU'] == pytest.approx(100 * np.mean(shares), abs=1e-4)
    assert found['IoU'] < 20


def test_the_evaluator_gives_tensors_of_one_plane(folder):
    """The two heads write into a sample the outputs that PolypMetric needs."""
    for channels, kind in ((1, torch.float32), (2, torch.int64)):
        _, kept = evaluate(segmentor(channels, {'mode': 'whole'}), folder, batch_size=1)
        assert kept[0]['pred_sem_seg']['data'].dtype == kind
        assert isinstance(PixelData(**kept[0]['pred_sem_seg']).shape, tuple)
        scores = kept[0]['seg_logits']['data']
        assert scores.shape[0] == channels
        assert (scores.min() >= 0 and scores.max() <= 1) == (channels == 1)
