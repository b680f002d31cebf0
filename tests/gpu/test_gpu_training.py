"""Compact training on CUDA equals masked training: every layer type and route, compiled, captured, channels last."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from gradient_pair import Exact, assert_equal_gradients
from layers_by_type import CONVOLUTIONS, LAYERS
from torch import Tensor, nn
from training_pair import ROUTES, assert_equal_training, prepare, random_selection, uneven

from mmgps.sparse import CompactTraining, FusedAttention, MaskedTraining, Recomputation, start_options
from mmgps.sparse.routes import GradientKernel, LayerCost

pytestmark = pytest.mark.gpu
FLOAT64 = Exact(torch.float64, 1e-11)


@pytest.mark.parametrize('route', [*ROUTES, None])
@pytest.mark.parametrize('name', LAYERS)
def test_gradients_are_those_of_masked_training(device: str, name: str, route: GradientKernel | None) -> None:
    make, shape = LAYERS[name]
    assert_equal_gradients(make().to(device), torch.randn(shape).to(device), 3, route, FLOAT64)


@pytest.mark.parametrize('optimizer', ['adamw', 'sgd'])
def test_channels_last(device: str, optimizer: str) -> None:
    make, shape = CONVOLUTIONS
    network = make().double().to(device, memory_format=torch.channels_last)
    x = torch.randn(shape, dtype=torch.float64).to(device, memory_format=torch.channels_last)
    assert_equal_training(network, random_selection(network, 2), lambda net, _: uneven([net(x)]), 10, optimizer)


def state_after(network: nn.Module, x: Tensor, forward: Callable[[nn.Module], nn.Module]) -> dict[str, Tensor]:
    network = copy.deepcopy(network)
    # not Adam, which would amplify the rounding errors that are the only gradient of the key bias
    training, optimizer = prepare(CompactTraining, network, random_selection(network, 2), 'sgd')
    run = forward(network)
    for _ in range(4):
        optimizer.zero_grad()
        uneven([run(x)]).backward()
        training.before_step()
        optimizer.step()
        training.after_step()
    return network.state_dict()


@pytest.mark.parametrize('mode', ['default', 'reduce-overhead'])
@pytest.mark.parametrize('name', ['linear', 'attention', 'convolutions'])
def test_compiled_training_is_eager_training(device: str, toy: bool, name: str, mode: str) -> None:
    """With ``reduce-overhead`` the compiler captures CUDA graphs."""
    if toy and (name, mode) != ('linear', 'default'):
        pytest.skip('compiling for the CPU is tested in tests/sparse')
    make, shape = LAYERS.get(name, CONVOLUTIONS)
    network, x = make().double().to(device), torch.randn(shape, dtype=torch.float64).to(device)
    expected = state_after(network, x, lambda net: net)
    torch._dynamo.reset()
    found = state_after(network, x, lambda net: torch.compile(net, mode=mode))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f'{key}: {text}')
    assert any(not torch.equal(value, network.state_dict()[key]) for key, value in expected.items())


@pytest.mark.parametrize('route', [*ROUTES, None])
def test_lean_options_change_nothing_but_rounding(
    device: str, route: GradientKernel | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('mmseg')
    from architectures import SIDE, build, maps

    if route is not None:
        monkeypatch.setattr(LayerCost, 'costs', lambda work: {route: 0.0})
    network, x = build('vit').double().to(device), torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64).to(device)
    states = []
    for options in ([], [FusedAttention(), Recomputation()]):
        own = copy.deepcopy(network)
        training, optimizer = prepare(CompactTraining, own, random_selection(own, 2), 'sgd')
        start_options(options, own)
        for _ in range(3):
            optimizer.zero_grad()
            uneven(maps(own, x)).backward()
            training.before_step()
            optimizer.step()
            training.after_step()
        states.append(own.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-9, atol=1e-11)
    assert any(not torch.equal(value, network.state_dict()[key]) for key, value in states[1].items())


def test_a_captured_step_is_an_eager_one(device: str, toy: bool) -> None:
    if toy:
        pytest.skip('CUDA graphs need a CUDA device')
    network = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)).to(device)
    selection, inputs = random_selection(network, 2), torch.randn(6, 8, 16).to(device)

    def train(kind: type, captured: bool) -> dict[str, Tensor]:
        own = copy.deepcopy(network)
        training, optimizer = prepare(kind, own, selection, 'sgd')
        x = inputs[0].clone()

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            own(x).square().mean().backward()
            training.before_step()
            optimizer.step()
            training.after_step()

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        if captured:
            with torch.cuda.graph(graph):
                step()
        for other in inputs[1:]:
            x.copy_(other)
            graph.replay() if captured else step()
        return own.state_dict()

    expected = train(MaskedTraining, False)
    for captured in (False, True):
        for key, value in train(CompactTraining, captured).items():
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6)
