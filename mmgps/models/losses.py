"""Losses on the overlap between predicted and true foreground."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mmgps.registry import MODELS


class OverlapLoss(nn.Module, ABC):
    """Base of losses that compare areas image by image; correct background brings no reward.

    Args:
        loss_weight: Factor of the loss.
        smooth: Constant added to both areas, so that an empty prediction is best for an image without foreground.
        loss_name: Key of the loss; mmseg sums the entries that begin with ``loss_``. :attr:`NAME` by default.

    Raises:
        ValueError: When called, if the logits do not have two channels.
    """

    NAME: str

    def __init__(self, loss_weight: float = 1.0, smooth: float = 1.0, loss_name: str | None = None) -> None:
        super().__init__()
        self.loss_weight, self.smooth, self.loss_name = loss_weight, smooth, loss_name or self.NAME

    def forward(
        self, cls_score: Tensor, label: Tensor, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        """Compute the mean over images of one minus the overlap.

        Args:
            cls_score: Logits ``[B, 2, H, W]`` of background and foreground.
            label: ``[B, H, W]`` of 0, 1 and ``ignore_index``.
            weight: Factor of each pixel, ``[B, H, W]``.
            ignore_index: Label of pixels that do not count.
        """
        if cls_score.shape[1] != 2:
            raise ValueError(
                f'logits of {cls_score.shape[1]} channels: {type(self).__name__} is for background and foreground; '
                'set num_classes=2 and out_channels=2 of the head, or use a loss of mmseg'
            )
        counts = (label != ignore_index) if weight is None else (label != ignore_index) * weight
        predicted = cls_score.float().softmax(1)[:, 1] * counts
        truth = (label == 1) * counts
        areas = ((predicted * truth).sum((1, 2)), predicted.sum((1, 2)), truth.sum((1, 2)))
        return self.loss_weight * (1 - self.overlap(*areas)).mean()

    @abstractmethod
    def overlap(self, shared: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
        """Compute the overlap ``[B]`` in [0, 1] from areas ``[B]`` in pixels: common, predicted, true."""


@MODELS.register_module()
class ForegroundIoULoss(OverlapLoss):
    """One minus the soft IoU of the foreground; the paper's polyp setting adds it to BCE."""

    NAME = 'loss_iou'

    def overlap(self, shared: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
        return (shared + self.smooth) / (predicted + truth - shared + self.smooth)


@MODELS.register_module()
class ForegroundDiceLoss(OverlapLoss):
    """One minus the soft Dice of the foreground (Milletari et al., V-Net, 3DV 2016, without their squares)."""

    NAME = 'loss_dice'

    def overlap(self, shared: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
        return (2 * shared + self.smooth) / (predicted + truth + self.smooth)
