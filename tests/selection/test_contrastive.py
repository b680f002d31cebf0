"""The supervised contrastive loss against a slow loop that shares no code with it."""

import math

import pytest
import torch

from mmgps.selection.contrastive import last_feature, pooled, spread_pixels, supervised_contrastive


def slow(features: list[list[float]], labels: list[int], temperature: float) -> float:
    """Khosla et al., equation 2, term by term in plain Python."""
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in features]
    terms = []
    for i, own in enumerate(unit):
        likeness = {a: sum(x * y for x, y in zip(own, other, strict=True)) for a, other in enumerate(unit) if a != i}
        below = sum(math.exp(value / temperature) for value in likeness.values())
        partners = [p for p in likeness if labels[p] == labels[i]]
        if partners:
            terms.append(-sum(math.log(math.exp(likeness[p] / temperature) / below) for p in partners) / len(partners))
    return sum(terms) / len(terms) if terms else 0.0


LABELS = {
    'two views': [0, 0, 1, 1, 2, 2],
    'shared': [3, 3, 3, 3, 1, 1],
    'one class': [5] * 6,
    'with singletons': [0, 1, 1, 2, 3, 1],
    'singletons only': [0, 1, 2, 3, 4, 5],
}


@pytest.mark.parametrize('temperature', [0.07, 0.5])
@pytest.mark.parametrize('labels', LABELS.values(), ids=LABELS)
def test_equals_a_slow_loop(labels: list[int], temperature: float) -> None:
    features = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    loss = supervised_contrastive(features, torch.tensor(labels), temperature)
    assert loss.item() == pytest.approx(slow(features.tolist(), labels, temperature), rel=1e-12)
    loss.backward()
    assert features.grad.isfinite().all()
    step = 1e-6
    for at in [(0, 0), (3, 2), (5, 4)]:
        moved = [features.detach().clone() for _ in range(2)]
        moved[0][at] += step
        moved[1][at] -= step
        up, down = (slow(one.tolist(), labels, temperature) for one in moved)
        assert features.grad[at].item() == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize('count', [0, 1])
def test_without_a_pair_it_is_zero_and_so_is_its_gradient(count: int) -> None:
    features = torch.randn(count, 4, requires_grad=True)
    loss = supervised_contrastive(features, torch.zeros(count, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert not features.grad.any()


def test_a_feature_of_zeros_gives_no_nan() -> None:
    features = torch.zeros(4, 3, requires_grad=True)
    supervised_contrastive(features, torch.tensor([0, 0, 1, 1])).backward()
    assert features.grad.isfinite().all()


def test_half_precision_is_computed_in_full() -> None:
    half, labels = torch.randn(6, 8).bfloat16(), torch.tensor([0, 0, 1, 1, 2, 2])
    with torch.autocast('cpu', torch.bfloat16):
        found = supervised_contrastive(half, labels)
    assert found.dtype is torch.float32
    assert found.item() == pytest.approx(slow(half.double().tolist(), labels.tolist(), 0.07), rel=1e-5)


@pytest.mark.parametrize(
    ('shapes', 'temperature', 'message'),
    [
        (((4, 3), (3,)), 0.07, r'got \[4, 3\] and \[3\]'),
        (((4,), (4,)), 0.07, 'expected features'),
        (((4, 3), (4,)), 0.0, 'above 0, such as 0.07, got 0.0'),
    ],
)
def test_bad_input(shapes: tuple, temperature: float, message: str) -> None:
    features, labels = map(torch.zeros, shapes)
    with pytest.raises(ValueError, match=message):
        supervised_contrastive(features, labels, temperature)


def test_the_feature_of_a_backbone() -> None:
    token, tokens, map_ = torch.randn(2, 3), torch.randn(2, 5, 3), torch.randn(2, 3, 4, 6)
    assert torch.equal(pooled(last_feature((map_, token))), token)
    assert torch.equal(pooled(last_feature([(map_, token)])), token)
    torch.testing.assert_close(pooled(last_feature((tokens,))), sum(tokens.unbind(1)) / 5)
    torch.testing.assert_close(pooled(last_feature(map_)), map_.flatten(2).sum(2) / 24)
    with pytest.raises(ValueError, match=r'got \[2, 3, 4, 5, 6\]; set target of the hook'):
        pooled(torch.zeros(2, 3, 4, 5, 6))
    for nothing in ((), None):
        with pytest.raises(TypeError, match='expected one tensor per stage'):
            last_feature(nothing)


def test_pixels_keep_their_labels() -> None:
    """Each pixel of the map has its label as its feature; ignored pixels are missing."""
    labels = torch.randint(0, 4, (2, 8, 12))
    labels[0, :4] = 255
    feature = labels[:, ::2, ::2].float()[:, None].repeat(1, 3, 1, 1)
    vectors, found = spread_pixels(feature, labels, 9, 255)
    assert len(found) == len(vectors) < 18
    assert torch.equal(vectors[:, 1].long(), found)
    assert (found != 255).all()
    everything, _ = spread_pixels(feature, labels, 1000, 255)
    assert len(everything) == int((labels[:, ::2, ::2] != 255).sum())
    with pytest.raises(ValueError, match='pixels need a map'):
        spread_pixels(torch.zeros(2, 3), labels, 9, 255)
