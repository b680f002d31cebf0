import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from mmgps.selection import EmptyLoaderError, NonFiniteGradientError, sum_gradients


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 2))


def batches(count: int = 3) -> list[torch.Tensor]:
    return [torch.randn(5, 3, 4, 4) for _ in range(count)]


def weights(net: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in net.named_parameters() if value.dim() > 1}


def test_sum_equals_a_loop_over_batches() -> None:
    net, data = small_net().eval(), batches()
    sums = sum_gradients(net, weights(net), data, lambda x: net(x).square().sum())
    for name, value in weights(net).items():
        expected = sum(torch.autograd.grad(net(x).square().sum(), value)[0] for x in data)
        torch.testing.assert_close(sums[name], expected)


def test_nothing_is_left_behind() -> None:
    net, data = small_net(), batches()
    net[0].bias.requires_grad_(False)
    net[4].weight.grad = torch.ones_like(net[4].weight)
    net.train()
    net[2].eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002

    def loss(x: torch.Tensor) -> torch.Tensor:
        random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002
        net.train()
        return net(x).square().sum()

    sum_gradients(net, weights(net), data, loss)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    assert [module.training for module in net.modules()] == modes
    assert random.getstate() == generators[0]
    assert np.random.get_state()[1].tolist() == generators[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), generators[2])
    assert [value.requires_grad for value in net.parameters()] == [True, False, True, True, True, True]
    assert net[0].weight.grad is None
    assert torch.equal(net[4].weight.grad, torch.ones_like(net[4].weight))


def test_other_devices_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch warns where the random state of all of several devices is saved, and opens a context on each."""
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.random, '_fork_rng_warned_already', False)
    monkeypatch.setattr(torch.cuda, 'get_rng_state', lambda device: pytest.fail(f'asked {device}'))
    net = small_net()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        sum_gradients(net, weights(net), batches(), lambda x: net(x).square().sum())


def test_no_other_gradient_is_made() -> None:
    net = small_net()
    seen = []
    wanted = {'4.weight': net[4].weight}

    def loss(x: torch.Tensor) -> torch.Tensor:
        seen.append([name for name, value in net.named_parameters() if value.requires_grad])
        return net(x).sum()

    sum_gradients(net, wanted, batches(1), loss)
    assert seen == [['4.weight']]


def test_unreached_parameters_have_zero_gradient() -> None:
    net, extra = small_net(), nn.Linear(2, 2)
    model = nn.ModuleList([net, extra])
    sums = sum_gradients(
        model,
        {'extra': extra.weight},
        batches(1),
        lambda x: net(x).sum() + extra.bias.sum() * 0 + extra(torch.zeros(1, 2)).sum(),
    )
    assert sums['extra'].count_nonzero() == 0
    net.requires_grad_(True)
    sums = sum_gradients(model, {**weights(net), 'extra': extra.weight}, batches(1), lambda x: net(x).sum())
    assert sums['extra'].count_nonzero() == 0
    assert sums['4.weight'].count_nonzero() > 0


def test_bfloat16_weights_are_summed_in_float32() -> None:
    layer = nn.Linear(4, 2, bias=False).bfloat16()
    x = torch.full((1, 4), 1.0, dtype=torch.bfloat16)
    sums = sum_gradients(layer, {'w': layer.weight}, [x] * 300, lambda x: layer(x).sum())
    assert sums['w'].dtype == torch.float32
    assert sums['w'].unique().tolist() == [300.0]  # bfloat16 would stop at 256


def test_autocast_sums_in_float32() -> None:
    net = nn.Linear(4, 2)
    data = [torch.randn(3, 4) for _ in range(3)]

    def loss(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast('cpu', torch.bfloat16):
            return net(x).float().square().sum()

    sums = sum_gradients(net, {'w': net.weight}, data, loss)
    assert sums['w'].dtype == torch.float32
    exact = sum_gradients(net, {'w': net.weight}, data, lambda x: net(x).square().sum())
    torch.testing.assert_close(sums['w'], exact['w'], rtol=0.05, atol=0.05)


def test_an_overflowing_scale_is_halved() -> None:
    net = nn.Linear(4, 2).half()
    data = [torch.ones(1, 4).half() for _ in range(2)]
    sums = sum_gradients(net, {'w': net.weight}, data, lambda x: net(x).sum().float(), loss_scale=2.0**20)
    assert sums['w'].unique().tolist() == [2.0]


@pytest.mark.parametrize('scale', [None, 4.0])
def test_non_finite_gradients_name_the_layer(scale: float | None) -> None:
    net = small_net()
    with pytest.raises(NonFiniteGradientError, match=r"first in '0\.weight'"):
        sum_gradients(net, weights(net), batches(1), lambda x: net(x).sum() * float('nan'), scale)
    assert net[0].weight.grad is None


def test_an_empty_loader_is_an_error() -> None:
    net = small_net()
    with pytest.raises(EmptyLoaderError, match='empty'):
        sum_gradients(net, weights(net), [], lambda x: net(x).sum())


def test_a_batch_is_repeated_where_it_overflowed_on_another_process() -> None:
    net, data, seen = small_net().eval(), batches(), []

    def loss(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return net(x).square().sum()

    answers = iter([False, True, False, False])
    sums = sum_gradients(net, weights(net), data, loss, 64.0, None, lambda here: next(answers))
    assert [next(at for at, x in enumerate(data) if x is y) for y in seen] == [0, 1, 1, 2]
    expected = sum_gradients(net, weights(net), data, lambda x: net(x).square().sum())
    for name in expected:
        torch.testing.assert_close(sums[name], expected[name])
