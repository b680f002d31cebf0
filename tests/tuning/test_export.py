"""torch's other front ends give the same numbers for a changed network, or raise an error."""

from __future__ import annotations

import contextlib
import copy
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip('mmpretrain')

from architectures import SIDE, build
from shifted import Small, trained
from test_matrix import CLAIMS, tuned

from mmgps.delta import AppliedDelta, BaseFingerprint, DeltaBank, extract
from mmgps.selection import RandomScore
from mmgps.sparse import CompactTraining
from mmgps.tuning import GPS, SSF, Adapter, InjectionError, LoRA, merge_operations

METHODS = ('gps', 'bias', 'lora', 'adapter', 'ssf', 'vpt-shallow', 'vpt-deep', 'spt-lora', 'spt-adapter')
KINDS = ('vit', 'mmpretrain-vit', 'swin', 'convnext', 'resnet')

pytestmark = [
    pytest.mark.filterwarnings('ignore'),
    pytest.mark.usefixtures('_fresh_compiler'),
]


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def picture(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


class Maps(nn.Module):
    """The feature maps of a backbone as a tuple, which every front end accepts."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(x))


def onnx(net: nn.Module, x: Tensor, folder: Path, dynamo: bool) -> tuple[Tensor, ...]:
    runtime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(net, (x,), str(folder / 'net.onnx'), dynamo=dynamo, input_names=['x'])
    session = runtime.InferenceSession(str(folder / 'net.onnx'), providers=['CPUExecutionProvider'])
    return tuple(torch.from_numpy(found) for found in session.run(None, {'x': x.numpy()}))


WAYS: dict[str, Callable[[nn.Module, Tensor, Path], tuple[Tensor, ...]]] = {
    'trace': lambda net, x, _: torch.jit.trace(net, x)(x),
    'export': lambda net, x, _: torch.export.export(net, (x,)).module()(x),
    'strict': lambda net, x, _: torch.export.export(net, (x,), strict=True).module()(x),
    'onnx': lambda net, x, folder: onnx(net, x, folder, dynamo=True),
    'onnx-trace': lambda net, x, folder: onnx(net, x, folder, dynamo=False),
    'compile': lambda net, x, _: torch.compile(net, backend='aot_eager')(x),
}
#: Cases that also run in the default suite.
QUICK = {
    *[('trace', method, kind) for method in ('gps', 'lora', 'spt-lora') for kind in ('vit', 'swin', 'resnet')],
    *[('trace', method, 'vit') for method in METHODS],
    *[('export', method, 'vit') for method in ('gps', 'lora', 'ssf', 'spt-lora', 'vpt-shallow')],
    *[('export', 'vpt-deep', 'swin'), ('export', 'gps', 'convnext')],
    *[('strict', 'gps', 'resnet'), ('strict', 'lora', 'vit')],
    *[('onnx', 'lora', 'vit'), ('onnx-trace', 'gps', 'vit'), ('onnx-trace', 'adapter', 'resnet')],
    *[('compile', 'lora', 'vit')],
}
CASES = [(way, method, kind) for way in WAYS for method in METHODS for kind in KINDS if kind in CLAIMS[method][0]]


def trained_here(method: str, kind: str) -> nn.Module:
    """A network within the process that trains it, with everything that makes the gradients."""
    run = tuned(method, kind)
    run.model.train()
    run.training.start()
    for step in range(3):
        torch.manual_seed(step)
        run.wrapper.update_params(run.model(step))
    return Maps(run.model.backbone).eval()


def assert_near(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert [a.shape for a in found] == [b.shape for b in expected]
    for a, b in zip(found, expected, strict=True):
        assert float((a - b).abs().max()) <= 1e-6 * max(1, float(b.abs().max()))


@pytest.mark.parametrize('grad', [True, False])
@pytest.mark.parametrize(
    ('way', 'method', 'kind'),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_a_network_gives_the_same_numbers_where_it_was_trained(
    way: str, method: str, kind: str, grad: bool, tmp_path: Path
) -> None:
    net, base = trained_here(method, kind), Maps(build(kind)).eval()
    with torch.set_grad_enabled(grad):
        expected = net(picture())
        assert max(float((a - b).abs().max()) for a, b in zip(expected, base(picture()), strict=True)) > 1e-3
        try:
            found = WAYS[way](net, picture(), tmp_path)
        except Exception as error:
            with pytest.raises(type(error)):  # torch does not take the base either
                WAYS[way](base, picture(), tmp_path)
            pytest.skip(f'{way} does not take the base: {type(error).__name__}')
    assert_near(found, expected)


@pytest.mark.parametrize('way', ['trace', 'export'])
@pytest.mark.parametrize(('method', 'kind'), [('gps', 'vit'), ('lora', 'vit'), ('vpt-deep', 'swin'), ('ssf', 'resnet')])
def test_a_network_gives_the_same_numbers_where_its_delta_was_applied(
    way: str, method: str, kind: str, tmp_path: Path
) -> None:
    run = tuned(method, kind)
    base = BaseFingerprint.of(run.model.backbone, run.selection)
    delta = extract(run.train(range(2)).model, run.selection, base)
    plain = type(run.model)(build(kind))
    with AppliedDelta(plain, delta):
        net = Maps(plain.backbone).eval()
        assert_near(WAYS[way](net, picture(), tmp_path), net(picture()))
        assert_near(net(picture()), Maps(run.model.backbone).eval()(picture()))


@pytest.mark.parametrize('method', ['lora', 'vpt-deep', 'vpt-shallow'])
def test_a_trace_takes_other_batches(method: str) -> None:
    net = trained_here(method, 'mmpretrain-vit')
    assert_near(torch.jit.trace(net, picture(1))(picture(3)), net(picture(3)))


def shaken(net: nn.Module) -> nn.Module:
    """``net`` with random numbers in its injected modules."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.rpartition('.')[0].endswith(('lora', 'ssf', 'adapter')):
                value += 0.3 * torch.randn(value.shape, generator=generator)
    return net


class Attends(nn.Module):
    """torch's attention, once with the same and once with other keys and values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0] + self.attention(x, x.flip(0), x.flip(1), need_weights=False)[0]


def tokens() -> Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('method', [LoRA(2, parts=('qkv', 'proj')), SSF(0.3)])
def test_attention_under_every_mode_for_functions_of_torch(method: LoRA | SSF, training: bool) -> None:
    """torch hands the whole attention to such a mode; ``with torch.device(...)`` and every export set one."""
    net, base = Attends(), Attends().train(training)
    method.inject(net)
    expected = shaken(net).train(training)(tokens())
    assert not torch.allclose(expected, base(tokens()), atol=1e-2)
    with torch.device('cpu'):
        assert torch.equal(net(tokens()), expected)
    for strict in (False, True):
        torch.testing.assert_close(torch.export.export(net, (tokens(),), strict=strict).module()(tokens()), expected)


def attention_only(net: nn.Module) -> CompactTraining:
    """Compact training of the attention of ``net``, with everything else frozen."""
    net.requires_grad_(False)
    for module in net.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.requires_grad_(True)
    selection = GPS(2, score=RandomScore(1), full_roles=()).select(net)
    net.requires_grad_(False)
    return CompactTraining(net, selection)


def test_compact_training_of_attention_under_a_mode_for_functions_of_torch() -> None:
    gradients = []
    for context in (contextlib.nullcontext(), torch.device('cpu')):
        net = Attends()
        with attention_only(net) as training, context:
            net(tokens()).square().sum().backward()
            gradients.append([value.grad for value in training.replacements().values()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def encoder(nested: bool = True) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 9, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested).eval()


METHODS_OF_TORCH = [LoRA(2), LoRA(2, parts='proj'), LoRA(2, parts='linear'), SSF(0.3), Adapter(2, parts='proj')]


@pytest.mark.parametrize('method', METHODS_OF_TORCH)
def test_the_fast_path_of_an_encoder_layer_is_not_taken(method: LoRA | SSF | Adapter) -> None:
    """In eval mode, without gradients, the layer would compute from the weights alone."""
    net = encoder()
    method.inject(net)
    shaken(net)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        expected = net(tokens())
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    for again in (net, copy.deepcopy(net)):
        with torch.no_grad():
            found = again(tokens())
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, encoder()(tokens()), atol=1e-2)


def test_padded_batches_of_an_encoder() -> None:
    mask = torch.tensor([[False] * 5, [False, False, False, True, True]])
    net, other = encoder(), encoder(nested=False)
    for each in (net, other):
        LoRA(2).inject(each)
        shaken(each)
    with torch.no_grad():
        with pytest.raises(InjectionError, match='enable_nested_tensor=False, or merge first'):
            net(tokens(), src_key_padding_mask=mask)
        found = other(tokens(), src_key_padding_mask=mask)
    torch.testing.assert_close(found, other(tokens(), src_key_padding_mask=mask))


def test_compact_training_of_an_encoder_in_eval_mode() -> None:
    net = encoder()
    with attention_only(net) as training:
        net(tokens()).square().sum().backward()
        assert all(value.grad is not None for value in training.replacements().values())
    hooks = [len(module._forward_hooks) for module in net.modules()]
    assert hooks == [0] * len(hooks)


def test_two_threads_in_one_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads the packed weight from its first row, independently of the other."""
    from mmgps.tuning.operations import TunedAttention

    net, barrier, real = Attends(), threading.Barrier(2), TunedAttention.project
    LoRA(2).inject(net)
    expected = shaken(net).eval()(tokens())

    def project(self: TunedAttention, *args: object) -> Tensor:
        barrier.wait(30)
        return real(self, *args)

    monkeypatch.setattr(TunedAttention, 'project', project)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(net, [tokens(), tokens()]):
            assert torch.equal(found, expected)


def test_a_quantized_layer_that_lost_its_modules_says_so() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 9))
    LoRA(2, parts='linear').inject(net)
    quantized = torch.ao.quantization.quantize_dynamic(shaken(net).eval(), {nn.Linear})
    with pytest.raises(InjectionError, match='merge first'):
        quantized(tokens())


