"""Options that save time or memory change no result, for every method."""

import copy
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from training_pair import prepare, random_selection, take_routes_in_turn, uneven

from mmgps.sparse import CompactTraining, FusedAttention, LeanOption, MaskedTraining, Recomputation, saved_bytes
from mmgps.sparse.attach import Derivation, derivation_of, mark_derived
from mmgps.sparse.attention import runs_natively
from mmgps.tuning import BiasTuning, FullTuning, LoRA

CALLER = f'{__name__}.Caller'


class Caller(nn.Module):
    """Drops the attention weights and passes three views of one tensor, like mmcv's wrapper."""

    def __init__(self, width: int = 12, **options) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, 3, **options)

    def forward(self, x: Tensor, key: Tensor | None = None, **masks) -> Tensor:
        key = x if key is None else key
        if self.attn.batch_first:
            return self.attn(x, key, key, **masks)[0]
        views = (x.transpose(0, 1), key.transpose(0, 1), key.transpose(0, 1))
        return self.attn(*views, **masks)[0].transpose(0, 1)


class Block(nn.Module):
    """A transformer block with each kind of layer that the options affect."""

    def __init__(self, dropout: float = 0.0, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attn = Caller(dropout=dropout)
        self.ffn = nn.Sequential(nn.Linear(12, 40), activation(), nn.Dropout(dropout), nn.Linear(40, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.ffn(self.ln2(x))


class Blocks(nn.Module):
    def __init__(self, reentrant: bool | None = None, **options) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.blocks = nn.ModuleList(Block(**options) for _ in range(3))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return x


METHODS = {
    'full': (CompactTraining, lambda net: FullTuning().select(net)),
    'bias': (CompactTraining, lambda net: BiasTuning().select(net)),
    'lora': (CompactTraining, lambda net: LoRA(2, parts=('qkv', 'proj', 'fc1', 'fc2')).select(net)),
    'masked': (MaskedTraining, lambda net: random_selection(net, 2)),
    'k1': (CompactTraining, lambda net: random_selection(net, 1)),
    'k5': (CompactTraining, lambda net: random_selection(net, 5)),
}
OPTIONS: dict[str, Callable[[], Sequence[LeanOption]]] = {
    'fused': lambda: [FusedAttention([CALLER])],
    'recomputed': lambda: [Recomputation()],
    'forgetting': lambda: [Recomputation(hidden=0.5)],
    'all': lambda: [FusedAttention([CALLER]), Recomputation(hidden=1.0)],
}


def network(**options) -> nn.Module:
    torch.manual_seed(0)
    net = Blocks(**options).double()
    for value in net.parameters():
        nn.init.normal_(value, std=0.3)
    return net


def inputs() -> Tensor:
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def trained(net: nn.Module, method: str, options: Sequence[LeanOption], steps: int = 3, autocast: bool = False) -> dict:
    """State after ``steps``, first output and first gradients of a copy of ``net``."""
    torch.manual_seed(0)  # for the parameters that LoRA adds
    net = copy.deepcopy(net)
    kind, choose = METHODS[method]
    training, optimizer = prepare(kind, net, choose(net))
    for option in options:
        option.start(net)
    found: dict = {}
    for step in range(steps):
        torch.manual_seed(step)
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            output = net(inputs().to(next(net.parameters()).dtype).requires_grad_())
        optimizer.zero_grad()
        uneven([output]).backward()
        held = [value for group in optimizer.param_groups for value in group['params']]
        found.setdefault('output', output.detach())
        found.setdefault('gradients', [None if v.grad is None else v.grad.clone() for v in held])
        training.before_step()
        optimizer.step()
        training.after_step()
    return {**found, 'state': net.state_dict()}


def assert_same(found: dict, expected: dict, **within) -> None:
    within = within or dict(rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found['output'], expected['output'], **within)
    assert [g is None for g in found['gradients']] == [g is None for g in expected['gradients']]
    for one, other in zip(found['gradients'], expected['gradients'], strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, **within)
    assert list(found['state']) == list(expected['state'])


@pytest.mark.parametrize('options', OPTIONS)
@pytest.mark.parametrize('method', METHODS)
def test_outputs_and_gradients_are_those_without(method: str, options: str) -> None:
    net = network()
    found, expected = trained(net, method, OPTIONS[options]()), trained(net, method, ())
    assert_same(found, expected)
    for name, value in found['state'].items():
        torch.testing.assert_close(value, expected['state'][name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize('options', OPTIONS)
def test_every_route(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    take_routes_in_turn(monkeypatch)
    expected = trained(net, 'k1', ())
    take_routes_in_turn(monkeypatch)
    assert_same(trained(net, 'k1', OPTIONS[options]()), expected)


@pytest.mark.parametrize('method', ['full', 'k1'])
def test_frozen_numbers_keep_their_bits(method: str) -> None:
    net = network()
    found = trained(net, method, OPTIONS['all']())['state']
    selection = METHODS[method][1](net)
    masks = {p.name: c.mask(p.neurons) for p, c in selection.resolve(net)}
    for name, before in net.state_dict().items():
        if name not in selection.whole:
            frozen = ~masks[name] if name in masks else torch.ones_like(before, dtype=torch.bool)
            assert torch.equal(found[name][frozen], before[frozen]), name
    assert any(not torch.equal(found[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize('activation', [nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.ELU])
@pytest.mark.parametrize('method', ['full', 'k1'])
def test_every_activation(activation: type[nn.Module], method: str) -> None:
    net = network(activation=activation)
    assert_same(trained(net, method, [Recomputation(1.0)]), trained(net, method, ()))


@pytest.mark.parametrize('method', ['full', 'k1', 'lora'])
def test_dropout_of_the_network_draws_the_same(method: str) -> None:
    net = network(dropout=0.3).train()
    assert_same(trained(net, method, [Recomputation(1.0)]), trained(net, method, ()))


@pytest.mark.parametrize('method', ['full', 'k1', 'lora'])
@pytest.mark.parametrize('reentrant', [True, False])
def test_gradient_checkpointing(method: str, reentrant: bool) -> None:
    assert_same(trained(network(reentrant=reentrant), method, OPTIONS['all']()), trained(network(), method, ()))


@pytest.mark.parametrize('method', ['full', 'bias', 'k1', 'k5'])
@pytest.mark.parametrize('options', ['recomputed', 'forgetting'])
def test_autocast_rounds_as_without(method: str, options: str) -> None:
    """Backward runs outside autocast but recomputes tensors with the same type and bits."""
    net = network().float()
    found, expected = (trained(net, method, made, autocast=True) for made in (OPTIONS[options](), ()))
    assert torch.equal(found['output'], expected['output'])
    # sums of bias gradients round differently, since another product adds them in another order
    assert_same(found, expected, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('method', ['full', 'k1'])
def test_recomputed_tensors_have_the_same_bits(method: str, autocast: bool) -> None:
    """Outputs of norms, of linear layers behind them, and of activations are recomputed outside autocast."""
    net = network().float()
    prepare(CompactTraining, net, METHODS[method][1](net))
    Recomputation(1.0).start(net)
    outputs: list[Tensor] = []
    layers = [part for block in net.blocks for part in (block.ln1, block.ln2, block.ffn[0], block.ffn[1])]
    for layer in layers:
        layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        net(inputs().float())
    assert len(outputs) == len(layers)
    assert (outputs[2].dtype == torch.bfloat16) == autocast
    for output in outputs:
        derived = derivation_of(output)
        made = derived.make(*derived.sources)
        made = made if derived.pointwise is None else derived.pointwise(made)
        assert made.dtype == output.dtype
        assert torch.equal(made, output)


def kept(net: nn.Module, method: str, options: Sequence[LeanOption]) -> int:
    net = copy.deepcopy(net)
    _, optimizer = prepare(METHODS[method][0], net, METHODS[method][1](net))
    for option in options:
        option.start(net)
    held = [value for group in optimizer.param_groups for value in group['params']]
    return saved_bytes(lambda: net(inputs()), [*net.parameters(), *held])


def test_linear_layers_keep_nothing_of_their_input() -> None:
    """Full fine-tuning, any K and bias tuning save the same, except in the first layer, whose input no layer makes."""
    net = network()
    first = inputs().nbytes
    bare = kept(net, 'bias', OPTIONS['all']())
    for method in ('k1', 'k5', 'masked', 'full'):
        assert bare <= kept(net, method, OPTIONS['all']()) <= bare + first, method
    assert kept(net, 'full', ()) > 2 * bare
    shares = [kept(net, 'k1', [FusedAttention([CALLER]), Recomputation(hidden)]) for hidden in (0, 0.33, 0.67, 1)]
    hidden = 2 * 5 * 40 * 8
    assert [shares[0] - share for share in shares] == [0, hidden, 2 * hidden, 3 * hidden]


@pytest.mark.parametrize('method', ['full', 'k1', 'lora'])
def test_copies_and_pickles_are_plain(method: str) -> None:
    net = network()
    training, _ = prepare(METHODS[method][0], net, METHODS[method][1](net))
    options = OPTIONS['all']()
    for option in options:
        option.start(net)
    x = inputs()
    expected = net(x)
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    for twin in copies:
        fused = [getattr(vars(m).get('forward'), 'fused', False) for m in twin.modules()]
        assert not any(fused)
        assert method == 'lora' or all(runs_natively(b.attn.attn) for b in twin.blocks)
        torch.testing.assert_close(twin(x), expected, rtol=1e-10, atol=1e-10)
    for option in reversed(options):
        option.close()
    training.close()
    assert method == 'lora' or not any('forward' in vars(m) or m._forward_hooks for m in net.modules())


@pytest.mark.parametrize('method', ['full', 'k1'])
def test_one_compiled_graph(method: str) -> None:
    torch._dynamo.reset()
    net = network()
    training, _ = prepare(METHODS[method][0], net, METHODS[method][1](net))
    for option in OPTIONS['all']():
        option.start(net)
    eager = net(inputs())
    compiled = torch.compile(net, backend='aot_eager', fullgraph=True)(inputs())
    torch.testing.assert_close(compiled, eager, rtol=1e-10, atol=1e-10)
    uneven([eager]).backward()
    swap = training.replacements()
    held = [*swap.values(), *(v for v in net.parameters() if v.requires_grad and v not in swap)]
    expected = [value.grad.clone() for value in held]
    for value in held:
        value.grad = None
    uneven([compiled]).backward()
    for value, gradient in zip(held, expected, strict=True):
        torch.testing.assert_close(value.grad, gradient, rtol=1e-10, atol=1e-10)
    torch._dynamo.reset()


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    for method in ('full', 'k1'):
        net = network()
        training, optimizer = prepare(CompactTraining, net, METHODS[method][1](net), 'sgd')
        for option in OPTIONS['all']():
            option.start(net)
        wrapped = DistributedDataParallel(net)
        for _ in range(3):
            optimizer.zero_grad()
            wrapped(inputs()[rank : rank + 1]).square().mean().backward()
            training.before_step()
            optimizer.step()
            training.after_step()
        torch.save(net.state_dict(), folder / f'{method}-{rank}.pt')
    dist.barrier()
    os._exit(0)  # see ddp_runs.py


def test_two_processes_are_one_over_the_samples_of_both(tmp_path: Path) -> None:
    mp.spawn(_work, (tmp_path,), nprocs=2)
    for method in ('full', 'k1'):
        net = network()
        training, optimizer = prepare(CompactTraining, net, METHODS[method][1](net), 'sgd')
        for _ in range(3):
            optimizer.zero_grad()
            net(inputs()).square().mean().backward()
            optimizer.step()
            training.after_step()
        for rank in range(2):
            found = torch.load(tmp_path / f'{method}-{rank}.pt')
            for name, value in net.state_dict().items():
                torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('method', ['full', 'k1'])
def test_options_close_before_the_training_that_they_build_on(method: str) -> None:
    """Options that start twice are installed once."""
    net = network()
    prepare(METHODS[method][0], net, METHODS[method][1](net))
    attention = net.blocks[0].attn.attn
    before = {id(m): (vars(m).get('forward'), dict(m._forward_hooks)) for m in net.modules()}
    options = OPTIONS['all']()
    for option in [*options, *options]:
        option.start(net)
    assert vars(attention)['forward'].fused
    assert len(net.blocks[0].ln1._forward_hooks) == 1
    assert '3 of nn.MultiheadAttention' in options[0].report()
    for option in reversed(options):
        option.close()
    assert not getattr(vars(attention).get('forward'), 'fused', False)
    assert {id(m): (vars(m).get('forward'), dict(m._forward_hooks)) for m in net.modules()} == before


def test_a_mark_is_void_after_a_change_in_place() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    y = x * 2
    mark_derived(y, Derivation((x.detach(),), lambda own: own * 2))
    assert torch.equal(derivation_of(y.t()[1:3]).make(x.detach()), y.t()[1:3])
    assert derivation_of(y.clone()) is None
    with torch.no_grad():
        y += 1
    assert derivation_of(y) is None
    y = x * 2
    mark_derived(y, Derivation((x.detach(),), lambda own: own * 2))
    with torch.no_grad():
        x += 1
    assert derivation_of(y) is None


def test_refusals() -> None:
    net = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(ValueError, match='no layer norm, group norm or activation'):
        Recomputation().start(net)
    with pytest.raises(ValueError, match=r'has no nn\.MultiheadAttention'):
        FusedAttention().start(net)
    with pytest.raises(ValueError, match=r'found .*Caller\); remove'):
        FusedAttention().start(network())
    with pytest.raises(ValueError, match='from 0 to 1, got 2'):
        Recomputation(2)
