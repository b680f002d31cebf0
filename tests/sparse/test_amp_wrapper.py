"""``mmgps.GPSAmpOptimWrapper`` on the CPU: mmengine requires a GPU, so that check and the scaler are replaced."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from training_pair import random_selection

pytest.importorskip('mmengine')

import mmengine.optim.optimizer.amp_optimizer_wrapper as amp

from mmgps.engine.optim import GPSAmpOptimWrapper, take_over
from mmgps.selection import Selection
from mmgps.sparse import CompactTraining, MaskedTraining, SparseTraining
from mmgps.tuned import Tuned, method_for

KINDS = (MaskedTraining, CompactTraining)


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amp, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp, 'GradScaler', partial(torch.amp.GradScaler, 'cpu'))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 4))


def wrapped(kind: type, net: nn.Module, selection: Selection, **options) -> tuple[GPSAmpOptimWrapper, SparseTraining]:
    """A wrapper whose optimizer was built for all parameters, reduced as the hook reduces it."""
    wrapper = GPSAmpOptimWrapper(optimizer=torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.05), **options)
    tuned = Tuned(net, selection, method_for(selection), '', kind)
    take_over(wrapper, tuned)
    tuned.start(registered=False)
    return wrapper, tuned.training


def test_the_order_is_prepare_unscale_clip_step_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    wrapper, training = wrapped(CompactTraining, net, random_selection(net), clip_grad=dict(max_norm=1.0))
    calls: list[str] = []

    def note(owner: object, name: str) -> None:
        found = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: (calls.append(name), found(*args, **kwargs))[1])

    for owner, name in (
        (training, 'before_step'), (training, 'after_step'), (wrapper.loss_scaler, 'unscale_'),
        (wrapper, '_clip_grad'), (wrapper.optimizer, 'step'),
    ):  # fmt: skip
        note(owner, name)
    wrapper.update_params(net(torch.randn(3, 8)).square().mean())
    assert calls == ['before_step', 'unscale_', '_clip_grad', 'step', 'after_step']


@pytest.mark.parametrize('kind', KINDS)
def test_steps_in_bfloat16_move_the_selected_numbers_alone(kind: type) -> None:
    net = network()
    selection = random_selection(net)
    before = copy.deepcopy(net.state_dict())
    wrapper, _ = wrapped(kind, net, selection, dtype='bfloat16', loss_scale=64.0, accumulative_counts=2)
    for step in range(4):
        with wrapper.optim_context(net):
            y = net(torch.randn(3, 8, generator=torch.Generator().manual_seed(step)))
        assert y.dtype is torch.bfloat16
        wrapper.update_params(y.float().square().mean())
    after = net.state_dict()
    for parameter, connections in selection.resolve(net):
        mask = connections.mask(parameter.neurons)
        assert after[parameter.name].dtype is torch.float32
        assert torch.equal(after[parameter.name][~mask], before[parameter.name][~mask])
        assert (after[parameter.name] != before[parameter.name])[mask].all()


def test_an_overflow_counts_where_it_is_trained_alone() -> None:
    for kind, chosen in ((MaskedTraining, False), (MaskedTraining, True), (CompactTraining, True)):
        net = network()
        selection = random_selection(net)
        wrapper, training = wrapped(kind, net, selection)
        net(torch.randn(3, 8)).square().mean().backward()
        [(parameter, connections), *_] = selection.resolve(net)
        value = training.replacements().get(parameter.value, parameter.value)
        mask = connections.mask(parameter.neurons) if kind is MaskedTraining else torch.ones_like(value, dtype=bool)
        value.grad[mask == chosen] = torch.inf
        wrapper.loss_scaler.scale(torch.zeros(()))  # the scale is made on first use
        before = copy.deepcopy(net.state_dict())
        wrapper.step()
        same = all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert same is chosen  # the whole step is skipped, or none of it
        assert all(value.isfinite().all() for value in net.parameters())


@pytest.mark.parametrize('options', [{}, dict(clip_grad=dict(max_norm=0.1)), dict(accumulative_counts=2)])
def test_a_step_that_overflows_leaves_no_trace_in_compact_training(options: dict) -> None:
    """Numbers, moments and later steps equal those of a run without that step, bit for bit."""
    ends = []
    for batches in ((0, 1), (0, None, 1)):
        net = network()
        wrapper, _ = wrapped(CompactTraining, net, random_selection(net), **options)
        trained = [value for group in wrapper.param_groups for value in group['params']]
        for batch in batches:
            before = copy.deepcopy((net.state_dict(), wrapper.optimizer.state_dict()['state']))
            scale = wrapper.loss_scaler.get_scale()
            for part in range(options.get('accumulative_counts', 1)):
                x = torch.randn(3, 8, generator=torch.Generator().manual_seed(10 * (batch or 0) + part))
                wrapper.update_params(net(x).square().mean() * (1 if batch is not None else 1e38))
            if batch is None:
                assert wrapper.loss_scaler.get_scale() == scale / 2
                after = net.state_dict(), wrapper.optimizer.state_dict()['state']
                assert all(torch.equal(value, before[0][name]) for name, value in after[0].items())
                assert all(torch.equal(v, before[1][at][key]) for at, m in after[1].items() for key, v in m.items())
        ends.append([*net.state_dict().values(), *trained])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