def test_a_convolution_with_a_norm_fused_into_it_says_so() -> None:
    """The norm would scale the weight, but not the term that LoRA adds."""
    fuse_conv_bn = pytest.importorskip('mmcv.cnn').fuse_conv_bn
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    LoRA(2, parts='conv').inject(net)
    fused = fuse_conv_bn(copy.deepcopy(shaken(net)).eval())
    with pytest.raises(InjectionError, match=r'had no bias .* merge first'):
        fused(picture())
    merge_operations(net)
    expected = net.eval()(picture())
    torch.testing.assert_close(fuse_conv_bn(net)(picture()), expected)


@pytest.mark.parametrize(
    'net', [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten(2), nn.Linear(900, 7))]
)
def test_symbolic_traces_are_right_and_scripts_are_refused(net: nn.Module) -> None:
    x, tuned_nets = torch.randn(1, 3, SIDE, SIDE), []
    for method in (LoRA(2, parts=('conv', 'linear')), SSF(0.3)):
        tuned_nets.append(copy.deepcopy(net))
        method.inject(tuned_nets[-1])
        shaken(tuned_nets[-1])
    compact = copy.deepcopy(net)
    with CompactTraining(compact, GPS(2, score=RandomScore(1)).select(compact)):
        for each in (*tuned_nets, compact):
            assert torch.equal(torch.fx.symbolic_trace(each)(x), each(x))
            with pytest.raises((AttributeError, RuntimeError, TypeError, ValueError, NotImplementedError)):
                torch.jit.script(each)


def test_a_compiled_network_follows_a_bank() -> None:
    """torch does not look for hooks that were added after it compiled a network."""
    bank, answers = DeltaBank(Small().eval()), {}
    for seed, (name, method) in enumerate({'lora': LoRA(2), 'ssf': SSF(0.3), 'gps': None}.items()):
        source = Small()
        if method is not None:
            method.inject(source.backbone)
        bank.add(name, trained(seed, method, source)[1])
    compiled, x = torch.compile(bank.model, backend='eager'), torch.randn(2, 3, 4, 4)
    for name in (None, 'lora', None, 'ssf', 'lora', 'gps', None):
        with bank.using(name) as model, torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x))
            answers[name] = model(x)
    assert len({float(answer.sum()) for answer in answers.values()}) == 4
