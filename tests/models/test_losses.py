"""The overlap losses agree with a slow loop over pixels."""

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.registry import MODELS, init_default_scope

from mmgps.models import ForegroundDiceLoss, ForegroundIoULoss


def by_hand(kind: type, logits: torch.Tensor, label: torch.Tensor) -> float:
    total = 0.0
    for scores, truth in zip(logits, label, strict=True):
        shared = predicted = true = 0.0
        for pair, target in zip(scores.flatten(1).t(), truth.flatten(), strict=True):
            if target == 255:
                continue
            p = float(1 / (1 + torch.exp(pair[0] - pair[1])))
            shared, predicted, true = shared + p * int(target), predicted + p, true + int(target)
        over = predicted + true - shared + 1
        total += 1 - ((shared + 1) / over if kind is ForegroundIoULoss else (2 * shared + 1) / (predicted + true + 1))
    return total / len(logits)


@pytest.mark.parametrize('kind', [ForegroundIoULoss, ForegroundDiceLoss])
def test_by_hand(kind: type) -> None:
    logits, label = torch.randn(3, 2, 5, 4), torch.randint(0, 2, (3, 5, 4))
    label[0, 0], label[2] = 255, 0
    assert float(kind(loss_weight=2.0)(logits, label)) == pytest.approx(2 * by_hand(kind, logits, label), rel=1e-5)


@pytest.mark.parametrize('kind', [ForegroundIoULoss, ForegroundDiceLoss])
def test_extremes(kind: type) -> None:
    label = torch.zeros(1, 8, 8, dtype=torch.long)
    label[:, :4] = 1
    sure = 40.0 * torch.stack([1 - label, label], 1).float()
    assert float(kind()(sure, label)) == pytest.approx(0, abs=1e-6)
    assert float(kind()(sure.flip(1), label)) > 0.95
    empty = torch.zeros_like(label)
    assert float(kind()(40.0 * torch.stack([1 - empty, empty], 1).float(), empty)) == pytest.approx(0, abs=1e-6)


def test_ignored_pixels_get_no_gradient() -> None:
    logits, label = torch.randn(1, 2, 4, 4, requires_grad=True), torch.ones(1, 4, 4, dtype=torch.long)
    label[0, 0] = 255
    ForegroundIoULoss()(logits, label).backward()
    assert not logits.grad[:, :, 0].any()
    assert logits.grad[:, :, 1:].all()


def test_every_image_weighs_the_same() -> None:
    logits, label = torch.randn(2, 2, 6, 6), torch.randint(0, 2, (2, 6, 6))
    loss = ForegroundDiceLoss()
    apart = [loss(logits[at : at + 1], label[at : at + 1]) for at in range(2)]
    torch.testing.assert_close(loss(logits, label), sum(apart) / 2)


def test_one_channel_is_refused() -> None:
    with pytest.raises(ValueError, match='logits of 1 channels: ForegroundIoULoss is for background and foreground'):
        ForegroundIoULoss()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))


def test_configs_find_them() -> None:
    init_default_scope('mmseg')
    for name, key in (('ForegroundIoULoss', 'loss_iou'), ('ForegroundDiceLoss', 'loss_dice')):
        assert MODELS.build(dict(type=f'mmgps.{name}')).loss_name == key
