"""The first iteration tells whether a trained tensor without a gradient is cut off or unused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmgps.selection import sum_gradients
from mmgps.tuned import Tuned
from mmgps.tuning import (
    GPS,
    BiasTuning,
    FirstIteration,
    FullTuning,
    LoRA,
    UntrainedError,
    check_held,
)

WIDTH = 8


class Backbone(nn.Module):
    """Three layers and a spare one that no path runs; ``path`` runs the middle one."""

    def __init__(self, path: Callable[[Backbone, Tensor], Tensor]) -> None:
        super().__init__()
        self.path = path
        self.first, self.middle, self.last, self.spare = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.path(self, self.first(x).tanh()).tanh())


def plain(net: Backbone, x: Tensor) -> Tensor:
    return net.middle(x)


def recomputed(net: Backbone, x: Tensor) -> Tensor:
    return checkpoint(net.middle, x, use_reentrant=True)


def recomputed_without_reentry(net: Backbone, x: Tensor) -> Tensor:
    return checkpoint(net.middle, x, use_reentrant=False)


def without_gradient(net: Backbone, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.middle(x)


def detached(net: Backbone, x: Tensor) -> Tensor:
    return net.middle(x).detach()


def data(net: Backbone, x: Tensor) -> Tensor:
    return 2 * net.middle(x).data


def copied_without_gradient(net: Backbone, x: Tensor) -> Tensor:
    y = net.middle(x)
    with torch.no_grad():
        y = y * 3
    return y + 1


def detached_in_place(net: Backbone, x: Tensor) -> Tensor:
    return net.middle(x).mul(2).detach_()


def stacked(net: Backbone, x: Tensor) -> Tensor:
    return torch.stack([net.middle(x).detach(), x]).sum(0)


def counted(net: Backbone, x: Tensor) -> Tensor:
    """Reads the position of the largest number, which never has a gradient."""
    return x * F.one_hot(net.middle(x).detach().argmax(-1), WIDTH)


def read(net: Backbone, x: Tensor) -> Tensor:
    return F.linear(x, net.middle.weight, net.middle.bias)


def dropped(net: Backbone, x: Tensor) -> Tensor:
    """The layer runs, and nothing but its shape and its mean is read."""
    y = net.middle(x)
    y * y.new_empty(y.shape[:1]).bernoulli_().unsqueeze(-1)
    y.detach().abs().mean().item()
    return x + torch.zeros_like(y)


def also_looked_at(path: Callable[[Backbone, Tensor], Tensor]) -> Callable[[Backbone, Tensor], Tensor]:
    """A pass without gradients before the pass of ``path``."""

    def run(net: Backbone, x: Tensor) -> Tensor:
        with torch.no_grad():
            net.middle(x)
        return path(net, x)

    return run


class Standardised(nn.Linear):
    """Computes by its weight in its own way."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)


class Network(nn.Module):
    def __init__(self, path: Callable[[Backbone, Tensor], Tensor] = plain, middle: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(path), nn.Linear(WIDTH, 1)
        self.backbone.middle = middle(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)).square().mean()


def pictures() -> Tensor:
    return torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0))


class Run:
    """A network under a method, in plain PyTorch."""

    def __init__(self, model: nn.Module, method, make=lambda model: [torch.optim.SGD(model, lr=0.1)]) -> None:
        self.model, backbone = model, model.backbone
        gradients = None
        if method.needs_gradient:
            values = {name: entry.value for name, entry in method.candidates(backbone).items()}
            gradients = sum_gradients(model, values, [pictures()], model)
        selection = method.select(backbone, gradients)
        tuned = Tuned(model, selection, method)
        self.training = tuned.training
        self.training.start()
        trained = tuned.trained()
        self.optimizers = make([entry.value for entry in trained])
        check_held(trained, self.optimizers)
        self.first = FirstIteration(model, trained, self.optimizers, 'backbone')

    def iterate(self, *steps: int, loss: Callable[[Tensor], Tensor] | None = None) -> tuple[bool, list[str]]:
        value = (loss or self.model)(pictures())
        self.first.check_loss(value)
        value.backward()
        for at in steps:
            self.optimizers[at].step()
            self.optimizers[at].zero_grad()
        self.training.after_step()
        return self.first.finish()


METHODS = {
    'lora': lambda: LoRA(2, parts=('linear',)),
    'gps': lambda: GPS(1, full_roles=()),
    'bias': BiasTuning,
    'full': FullTuning,
}
SPARE = {
    'lora': ['backbone.spare.lora.a', 'backbone.spare.lora.b'],
    'gps': ['backbone.spare.weight'],
    'bias': ['backbone.spare.bias'],
    'full': ['backbone.spare.weight', 'backbone.spare.bias'],
}


@pytest.mark.parametrize('path', [plain, recomputed, recomputed_without_reentry])
@pytest.mark.parametrize('method', METHODS)
def test_what_the_network_does_not_use_is_named(method: str, path: Callable) -> None:
    assert Run(Network(path), METHODS[method]()).iterate(0) == (True, SPARE[method])


