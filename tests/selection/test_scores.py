"""Scores against the gradients of the batches, one by one."""

import pytest
import torch
from torch import nn

from mmgps.selection import (
    GradientScore,
    SignalToNoiseScore,
    SquaredGradientScore,
    TaylorScore,
    describe,
    sum_gradients,
)

BATCHES = 7


@pytest.fixture
def case() -> tuple:
    torch.manual_seed(0)
    model = nn.Linear(5, 3, dtype=torch.float64)
    batches = [torch.randn(4, 5, dtype=torch.float64) for _ in range(BATCHES)]
    with torch.no_grad():
        for batch in batches:
            batch[:, 4] = 0  # an input that gives no gradient

    def loss(batch: torch.Tensor) -> torch.Tensor:
        return model(batch).square().sum()

    each = torch.stack([torch.autograd.grad(loss(batch), model.weight)[0] for batch in batches])
    return model, batches, loss, each


def scored(score, model, batches, loss) -> torch.Tensor:
    gradients = sum_gradients(model, {'weight': model.weight}, batches, loss, None, score.accumulation)
    return score(describe(model)['weight'], gradients['weight'])


def test_first_order_scores(case: tuple) -> None:
    model, batches, loss, each = case
    torch.testing.assert_close(scored(GradientScore(), model, batches, loss), each.sum(0).abs())
    expected = (each.sum(0) * model.weight.detach()).abs()
    torch.testing.assert_close(scored(TaylorScore(), model, batches, loss), expected)


def test_squared_gradients(case: tuple) -> None:
    model, batches, loss, each = case
    torch.testing.assert_close(scored(SquaredGradientScore(), model, batches, loss), each.square().sum(0))


def test_signal_to_noise_grows_with_mean_over_deviation(case: tuple) -> None:
    model, batches, loss, each = case
    found = scored(SignalToNoiseScore(), model, batches, loss)
    assert found.shape == model.weight.shape
    assert torch.equal(found[:, 4], torch.zeros(3, dtype=torch.float64))
    ratio = found[:, :4] / BATCHES**0.5
    expected = each.mean(0).abs() / each.std(0, correction=0)
    torch.testing.assert_close(ratio / (1 - ratio**2).sqrt(), expected[:, :4])
