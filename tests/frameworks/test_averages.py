"""Averages, copies, scaled losses, compilation and optimizers of timm with a tuned network of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from counting import check_moved, count_moved, parameters, total
from framework_data import adamw, batches, loss_of, network, tune
from torch import Tensor, nn

from mmgps.sparse import CompactTraining, UnstartedError
from mmgps.tuned import tuned_of


def ema_of_timm(model: nn.Module) -> tuple[nn.Module, Callable[[], None]]:
    from timm.utils import ModelEmaV3

    average = ModelEmaV3(model, decay=0.75)
    return average.module, lambda: average.update(model)


def ema_of_torch(model: nn.Module) -> tuple[nn.Module, Callable[[], None]]:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.75), use_buffers=True)
    average.update_parameters(model)  # the first one copies
    return average.module, lambda: average.update_parameters(model)


@pytest.mark.parametrize('kind', [ema_of_timm, ema_of_torch])
@pytest.mark.parametrize('method', ['gps', 'lora'])
def test_an_average_is_that_of_the_weights(kind: Callable, method: str) -> None:
    model = network()
    tune(model, method)
    optimizer = adamw(model)
    average, update = kind(model)
    expected = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for batch in batches():
        loss_of(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        update()
        for name, value in model.state_dict().items():
            expected[name] = 0.75 * expected[name] + 0.25 * value
    torch.testing.assert_close(average.state_dict(), expected, rtol=1e-12, atol=1e-12)
    x = batches()[0][0]
    plain = network() if method == 'gps' else copy.deepcopy(model)
    plain.load_state_dict(average.state_dict(), strict=True)
    torch.testing.assert_close(average.eval()(x), plain.eval()(x), rtol=1e-9, atol=1e-12)


def test_a_copy_trains_once_it_is_tuned_itself() -> None:
    model = network()
    selection = tune(model).selection
    other = copy.deepcopy(model)
    assert tuned_of(other) is None
    optimizer = adamw(other)
    loss_of(other, batches()[0]).backward()
    with pytest.raises(UnstartedError, match=r'belong to a copy of a tuned model'):
        optimizer.step()
    other = copy.deepcopy(model).requires_grad_(True)
    states: list[dict[str, Tensor]] = []
    for each in (model, other):
        if each is other:
            tune(other, selection=selection)
        optimizer = adamw(each)
        for batch in batches():
            loss_of(each, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        states.append(each.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_a_compiled_model_trains_as_the_plain_one(backend: str) -> None:
    states = []
    for compiled in (False, True):
        model = network()
        before = parameters(model)
        tuned = tune(model)
        forward = torch.compile(model, backend=backend) if compiled else model
        optimizer = adamw(forward)
        for batch in batches(count=3):
            loss_of(forward, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        check_moved(tuned, before)
        states.append(model.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=1e-9, atol=1e-9)


def test_a_scaled_and_clipped_loop_is_the_plain_one() -> None:
    states = []
    for enabled in (False, True):
        model = network()
        before = parameters(model)
        tuned = tune(model)
        optimizer = adamw(model)
        scaler = torch.amp.GradScaler('cpu', enabled=enabled, init_scale=2.0**8)
        for batch in batches():
            scaler.scale(loss_of(model, batch)).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            scaler.step(optimizer)
            scaler.update()
            model.zero_grad()
        check_moved(tuned, before)
        states.append(model.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=1e-12, atol=1e-12)


def test_optimizers_of_timm() -> None:
    from timm.optim import create_optimizer_v2

    for name, options in (('adamw', {}), ('lion', dict(training=partial(CompactTraining, any_optimizer=True)))):
        model = network()
        before = parameters(model)
        tuned = tune(model, **options)
        optimizer = create_optimizer_v2(model, opt=name, lr=1e-3, weight_decay=0.1)
        loss_of(model, batches()[0]).backward()
        optimizer.step()
        moved = count_moved(tuned, before)  # timm decays no bias: one without a gradient stays
        assert 0.9 * total(tuned) < moved <= total(tuned), name
    model = network()
    tune(model)
    optimizer = create_optimizer_v2(model, opt='lamb', lr=1e-3)
    loss_of(model, batches()[0]).backward()
    with pytest.raises(ValueError, match=r'Lamb is not known .* mmgps\.MaskedTraining by training= of mmgps\.tune'):
        optimizer.step()
