"""Compact training under inductor, which may change the memory layout of tensors, has the gradients of eager mode."""

import copy
import shutil
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
from test_compact_layers import LAYERS
from torch import nn
from training_pair import prepare, random_selection, take_routes_in_turn, uneven

from mmgps.sparse import CompactTraining

pytestmark = pytest.mark.skipif(shutil.which('g++') is None, reason='inductor compiles C++ by g++')


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Beside(nn.Module):
    """Layers with one input each, compiled into one graph."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        # the compiler chooses the memory layout of the results of sin and tanh
        return [layer(inputs[name].sin()).tanh() for name, layer in self.layers.items()]


def last(x: torch.Tensor) -> torch.Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.dim()]) if x.dim() in formats else x


#: These break the graph, since torch does not compile recurrent layers.
BREAKS = ('lstm',)
#: torch 2.13 cannot compile the backward pass of this padding.
UNCOMPILED = ('conv2d-replicate',)


def build(names: Iterable[str], copies: int = 3) -> tuple[Beside, dict[str, torch.Tensor]]:
    """``copies`` of each layer, one per route, and their inputs; layers for images in both memory formats."""
    layers: dict[str, nn.Module] = {}
    inputs: dict[str, torch.Tensor] = {}
    for name in names:
        make, shape = LAYERS[name]
        for at in range(copies):
            layers[f'{name}-{at}'], inputs[f'{name}-{at}'] = make().double(), torch.randn(shape, dtype=torch.float64)
            if len(shape) > 3 and 'unbatched' not in name:
                layers[f'{name}-last-{at}'] = last_module(make().double())
                inputs[f'{name}-last-{at}'] = last(torch.randn(shape, dtype=torch.float64))
    return Beside(layers), inputs


def last_module(layer: nn.Module) -> nn.Module:
    layer = copy.deepcopy(layer)
    for value in layer.parameters():
        value.data = last(value.data)
    return layer


def gradients(
    network: nn.Module, training: CompactTraining, forward: Callable, inputs: dict[str, torch.Tensor], dynamic: bool
) -> dict[str, torch.Tensor]:
    """Gradients of the values by the name of their weight, of other trained parameters, and of the inputs.

    Inputs with dynamic sizes get none, since torch fixes the sizes of an input that needs a gradient.
    """
    inputs = {name: x.clone().requires_grad_(not dynamic) for name, x in inputs.items()}
    for x in inputs.values() if dynamic else ():
        for dim in (0, *range(2, x.dim())) if x.dim() > 3 else (0, 1):
            torch._dynamo.mark_dynamic(x, dim)
    named = {id(value): name for name, value in network.named_parameters()}
    held = {named[id(old)]: new for old, new in training.replacements().items()}
    held |= {name: value for name, value in network.named_parameters() if name not in held}
    for value in held.values():
        value.grad = None
    uneven(forward(inputs)).backward()
    held |= {f'input of {name}': x for name, x in inputs.items()}
    return {name: value.grad for name, value in held.items() if value.grad is not None}


def assert_compiled_is_eager(
    network: nn.Module,
    each: list[dict[str, torch.Tensor]],
    k: int = 2,
    whole: bool = True,
    dynamic: bool = False,
    backend: str = 'inductor',
) -> None:
    """Compare the gradients for ``each`` of several inputs; with ``dynamic`` sizes, one graph must serve all."""
    training, _ = prepare(CompactTraining, network, random_selection(network, k))
    compiled = torch.compile(network, fullgraph=whole, backend=backend)
    for inputs in each:
        expected = gradients(network, training, network, inputs, False)
        if dynamic:
            expected = {name: value for name, value in expected.items() if not name.startswith('input of ')}
        with torch._dynamo.config.patch(error_on_recompile=dynamic):
            found = gradients(network, training, compiled, inputs, dynamic)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-10, atol=1e-11, msg=lambda text, n=name: f'{n}: {text}'
            )
    values = training.replacements().values()
    assert sum(value.grad is not None for value in values) >= 0.9 * len(values)


#: One layer per operation, for every run of the tests; compiling a graph can take a minute on a busy machine.
FEW = ('linear', 'conv2d', 'conv2d-depthwise', 'transposed2d')


def test_layers_by_every_route(monkeypatch: pytest.MonkeyPatch) -> None:
    take_routes_in_turn(monkeypatch)
    network, inputs = build(FEW)
    assert_compiled_is_eager(network, [inputs])


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in LAYERS if name not in UNCOMPILED])
def test_every_layer_by_every_route(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_routes_in_turn(monkeypatch)
    network, inputs = build([name])
    assert_compiled_is_eager(network, [inputs], whole=name not in BREAKS)


class Shared(nn.Module):
    """Layers that read parts of one image ``[batch, 12, height, width]``, each by every route."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = [name for name in names for _ in range(3)]
        self.layers = nn.ModuleList(LAYERS[name][0]() for name in self.names)

    def forward(self, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        x = inputs['x'].sin()
        parts = [x.movedim(1, -1) if name == 'linear' else x[:, : LAYERS[name][1][1]] for name in self.names]
        return [layer(part).tanh() for layer, part in zip(self.layers, parts, strict=True)]


#: One layer for each way to read an input.
SIZED = ('linear', 'conv2d', 'conv2d-dilated', 'conv2d-patches', 'conv2d-depthwise', 'transposed2d')


@pytest.mark.parametrize(
    ('names', 'backend'),
    [(SIZED[:2], 'aot_eager'), *(pytest.param([name], 'inductor', marks=pytest.mark.slow) for name in SIZED)],
)
def test_one_graph_for_all_sizes(names: Iterable[str], backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_routes_in_turn(monkeypatch)
    each = [{'x': torch.randn(shape, dtype=torch.float64)} for shape in ((2, 12, 9, 13), (3, 12, 17, 10))]
    assert_compiled_is_eager(Shared(names).double(), each, dynamic=True, backend=backend)


class Attends(nn.Module):
    """Attention of tokens to themselves and to others, and an additional use of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.last = nn.Linear(6, 6)

    def forward(self, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        x = inputs['x']
        y = self.attention(x, x, x)[0] + self.attention(x, x.flip(0), x.flip(0))[0]
        return [self.last(y), nn.functional.linear(y, self.last.weight @ self.attention.out_proj.weight)]


@pytest.mark.slow
@pytest.mark.parametrize('dynamic', [False, True])
def test_attention_and_weights_that_are_read(dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    take_routes_in_turn(monkeypatch)
    inputs = [{'x': torch.randn(shape, dtype=torch.float64)} for shape in ((2, 4, 6), (3, 7, 6))]
    assert_compiled_is_eager(Attends().double(), inputs, dynamic=dynamic)


class Mapped(nn.Module):
    """A backbone of the zoo."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return list(self.backbone(inputs['x']))


ZOO = ('vit', 'swin', 'mit', 'convnext', 'resnet', 'hrnet', 'mobilenetv2', 'mscan', 'beit')


@pytest.mark.slow
@pytest.mark.parametrize('name', ZOO)
@pytest.mark.filterwarnings('ignore:k=2 exceeds the fan-in')
def test_backbones_of_the_zoo(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = pytest.importorskip('test_compact_zoo')
    assert {*ZOO} == {*zoo.BACKBONES}
    take_routes_in_turn(monkeypatch)
    network = Mapped(zoo.build(name))
    network.train()
    for module in network.modules():
        if isinstance(module, (nn.Dropout, nn.modules.batchnorm._BatchNorm)) or type(module).__name__ == 'DropPath':
            module.eval()  # two runs of one step must draw the same numbers and see the same statistics
    x = torch.randn(2, 3, *zoo.SIZES.get(name, (64, 64)), dtype=torch.float64)
    assert_compiled_is_eager(network, [{'x': x}], whole=False)
