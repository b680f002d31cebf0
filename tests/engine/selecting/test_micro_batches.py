"""The selection pass in parts of a batch gives the sums of full batches with less memory."""

import gc
import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn

from mmgps.engine import MicroBatches, SupConLoss, TaskLoss
from mmgps.engine.selecting import micro_batches
from mmgps.engine.selecting.selection_batches import divide
from mmgps.engine.selecting.selection_pass import _weighed
from mmgps.selection import GradientMoments, GradientSum, SquaredGradientSum, sum_gradients
from mmgps.selection.gradients import HostGradients
from mmgps.sparse import saved_bytes

IMAGES = 6
WRAPPER = SimpleNamespace(optim_context=lambda model: nullcontext())


class Preprocessor(nn.Module):
    batch_augments = None

    def forward(self, batch: dict, training: bool) -> dict:
        return dict(inputs=torch.stack(batch['inputs']), data_samples=batch['data_samples'])


class Model(nn.Module):
    """Model of a convolutional backbone and a head, trained by the mean square of its output for each image."""

    def __init__(self, dropout: float = 0.0, norm: type[nn.Module] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        norms = [norm(8)] if norm else []
        layers = [nn.Conv2d(3, 8, 3), *norms, nn.GELU(), nn.Dropout(dropout), nn.Conv2d(8, 5, 3)]
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Linear(5, 1)
        self.data_preprocessor = Preprocessor()
        self.double()

    def train_step(self, batch: dict, optim_wrapper: Any) -> None:
        data = self.data_preprocessor(batch, True)
        found = self.head(self.backbone(data['inputs']).mean((2, 3))).flatten()
        targets = torch.stack([sample.gt_label for sample in data['data_samples']]).flatten()
        optim_wrapper.update_params((found - targets).square().mean())


def batch_of(seed: int = 0, images: int = IMAGES) -> dict:
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for at in range(images):
        masks = torch.randint(3, (1, 4, 4), generator=generator)
        label = torch.tensor([at // 2 % 3])
        samples.append(BaseDataElement(data=None, gt_label=label, gt_sem_seg=PixelData(data=masks)))
    drawn = torch.randn(images, 3, 8, 8, generator=generator, dtype=torch.float64)
    return dict(inputs=list(drawn), data_samples=samples)


LOSSES = {
    'task': TaskLoss,
    'supcon': lambda: SupConLoss(temperature=0.5),
    'supcon of pixels': lambda: SupConLoss(0.5, embedding=dict(type='PixelEmbedding', per_image=5, ignored=2)),
}


def summed(model: Model, loss: Any, division: MicroBatches | None = None, **options: Any) -> dict[str, Tensor]:
    parameters = dict(model.backbone.named_parameters())
    own = loss.bind(model, model.backbone, WRAPPER)
    if division is not None:
        own = division.bind(loss, model, model.backbone, WRAPPER, parameters, IMAGES)
        options.setdefault('on_host', division.sums_on_host)
    return sum_gradients(model.train(), parameters, [batch_of(0), batch_of(1, 5)], own, **options)


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        assert value.abs().max() > 1e-4, name
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('accumulation', [GradientSum, SquaredGradientSum, GradientMoments])
@pytest.mark.parametrize('on_host', [False, True])
@pytest.mark.parametrize('size', [1, 2, 4])
@pytest.mark.parametrize('name', LOSSES)
def test_the_sums_are_those_of_whole_batches(name: str, size: int, on_host: bool, accumulation: type) -> None:
    """This includes squared gradients, since the parts of a batch are summed before."""
    model, loss, options = Model(), LOSSES[name](), dict(accumulation=accumulation())
    found = summed(model, loss, MicroBatches(size, on_host), **options)
    assert_near(found, summed(model, loss, on_host=False, **options))
    assert all(value.grad is None for value in model.parameters())


@pytest.mark.parametrize('name', LOSSES)
def test_an_overflow_repeats_all_parts_of_the_batch(name: str) -> None:
    """Gradients of float64 do not overflow, so a hook makes some of them infinite."""
    model, loss, tries = Model(), LOSSES[name](), []

    def overflow(gradient: Tensor) -> Tensor:
        tries.append(gradient.norm().item())
        return gradient * torch.inf if len(tries) in (2, 5) else gradient

    expected = summed(model, loss)
    model.backbone[0].weight.register_hook(overflow)
    assert_near(summed(model, loss, MicroBatches(2), loss_scale=8.0), expected)
    assert len(tries) == 4 * 3
    assert tries[0] == pytest.approx(2 * tries[3]) == pytest.approx(4 * tries[6])  # half the scale each time


def test_no_batch_goes_through_the_backbone_at_once() -> None:
    model, seen = Model(), []
    model.backbone.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    summed(model, SupConLoss(), MicroBatches(4))
    assert seen == [4, 2, 4, 4, 1, 4]
    seen.clear()
    summed(model, TaskLoss(), MicroBatches(4))
    assert seen == [4, 2, 4, 1]


def test_both_passes_of_the_contrast_draw_the_same_dropout() -> None:
    model, seen = Model(dropout=0.5), []
    model.backbone.register_forward_hook(lambda module, args, output: seen.append((torch.is_grad_enabled(), output)))
    summed(model, SupConLoss(), MicroBatches(2))
    # the last part of each batch is computed once
    first, second = ([output.detach() for graph, output in seen if graph == wanted] for wanted in (False, True))
    assert (len(first), len(second)) == (4, 6)
    again = [second[at] for at in (1, 2, 4, 5)]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(0)
    before = torch.get_rng_state()
    summed(model, SupConLoss(), MicroBatches(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_next_batch_draws_on_after_the_first_pass_of_the_contrast() -> None:
    model, drawn = Model(dropout=0.5), []
    model.backbone[2].register_forward_hook(lambda module, args, output: drawn.append(output.detach() == 0))
    summed(model, SupConLoss(), MicroBatches(2))
    assert len(drawn) == 2 * 5
    once = [*drawn[:3], *drawn[5:7]]  # the last two draws of each batch repeat its first two parts
    assert all(torch.equal(drawn[at], drawn[at + 3]) for at in (0, 1, 5, 6))
    assert not any(torch.equal(one, other) for at, one in enumerate(once) for other in once[:at])


@pytest.mark.parametrize('name', ['task', 'supcon'])
def test_a_norm_over_the_batch_keeps_it_and_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(micro_batches, 'print_log', lambda message, logger: said.append(message))
    model, loss = Model(norm=nn.BatchNorm2d), LOSSES[name]()
    assert_near(
        {n: v for n, v in summed(model, loss, MicroBatches(2)).items() if n != '0.bias'},
        {n: v for n, v in summed(model, loss).items() if n != '0.bias'},
    )
    where = '1' if name == 'supcon' else r'backbone.1'
    assert said == [f'selection pass: batches of 6 stay whole, since {where} (BatchNorm2d) normalises over the batch']
    said.clear()
    summed(Model(norm=lambda width: nn.GroupNorm(2, width)), loss, MicroBatches(2))
    assert said == ['selection pass: batches of 6 in parts of 2']


def test_a_norm_in_the_head_plays_no_part_in_the_contrast() -> None:
    model = Model()
    model.head = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 1)).double()
    assert SupConLoss().undivided_reason(model.train(), model.backbone) is None
    assert 'head.0' in TaskLoss().undivided_reason(model, model.backbone)
    assert TaskLoss().undivided_reason(model.eval(), model.backbone) is None
    synchronized = type('SyncBatchNorm', (nn.Module,), dict(__module__='mmcv.ops.sync_bn'))
    assert '0 (SyncBatchNorm)' in SupConLoss().undivided_reason(model, nn.Sequential(synchronized()))
    model = Model()
    model.data_preprocessor.batch_augments = SimpleNamespace()
    assert 'mixes' in TaskLoss().undivided_reason(model, model.backbone)


def test_the_host_gets_each_gradient_before_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model, most = Model(), []
    original = HostGradients._move

    def moving(self: HostGradients, name: str, value: Tensor) -> None:
        most.append(sum(own.grad is not None for own in model.parameters()))
        original(self, name, value)

    monkeypatch.setattr(HostGradients, '_move', moving)
    summed(model, TaskLoss(), MicroBatches(6, sums_on_host=True))
    assert most == [1] * (2 * 4)
    hooks = [value._post_accumulate_grad_hooks for value in model.parameters()]
    assert not any(hooks)


class Gain(nn.Module):
    """Layer that saves its input for backward only if its weight is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 1, 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


BATCH = 40


@pytest.mark.parametrize(('side', 'on_host'), [(40, False), (8, False), (8, True)])
def test_a_fitted_part_keeps_less_than_training_does(side: int, on_host: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved activations of a part and gradient sums take less memory than the activations of a training batch."""
    said: list[str] = []
    monkeypatch.setattr(micro_batches, 'print_log', lambda message, logger: said.append(message))
    model, loss = Model().train(), SupConLoss()
    model.backbone.insert(1, nn.Sequential(*(Gain() for _ in range(3))))
    wide = batch_of(0, 2 * BATCH)
    wide['inputs'] = [torch.randn(3, side, side).double() for _ in range(2 * BATCH)]
    parameters = dict(model.backbone.named_parameters())
    weights = {name: value for name, value in parameters.items() if value.dim() > 1}
    weights['large'] = nn.Parameter(
        torch.zeros(100, 100)
    )  # its gradient sum is larger than the activations of small images
    divided = MicroBatches(sums_on_host=on_host).bind(loss, model, model.backbone, WRAPPER, weights, BATCH)
    flags, random = [value.requires_grad for value in model.parameters()], torch.get_rng_state()
    next(divided(wide))
    assert [value.requires_grad for value in model.parameters()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    next(divided(wide))
    (size,) = (int(line.removeprefix(f'selection pass: batches of {2 * BATCH} in parts of ')) for line in said)

    def kept(images: int, own: Any, trained: dict[str, Tensor]) -> int:
        for name, value in parameters.items():
            value.requires_grad_(name in trained)
        return saved_bytes(lambda: own(next(divide(wide, images))), model.parameters())

    sums = 0 if on_host else 4 * sum(value.numel() for value in weights.values())
    biases = {name: value for name, value in parameters.items() if name not in weights}
    training = kept(BATCH, TaskLoss().bind(model, model.backbone, WRAPPER), biases)
    selecting = loss.bind(model, model.backbone, WRAPPER)
    room = 1.01 * micro_batches.MEMORY_SHARE * training
    assert kept(size, selecting, weights) + sums <= room < kept(size + 2, selecting, weights) + sums
    assert room < training


def test_a_fitted_part_has_an_image_however_little_room_there_is() -> None:
    model, loss = Model().train(), SupConLoss()
    weights = dict(model.backbone.named_parameters())
    divided = MicroBatches().bind(loss, model, model.backbone, WRAPPER, weights, 1)
    assert len(list(divided(batch_of()))) == IMAGES


def test_lean_options_run_within_the_pass_alone() -> None:
    net = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4))
    with MicroBatches(1, lean=[dict(type='mmgps.Recomputation')]).running(net):
        assert net[0]._forward_hooks
    assert not net[0]._forward_hooks


def test_a_part_is_freed_before_the_next() -> None:
    model, alive, most = Model(), weakref.WeakSet(), []

    def watch(module: nn.Module, args: tuple, output: Tensor) -> None:
        gc.collect()
        most.append(len(alive))
        if output.requires_grad:
            alive.add(output)

    model.backbone[0].register_forward_hook(watch)
    summed(model, SupConLoss(), MicroBatches(1))
    assert max(most) <= 1


def test_refusals() -> None:
    with pytest.raises(ValueError, match='at least 1, got 0'):
        MicroBatches(0)
    with pytest.raises(TypeError, match='object has no in_parts'):
        MicroBatches(1).bind(object(), None, nn.Identity(), None, {}, 1)
    with pytest.raises(TypeError, match='holds a int that is not of this length'):
        list(divide(dict(inputs=[1, 2], data_samples=[1, 2], other=3), 1))
    parts = list(divide(dict(inputs=[1, 2], data_samples=[1, 2], other=None), 1))
    assert parts == [dict(inputs=[at], data_samples=[at], other=None) for at in (1, 2)]
    with pytest.raises(TypeError, match='holds a list that is not of this length'):
        list(divide(dict(inputs=[1, 2], data_samples=[1, 2], other=[3, 4, 5]), 1))
    weighed = _weighed(iter([torch.ones(()), torch.ones(())]), 0.0)
    assert [float(loss) for loss in weighed] == [0, 0]


@pytest.mark.parametrize('loss', ['SupConLoss', 'TaskLoss'])
def test_a_run_selects_what_it_selects_by_whole_batches(
    loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    original = micro_batches.start_options

    def starting(options: Any, backbone: nn.Module) -> None:
        started.extend(options)
        original(options, backbone)

    monkeypatch.setattr(micro_batches, 'start_options', starting)
    classes = pytest.importorskip('tiny_classes')
    from tiny import train

    from mmgps.selection import load_selection

    chosen = []
    divisions: list[dict | None] = [None, dict(size=3), dict(sums_on_host=True)]
    divisions += [dict(type='mmgps.MicroBatches', lean=[dict(type='mmgps.Recomputation', hidden=0.5)])]
    for at, division in enumerate(divisions):
        hook = dict(type='mmgps.GPSHook', loss=dict(type=f'mmgps.{loss}'), micro_batches=division)
        runner = train(classes.classes_config(tmp_path / f'{at}', 'vit', max_iters=0, custom_hooks=[hook]))
        chosen.append(load_selection(tmp_path / f'{at}' / 'selection.safetensors'))
        norms = [m for m in runner.model.backbone.modules() if isinstance(m, nn.LayerNorm)]
        assert not any(m._forward_hooks for m in norms)
    assert len(started) == 1
    for name, own in chosen[0].connections.items():
        for other in chosen[1:]:
            same = (own.positions == other.connections[name].positions).float().mean()
            assert same > 0.95, name  # except for ties within rounding
