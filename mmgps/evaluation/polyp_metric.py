"""Scores of polyp papers as a metric of mmengine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmgps.registry import METRICS

from .foreground import IGNORE_INDEX
from .image_score import ImageScore, average, score_image, write_score_table

LOWEST_SHOWN = 3
CLASSES = 2
_TWO = (
    ' and mmgps.PolypMetric scores two, background and foreground: score more by '
    "dict(type='IoUMetric', iou_metrics=['mDice', 'mIoU'])"
)


@METRICS.register_module()
class PolypMetric(BaseMetric):
    """Foreground Dice and IoU per image at the original size, averaged over images, in percent.

    Every image has the same weight, whatever its size, and correct background brings no reward. mmseg's ``mDice`` and
    ``mIoU`` instead sum pixels over the set and average background and foreground. One evaluator can have both::

        val_evaluator = [
            dict(type='mmgps.PolypMetric'),
            dict(type='IoUMetric', iou_metrics=['mDice', 'mIoU']),
        ]

    It reports ``Dice`` and ``IoU``, and with ``structure`` also ``Sm``, ``wFm``, ``meanEm``, ``maxEm`` and ``MAE``, see
    :func:`~mmgps.evaluation.image_score.structure_scores`. All are percentages with four decimals, including ``MAE``:
    papers print 2.6 as 0.026. ``CheckpointHook(save_best='Dice')`` needs ``rule='greater'``.

    Pixels of ``ignore_index`` do not count. Without foreground in the truth, Dice and IoU are 100 for an empty
    prediction and 0 otherwise. Labels other than 0, 1 and ``ignore_index`` are an error that names the file. Heads of
    two channels (softmax) and of one (sigmoid and threshold) are scored by the labels that mmseg predicted. The
    structure measures use the probability in ``seg_logits``, or the labels if a sample has no ``seg_logits``.

    Args:
        structure: Also compute the structure measures, which cost many times as much as Dice and IoU.
        per_image_file: CSV file of the scores of every image, replaced at every evaluation.
        ignore_index: Label of pixels that do not count.
        collect_device: As for mmengine's ``BaseMetric``.
        prefix: Prefix of the keys, to distinguish several sets.
        collect_dir: As for mmengine's ``BaseMetric``.

    Raises:
        ValueError: If the data set has more than two classes, when the evaluator is built, before training or testing;
            if the network predicts more than two, before mmgps selects or trains.
    """

    def __init__(
        self,
        structure: bool = True,
        per_image_file: str | None = None,
        ignore_index: int = IGNORE_INDEX,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if per_image_file is not None and not str(per_image_file).endswith('.csv'):
            raise ValueError(f'per_image_file={per_image_file!r}: expected a name that ends in .csv')
        if ignore_index in (0, 1):
            raise ValueError(f'ignore_index={ignore_index} would drop a class from the score; choose another label')
        self.structure = structure
        self.per_image_file = per_image_file
        self.ignore_index = ignore_index

    @property
    def dataset_meta(self) -> dict | None:
        """Metadata of the data set, which mmengine's loops set when they are built."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        classes = list(dataset_meta.get('classes') or ())
        if len(classes) > CLASSES:
            shown = ', '.join([*map(str, classes[:4]), *(['...'] if len(classes) > 4 else [])])
            raise ValueError(f'the data set has {len(classes)} classes ({shown}){_TWO}')
        self._dataset_meta = dataset_meta

    def check_model(self, model: nn.Module) -> None:
        """Check that a segmentor of mmseg predicts at most two classes; other models pass.

        Raises:
            ValueError: If it has more output channels.
        """
        channels = getattr(model, 'out_channels', None)
        if isinstance(channels, int) and channels > CLASSES:
            raise ValueError(
                f'the network predicts {channels} classes{_TWO}, or set num_classes={CLASSES} of its heads'
            )

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Score the images of one batch.

        Raises:
            ValueError: If a sample cannot be scored; names its image and its mask.
        """
        for sample in data_samples:
            name = str(sample.get('img_path', f'image {len(self.results)}'))
            try:
                self.results.append(self._score(name, sample))
            except ValueError as error:
                mask = f' with mask {sample["seg_map_path"]}' if sample.get('seg_map_path') else ''
                raise ValueError(f'{name}{mask}: {error}') from error

    def compute_metrics(self, results: list[ImageScore]) -> dict[str, float]:
        """Average over images on the first rank, see :func:`~mmgps.evaluation.image_score.average`."""
        means = average(results)
        lowest = sorted(results, key=lambda score: score.dice)[:LOWEST_SHOWN]
        shown = ', '.join(f'{100 * score.dice:.1f} {score.name}' for score in lowest)
        logger: MMLogger = MMLogger.get_current_instance()
        logger.info(f'foreground Dice per image over {len(results)} images; lowest: {shown}')
        if self.per_image_file is not None:
            write_score_table(self.per_image_file, results)
            logger.info(f'scores of every image: {self.per_image_file}')
        return means

    def _score(self, name: str, sample: dict) -> ImageScore:
        if 'gt_sem_seg' not in sample:
            raise ValueError('no gt_sem_seg in the sample; the test pipeline needs LoadAnnotations')
        truth = _plane(sample['gt_sem_seg']['data'])
        original = sample.get('ori_shape')
        if original is not None and truth.shape != tuple(original[:2]):
            raise ValueError(
                f'the truth is {truth.shape} and the image was {tuple(original[:2])} before any resizing; images are '
                'scored at their original size, so put LoadAnnotations after Resize in the test pipeline'
            )
        scores = sample['seg_logits']['data'] if self.structure and 'seg_logits' in sample else None
        return score_image(
            name,
            truth,
            _plane(sample['pred_sem_seg']['data']),
            None if scores is None else _numpy(scores),
            self.structure,
            self.ignore_index,
        )


def _plane(data: Tensor | np.ndarray) -> np.ndarray:
    """Reshape ``(1, H, W)`` or ``(H, W)`` to ``(H, W)``."""
    array = _numpy(data)
    return array.reshape(array.shape[-2:])


def _numpy(data: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(data, np.ndarray):
        return data
    # NumPy has no bfloat16, which autocast may leave here.
    return (data.float() if data.is_floating_point() else data).detach().cpu().numpy()
