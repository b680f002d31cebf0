"""Every route, and steps in mixed precision, on the CPU and on a CUDA device if there is one."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from gradient_pair import FLOAT32, Exact, assert_equal_gradients
from layers_by_type import LAYERS, Attention
from torch import nn
from training_pair import ROUTES, prepare, random_selection

from mmgps.sparse import CompactTraining, MaskedTraining
from mmgps.sparse.routes import GradientKernel

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
DEVICES = ['cpu', pytest.param('cuda', marks=[pytest.mark.gpu, no_cuda])]
HALF = Exact(torch.bfloat16, 16 * 2**-8)


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize('exact', [FLOAT32, HALF], ids=['float32', 'bfloat16'])
@pytest.mark.parametrize('route', [*ROUTES, None])
@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('device', DEVICES)
def test_every_route_gives_the_gradient_of_masked_training(
    device: str, name: str, route: GradientKernel | None, exact: Exact
) -> None:
    make, shape = LAYERS[name]
    assert_equal_gradients(make().to(device), torch.randn(shape).to(device), 3, route, exact)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('device', DEVICES)
def test_steps_under_autocast_and_a_loss_scaler(device: str, dtype: torch.dtype) -> None:
    base = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GELU(), nn.Flatten(2), nn.Linear(16, 16), Attention()).to(device)
    x = torch.randn(2, 3, 8, 8).to(device)
    selection = random_selection(base, 2)
    before = base.state_dict()
    states = []
    for kind in (MaskedTraining, CompactTraining):
        network = copy.deepcopy(base)
        training, optimizer = prepare(kind, network, selection, 'sgd')
        scaler = torch.amp.GradScaler(device, init_scale=128.0)
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast(device, dtype):
                loss = (network(x).float() - 0.3).square().mean()
            scaler.scale(loss).backward()
            training.before_step()
            scaler.step(optimizer)
            scaler.update()
            training.after_step()
        states.append(network.state_dict())
    masked, compact = states
    for parameter, connections in selection.resolve(base):
        name, mask = parameter.name, connections.mask(parameter.neurons).to(device)
        assert torch.equal(compact[name][~mask], before[name][~mask])
        assert (compact[name] != before[name])[mask].any()
        torch.testing.assert_close(compact[name] - before[name], masked[name] - before[name], rtol=0.05, atol=1e-4)