def frozen_at_first(path: Callable[[Backbone, Tensor], Tensor]) -> Network:
    """A model as ``frozen_stages`` leaves it: the input of the middle layer needs no gradient."""
    model = Network(path)
    model.backbone.first.requires_grad_(False)
    return model


@pytest.mark.parametrize('path', [recomputed, without_gradient])
@pytest.mark.parametrize('method', METHODS)
def test_a_layer_that_records_no_gradients(method: str, path: Callable) -> None:
    """Some tensors are lost for another cause, and the error does not name them."""
    run = Run(frozen_at_first(path), METHODS[method]())
    with pytest.raises(UntrainedError, match=r' of \d+ trained tensors got no gradient .*; .*reentrant') as raised:
        run.iterate(0)
    named = str(raised.value).partition(':')[2].partition(';')[0]
    assert 'backbone.middle.' in named
    assert 'spare' not in named
    assert 'last' not in named


@pytest.mark.parametrize('method', METHODS)
def test_a_checkpoint_without_reentry_cuts_nothing_off(method: str) -> None:
    run = Run(frozen_at_first(recomputed_without_reentry), METHODS[method]())
    assert run.iterate(0) == (True, SPARE[method])


@pytest.mark.parametrize('path', [detached, data, copied_without_gradient, also_looked_at(detached), detached_in_place])
@pytest.mark.parametrize('method', METHODS)
def test_what_is_detached_on_the_way(method: str, path: Callable) -> None:
    with pytest.raises(UntrainedError, match=r'backbone\.first\..*backbone\.middle\..*; their results are detached'):
        Run(Network(path), METHODS[method]()).iterate(0)


def test_what_is_detached_goes_on_within_a_list() -> None:
    with pytest.raises(UntrainedError, match=r"iteration: 'backbone\.middle\.bias'; .* are detached"):
        Run(Network(stacked), BiasTuning()).iterate(0)


def test_whole_numbers_have_no_gradient_to_lose() -> None:
    unused = ['backbone.middle.bias', 'backbone.spare.bias']
    assert Run(Network(counted), BiasTuning()).iterate(0) == (True, unused)


@pytest.mark.parametrize('middle', [nn.Linear, Standardised])
@pytest.mark.parametrize('path', [dropped, also_looked_at(dropped)], ids=['dropped', 'also-looked-at'])
@pytest.mark.parametrize('method', METHODS)
def test_a_result_that_nothing_uses_is_not_cut_off(method: str, path: Callable, middle: type[nn.Linear]) -> None:
    """This holds even if its size, shape or mean is read."""
    if method == 'lora':
        middle = nn.Linear
    done, unused = Run(Network(path, middle), METHODS[method]()).iterate(0)
    assert done
    assert {name.split('.')[1] for name in unused} == {'middle', 'spare'}


@pytest.mark.parametrize('path', [detached, also_looked_at(detached)], ids=['detached', 'also-looked-at'])
@pytest.mark.parametrize('method', ['gps', 'bias', 'full'])
def test_what_a_layer_in_a_way_of_its_own_gives_is_detached(method: str, path: Callable) -> None:
    model = frozen_at_first(path)
    model.backbone.middle = Standardised(WIDTH, WIDTH)
    with pytest.raises(
        UntrainedError, match=r"gradient in the first iteration: 'backbone\.middle\..*; .* are detached"
    ):
        Run(model, METHODS[method]()).iterate(0)


def test_a_layer_that_is_read_and_not_called() -> None:
    with pytest.raises(UntrainedError, match=r"'backbone\.middle\.lora\.a', .*; the weights of their layers are read"):
        Run(Network(read), METHODS['lora']()).iterate(0)
    assert Run(Network(read), METHODS['gps']()).iterate(0) == (True, SPARE['gps'])


