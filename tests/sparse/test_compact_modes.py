"""Compact training together with checkpointing, hooks, autocast, clipping, copies and other features of training."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from training_pair import assert_equal_training, prepare, random_selection

from mmgps.selection import Connections, PerLayer, PerNeuron, Selection, architecture_fingerprint
from mmgps.sparse import CompactTraining, MaskedTraining, saved_bytes


class Net(nn.Module):
    """A convolution followed by an in-place activation, an attention and two linear layers."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.reentrant = reentrant

    def block(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mlp(x + self.attention(x, x, x)[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu_(self.conv(x)).flatten(2).transpose(1, 2)
        return self.block(x) if self.reentrant is None else checkpoint(self.block, x, use_reentrant=self.reentrant)


def images(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, dtype=dtype)


def square(x: torch.Tensor):
    return lambda network, step: (network(x + 0.01 * step) - 0.3).square().mean()


@pytest.mark.parametrize('reentrant', [False, True])
def test_gradient_checkpointing(reentrant: bool) -> None:
    network = Net(reentrant).double()
    assert_equal_training(network, random_selection(network, 2), square(images()), steps=5)


def test_channels_last_and_inputs_that_are_not_contiguous() -> None:
    network = Net().double().to(memory_format=torch.channels_last)
    x = images().to(memory_format=torch.channels_last)
    selection = random_selection(network, 2)
    assert_equal_training(network, selection, square(x), steps=5)
    layer = nn.Linear(6, 4).double()
    across = torch.randn(6, 5, dtype=torch.float64)
    assert_equal_training(layer, random_selection(layer), lambda net, step: net(across.t()).t().square().sum(), steps=3)


@pytest.mark.parametrize(
    'make', [lambda: nn.Conv2d(3, 4, 3), lambda: nn.ConvTranspose2d(3, 4, 2), lambda: nn.Linear(8, 4)]
)
def test_a_hook_that_was_there_before_and_changes_the_output(make) -> None:
    layer = make().double()
    layer.register_forward_hook(lambda module, args, output: output.square() * 3)
    assert_equal_training(layer, random_selection(layer), square(images()), steps=3, optimizer='sgd')


def gradients(kind: type, network: nn.Module, selection, loss, times: int = 1) -> dict[str, torch.Tensor]:
    """The flat gradient of the chosen numbers of each weight."""
    network = copy.deepcopy(network)
    training, _ = prepare(kind, network, selection)
    for _ in range(times):
        loss(network).backward()
    found = {}
    for parameter, connections in selection.resolve(network):
        value = training.replacements().get(parameter.value, parameter.value)
        flat = value.grad.reshape(-1)
        chosen = (
            parameter.neurons.to_rows(value.grad).reshape(-1)[connections.positions] if kind is MaskedTraining else flat
        )
        found[parameter.name] = chosen
    return found


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('k', [1, 20])
@pytest.mark.filterwarnings('ignore:k=20 exceeds the fan-in')
def test_autocast_gives_the_dense_gradient_within_its_rounding(dtype: torch.dtype, k: int) -> None:
    network, x = Net(), images(torch.float32)
    selection = random_selection(network, k)

    def loss(net: nn.Module) -> torch.Tensor:
        with torch.autocast('cpu', dtype):
            return (net(x).float() - 0.3).square().mean()

    masked, compact = (gradients(kind, network, selection, loss) for kind in (MaskedTraining, CompactTraining))
    for name, expected in masked.items():
        assert compact[name].dtype is torch.float32
        torch.testing.assert_close(compact[name], expected, rtol=0.03, atol=0.03 * float(expected.abs().max()))


def test_gradients_accumulate() -> None:
    network, x = Net().double(), images()
    selection = random_selection(network, 2)
    once, twice = (gradients(CompactTraining, network, selection, lambda net: net(x).sum(), n) for n in (1, 2))
    for name in once:
        torch.testing.assert_close(twice[name], 2 * once[name])


def test_two_forwards_before_one_backward() -> None:
    network, x = Net().double(), images()
    assert_equal_training(
        network, random_selection(network, 2), lambda net, step: (net(x) * net(x.flip(0))).square().mean(), steps=3
    )


def test_clipping_and_loss_scaling_see_the_trained_numbers_only() -> None:
    network, x = Net(), images(torch.float32)
    selection = random_selection(network)
    norms = {}
    for kind in (MaskedTraining, CompactTraining):
        net = copy.deepcopy(network)
        training, optimizer = prepare(kind, net, selection)
        scaler = torch.amp.GradScaler('cpu', init_scale=64.0)
        scaler.scale(net(x).square().mean()).backward()
        training.before_step()
        scaler.unscale_(optimizer)
        held = [value for group in optimizer.param_groups for value in group['params']]
        norms[kind] = nn.utils.clip_grad_norm_(held, 0.1)
        scaler.step(optimizer)
        training.after_step()
    torch.testing.assert_close(norms[CompactTraining], norms[MaskedTraining])


def test_an_empty_batch_gives_gradients_of_zero() -> None:
    network = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    selection = random_selection(network)
    found = gradients(CompactTraining, network, selection, lambda net: net(torch.zeros(0, 6)).sum())
    assert all(not value.any() and value.isfinite().all() for value in found.values())


def test_nothing_is_registered_and_nothing_kept_without_gradients() -> None:
    network, x = Net(), images(torch.float32)
    names, keys = [name for name, _ in network.named_parameters()], list(network.state_dict())
    training, _ = prepare(CompactTraining, network, random_selection(network), registered=False)
    assert [name for name, _ in network.named_parameters()] == names
    assert list(network.state_dict()) == keys
    network(x).sum().backward()
    assert all(old.grad is None and new.grad is not None for old, new in training.replacements().items())
    with torch.no_grad():
        assert network(x).grad_fn is None
    for value in (*network.parameters(), *training.replacements().values()):
        value.requires_grad_(False)
    assert network(x).grad_fn is None


def test_closing_restores_the_modules_exactly() -> None:
    network, x = Net(), images(torch.float32)
    plain = {name: set(vars(module)) for name, module in network.named_modules()}
    flags = [value.requires_grad for value in network.parameters()]
    expected = network(x)
    with CompactTraining(network, random_selection(network)):
        network(x)
        assert any('forward' in vars(module) for module in network.modules())
    assert {name: set(vars(module)) for name, module in network.named_modules()} == plain
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert not any(value._post_accumulate_grad_hooks for value in network.parameters())
    assert not network._state_dict_pre_hooks
    assert [value.requires_grad for value in network.parameters()] == flags
    assert torch.equal(network(x), expected)


def test_copies_and_pickles_are_plain_networks() -> None:
    network, x = Net(), images(torch.float32)
    training, _ = prepare(CompactTraining, network, random_selection(network))
    expected = network(x)
    twin = copy.deepcopy(network)
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    for other in (twin, torch.load(file, weights_only=False)):
        torch.testing.assert_close(other(x), expected)  # a plain network multiplies in another order
        before = [value.grad for value in training.replacements().values()]
        other(x).sum().backward()
        assert [value.grad for value in training.replacements().values()] == before
        with torch.no_grad():
            for value in other.parameters():
                value.zero_()
        assert not other(x).any()
        assert torch.equal(network(x), expected)


def test_columns_keep_little_and_large_layers_are_cheaper_than_dense() -> None:
    layer, x = nn.Linear(256, 256), torch.randn(512, 256)
    columns = torch.arange(256) % 4 * 7
    connections = {'weight': Connections(torch.arange(256) * 256 + columns, 256, 256)}
    selection = Selection('gps', connections, ('bias',), architecture_fingerprint(layer))
    training, _ = prepare(CompactTraining, layer, selection)
    assert training.routes()['weight'].kind == 'columns'
    assert saved_bytes(lambda: layer(x), layer.parameters()) == (4 + 1) * 512 * 4


def test_a_backbone_that_moved_is_refused() -> None:
    network = Net()
    training = CompactTraining(network, random_selection(network))
    network.double()
    with pytest.raises(RuntimeError, match='move and convert the backbone before'):
        training.start()


def test_values_have_a_row_per_neuron_where_counts_are_equal() -> None:
    network = Net()
    for choice, shaped in ((PerNeuron(), True), (PerLayer(), False)):
        training = CompactTraining(network, random_selection(network, 2, choice=choice))
        for dense, values in training.replacements().items():
            neurons = dense.shape[0]
            assert (values.shape == (neurons, 2)) is shaped
            assert values.numel() == 2 * neurons
        assert_equal_training(network.double(), random_selection(network, 2, choice=choice), square(images()), steps=3)
        network.float()