class ReadsAttention(nn.Module):
    """Computes by the weights of an attention that it never calls, as SAN of mmseg does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention = nn.Linear(WIDTH, WIDTH), nn.MultiheadAttention(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        part = self.attention
        query, key, value = F.linear(self.first(x), part.in_proj_weight, part.in_proj_bias).chunk(3, -1)
        return F.linear((query @ key.t()).softmax(-1) @ value, part.out_proj.weight, part.out_proj.bias)


def test_chosen_numbers_that_are_read_past_their_layer() -> None:
    """They are trained or refused."""
    model = Network()
    model.backbone = ReadsAttention()
    run = Run(model, METHODS['gps']())
    assert outcome(run) in ('trained', 'read by another module')


def outcome(run: Run) -> str:
    try:
        return 'trained' if run.iterate(0) == (True, []) else 'not noticed'
    except UntrainedError as error:
        return next(cause for cause in ('read by another module', str(error)) if cause in str(error))


def test_a_backbone_that_is_cut_off_as_a_whole() -> None:
    model = Network()
    run = Run(model, BiasTuning())
    with pytest.raises(UntrainedError, match=r'4 of 6 .*backbone\.first\.bias.*nothing of the backbone takes part'):
        run.iterate(0, loss=lambda x: model.head(x).square().mean())


def test_a_loss_that_hangs_on_nothing() -> None:
    model = frozen_at_first(recomputed)
    model.backbone.last.requires_grad_(False)
    model.backbone.spare.requires_grad_(False)
    model.head.requires_grad_(False)
    run = Run(model, LoRA(2, parts=('linear',)))
    with pytest.raises(UntrainedError, match=r"2 of 2 .*'backbone\.middle\.lora\.a', .*reentrant"):
        run.iterate(0)
    model = Network(detached)
    with pytest.raises(UntrainedError, match=r" 'backbone\.first\.bias', 'backbone\.middle\.bias'; .*are detached"):
        Run(model, BiasTuning()).iterate(0, loss=lambda x: model(x).detach())


def handles(run: Run) -> int:
    modules = list(run.model.modules())
    values = [value for optimizer in run.optimizers for group in optimizer.param_groups for value in group['params']]
    return (
        sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)
        + sum(len(value._backward_hooks or ()) for value in values)
        + sum(len(optimizer._optimizer_step_pre_hooks) for optimizer in run.optimizers)
    )


def test_nothing_watches_afterwards() -> None:
    run = Run(Network(), FullTuning())
    assert handles(run) > 10
    run.iterate(0)
    assert handles(run) == 0
    assert torch.overrides._get_current_function_mode() is None


def test_parts_that_are_called_by_themselves_are_watched() -> None:
    """A ``train_step`` may call them."""
    model = Network(detached)
    with pytest.raises(UntrainedError, match=r" 'backbone\.first\.bias', 'backbone\.middle\.bias'; .*are detached"):
        Run(model, BiasTuning()).iterate(0, loss=lambda x: model.head(model.backbone(x)).square().mean())


def test_a_forward_pass_that_fails_is_left() -> None:
    run = Run(Network(), BiasTuning())
    with pytest.raises(RuntimeError):
        run.model(torch.zeros(2, WIDTH + 1))
    assert torch.overrides._get_current_function_mode() is None
    assert run.iterate(0) == (True, SPARE['bias'])


class GivesNone(torch.autograd.Function):
    """Adds ``bias`` without a gradient for it."""

    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor) -> Tensor:
        return x + bias

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None]:
        return dy, None


def test_no_gradient_is_none() -> None:
    run = Run(Network(lambda net, x: GivesNone.apply(x, net.middle.bias)), BiasTuning())
    with pytest.raises(UntrainedError, match=r"1 of 6 .*: 'backbone\.middle\.bias'; "):
        run.iterate(0)


def test_an_accumulation_is_judged_by_its_first_backward_pass() -> None:
    run = Run(frozen_at_first(recomputed), BiasTuning())
    with pytest.raises(UntrainedError, match='reentrant'):
        run.iterate()
    run = Run(Network(), BiasTuning())
    assert run.iterate() == (False, SPARE['bias'])
    assert handles(run) == 1  # which counts steps
    assert run.iterate(0) == (True, [])


def test_a_forward_pass_of_somebody_else_counts_for_nothing() -> None:
    """A picture is drawn before training, by a path that training does not use."""
    run = Run(Network(), BiasTuning())
    with torch.no_grad():
        run.model(pictures())
        run.model.backbone.path = through_the_spare_one
        run.model(pictures())
    run.model.backbone.path = plain
    assert run.iterate(0) == (True, SPARE['bias'])


def through_the_spare_one(net: Backbone, x: Tensor) -> Tensor:
    return net.spare(x)


class Teaching(Network):
    """Runs the backbone again within its own pass, without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.backbone(x)
        return self.head(self.backbone(x).detach()).square().mean()


def test_a_pass_without_gradients_within_another_ends_no_watch() -> None:
    with pytest.raises(UntrainedError, match=r"'backbone\.first\.bias.*; .* are detached"):
        Run(Teaching(), BiasTuning()).iterate(0)


def in_two(values: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(values[:-2], lr=0.1), torch.optim.Adam(values[-2:], lr=0.1)]


def test_an_optimizer_that_has_its_turn_later_is_judged_then() -> None:
    """The first iterations train the head alone and run the backbone without gradients."""
    run = Run(Network(), BiasTuning(), in_two)

    def of_the_head(x: Tensor) -> Tensor:
        with torch.no_grad():
            x = run.model.backbone(x)
        return run.model.head(x).square().mean()

    assert run.iterate(1, loss=of_the_head) == (False, [])
    assert run.iterate(1, loss=of_the_head) == (False, [])
    assert run.iterate(0, 1) == (True, SPARE['bias'])


def test_an_optimizer_that_steps_without_any_gradient_is_judged() -> None:
    run = Run(Network(), BiasTuning(), in_two)
    with pytest.raises(UntrainedError, match=r'4 of 6 .*nothing of the backbone takes part'):
        run.iterate(0, 1, loss=lambda x: run.model.head(x).square().mean())


def test_an_optimizer_that_never_steps() -> None:
    run = Run(Network(), BiasTuning(), in_two)
    for _ in range(99):
        run.iterate(1)
    with pytest.raises(UntrainedError, match=r'SGD has not stepped once .* 100 steps, and 4 tensors .*update_params'):
        run.iterate(1)
