"""One call makes any loop train the selected numbers and nothing else, or its first step raises an error."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from small_model import CHOSEN, SmallModel, moved, state, train, tuned_by
from torch import Tensor, nn

import mmgps
from mmgps.selection import RandomScore
from mmgps.sparse import CompactTraining, FusedAttention, MaskedTraining, UnstartedError
from mmgps.tuned import tuned_of
from mmgps.tuning import GPS, InjectionError, UntrainedError, freeze_unselected


def optimizers(model: SmallModel, tuned: mmgps.Tuned) -> dict[str, Callable[[], torch.optim.Optimizer]]:
    adamw = lambda values: torch.optim.AdamW(values, lr=1e-2, weight_decay=0.1)  # noqa: E731
    return {
        'parameters': lambda: adamw(tuned.parameters()),
        'groups': lambda: adamw(tuned.parameter_groups(lr=1e-2, head_lr=1e-3)),
        'model': lambda: adamw(model.parameters()),
        'requiring': lambda: adamw([value for value in model.parameters() if value.requires_grad]),
        'parts': lambda: adamw([{'params': model.backbone.parameters()}, {'params': model.head.parameters()}]),
        'foreach': lambda: torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, foreach=True),
        'fused': lambda: torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1, fused=True),
        'adagrad': lambda: torch.optim.Adagrad(model.parameters(), lr=1e-2, weight_decay=0.1),
    }


@pytest.mark.parametrize('training', [CompactTraining, MaskedTraining])
@pytest.mark.parametrize(
    'built', ['parameters', 'groups', 'model', 'requiring', 'parts', 'foreach', 'fused', 'adagrad']
)
def test_the_selected_numbers_move_whichever_way_the_optimizer_is_built(
    built: str, training: type, model: SmallModel, loader: list[Tensor]
) -> None:
    before = state(model)
    tuned = tuned_by('gps', model, loader, k=1, training=training)
    train(model, optimizers(model, tuned)[built](), loader)
    assert moved(model, before) == CHOSEN
    assert sum(CHOSEN.values()) == sum(
        int(line.split()[1]) for line in str(tuned).splitlines() if line.startswith('total')
    )


def test_compact_equals_masked_under_clipping(loader: list[Tensor]) -> None:
    """The norm that both clip by is that of what is trained."""
    states, norms = [], []
    for training in (CompactTraining, MaskedTraining):
        torch.manual_seed(0)
        model = SmallModel().double()
        batches = [batch.double() for batch in loader]
        tuned_by('gps', model, batches, training=training)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
        for batch in batches:
            model.zero_grad()
            model(batch).loss.backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.01))
            optimizer.step()
        states.append(state(model))
    torch.testing.assert_close(norms[: len(loader)], norms[len(loader) :], rtol=1e-10, atol=0)
    torch.testing.assert_close(states[0], states[1], rtol=1e-10, atol=1e-14)


def test_model_zero_grad_clears_the_gradients_of_the_chosen_numbers(model: SmallModel, loader: list[Tensor]) -> None:
    tuned = tuned_by('gps', model, loader)
    norms = []
    for _ in range(3):
        model.zero_grad()
        model(loader[0]).loss.backward()
        norms.append([value.grad.norm().item() for value in tuned.parameters() if value.grad is not None])
    assert norms[0] == norms[1] == norms[2]
    assert len(norms[0]) == len(tuned.parameters())


def test_closures_and_accumulation_equal_the_plain_loop(loader: list[Tensor]) -> None:
    states = []
    for way in ('plain', 'closure', 'keyword', 'accumulated'):
        torch.manual_seed(0)
        model = SmallModel()
        tuned_by('gps', model, loader)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for batch in loader:
            optimizer.zero_grad()
            if way == 'accumulated':
                for part in batch.chunk(2):
                    (model(part).loss / 2).backward()
                optimizer.step()
                continue

            def closure(model: SmallModel = model, batch: Tensor = batch) -> Tensor:
                loss = model(batch).loss
                loss.backward()
                return loss

            if way == 'plain':
                closure()
                optimizer.step()
            elif way == 'closure':
                assert optimizer.step(closure) > 0
            else:
                optimizer.step(closure=closure)
        states.append(state(model))
    for found in states[1:]:
        torch.testing.assert_close(found, states[0], rtol=1e-5, atol=1e-7)


def test_grad_scaler_unscales_the_first_step_too(loader: list[Tensor]) -> None:
    states = []
    for scaled in (False, True):
        torch.manual_seed(0)
        model = SmallModel()
        tuned_by('gps', model, loader)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler('cpu', enabled=scaled, init_scale=2.0**10)
        for batch in loader:
            optimizer.zero_grad()
            scaler.scale(model(batch).loss).backward()
            scaler.step(optimizer)
            scaler.update()
        states.append(state(model))
    torch.testing.assert_close(states[0], states[1], rtol=1e-6, atol=1e-8)


def test_two_optimizers_share_what_is_trained(model: SmallModel, loader: list[Tensor]) -> None:
    before = state(model)
    tuned_by('gps', model, loader)
    both = [torch.optim.AdamW(part.parameters(), lr=1e-2) for part in (model.backbone, model.head)]
    for batch in loader:
        model(batch).loss.backward()
        for optimizer in both:
            optimizer.step()
            optimizer.zero_grad()
    assert moved(model, before) == CHOSEN


# -- the first step raises one sentence --------------------------------------------------------------------------


def refused(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor, match: str) -> None:
    before = state(model)
    model(batch).loss.backward()
    gc.collect()
    with pytest.raises(UntrainedError, match=match):
        optimizer.step()
    assert not moved(model, before)


def test_an_optimizer_built_before(model: SmallModel, loader: list[Tensor]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tuned = tuned_by('gps', model, loader)
    refused(model, optimizer, loader[0], r'2 weights .* built before mmgps\.tune; build it afterwards')
    before = state(model)
    tuned.take_over([optimizer])
    model.zero_grad()
    train(model, optimizer, loader)
    assert moved(model, before) == CHOSEN


def test_an_optimizer_of_the_head_alone(model: SmallModel, loader: list[Tensor]) -> None:
    tuned_by('gps', model, loader)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-2)
    refused(model, optimizer, loader[0], r"4 tensors are counted as trained and no optimizer holds them: 'backbone\.0")


def test_two_optimizers_of_one_tensor(model: SmallModel, loader: list[Tensor]) -> None:
    tuned_by('bias', model, loader)
    first, second = (torch.optim.AdamW(model.parameters(), lr=1e-2) for _ in range(2))
    model(loader[0]).loss.backward()
    first.step()
    with pytest.raises(UntrainedError, match='held by more than one optimizer'):
        second.step()


def test_an_optimizer_that_weighs_a_tensor_as_a_whole(model: SmallModel, loader: list[Tensor]) -> None:
    tuned_by('gps', model, loader)
    optimizer = torch.optim.Adafactor(model.parameters(), lr=1e-2)
    model(loader[0]).loss.backward()
    with pytest.raises(ValueError, match='Adafactor'):
        optimizer.step()


def test_a_tensor_that_no_gradient_reaches(model: SmallModel, loader: list[Tensor]) -> None:
    tuned_by('lora', model, loader)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    hidden = model.backbone
    model.head(hidden(loader[0]).detach()).square().mean().backward()
    with pytest.raises(
        UntrainedError, match=r'4 of 6 trained tensors got no gradient .* nothing of the backbone takes part'
    ):
        optimizer.step()


def test_freezing_alone_refuses_to_move_whole_weights(model: SmallModel, loader: list[Tensor]) -> None:
    selection = GPS(score=RandomScore()).select(model.backbone)
    freeze_unselected(model.backbone, selection)
    before = state(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(loader[0]).loss.backward()
    with pytest.raises(
        UnstartedError, match=r'2 parameters that AdamW holds.* would move as a whole.* use mmgps\.tune'
    ):
        optimizer.step()
    assert not moved(model, before)


def test_compact_training_alone_trains_what_model_parameters_holds(model: SmallModel, loader: list[Tensor]) -> None:
    """Without the calls before and after each step: the next forward pass follows the optimizer."""
    selection = GPS(score=RandomScore()).select(model.backbone)
    freeze_unselected(model.backbone, selection)
    before = state(model)
    CompactTraining(model.backbone, selection).start()
    train(model, torch.optim.AdamW(model.parameters(), lr=1e-2), loader)
    assert moved(model, before) == CHOSEN


# -- wrong arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'error', 'match'),
    [
        (dict(method='gsp'), ValueError, r"'gsp'; nearest: gps"),
        (dict(method='gps', rank=8), TypeError, r"'gps' does not take \['rank'\]"),
        (dict(method=GPS(), k=2), ValueError, r"\['k'\] go to the method"),
        (dict(method='gps', target='backbon'), ValueError, r"'backbon' is no part of SmallModel; nearest: backbone"),
        (dict(method='bias', head='3x'), ValueError, r"head '3x' is no part of 'backbone'"),
        (dict(method='linear', target=''), ValueError, r"'linear' trains the head alone, and nothing outside"),
        (dict(method='gps', batches=None), ValueError, r"'gps' chooses by gradients: pass batches"),
        (dict(method='gps', loss=None), ValueError, r'SmallModel gives no loss for a batch of type Tensor; pass loss'),
        (dict(method='bias', selection=True), ValueError, r"was made by 'gps', not by 'bias'"),
    ],
)
def test_wrong_arguments(
    arguments: dict, error: type[Exception], match: str, model: SmallModel, loader: list[Tensor]
) -> None:
    if arguments.get('selection'):
        arguments = {**arguments, 'selection': GPS(score=RandomScore()).select(model.backbone)}
    with pytest.raises(error, match=match):
        mmgps.tune(model, **{'batches': loader, 'loss': lambda batch: model(batch).loss, **arguments})
    assert all(value.requires_grad for value in model.parameters())
    assert model.training


def test_a_model_without_a_known_backbone_asks_for_one() -> None:
    with pytest.raises(ValueError, match=r'which part of Sequential is pre-trained\? Set target to one of 0, 1'):
        mmgps.tune(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), 'bias')


def test_a_head_within_the_target_is_trained_in_full(loader: list[Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    before = state(model)
    loss = lambda batch: model(batch).square().mean()  # noqa: E731
    mmgps.tune(model, 'gps', target='', head='2', batches=loader, loss=loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for batch in loader:
        loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert moved(model, before) == {'0.weight': 16, '0.bias': 16, '2.weight': 32, '2.bias': 2}


def test_a_tuned_model_is_not_tuned_again(model: SmallModel, loader: list[Tensor]) -> None:
    tuned_by('gps', model, loader)
    with pytest.raises(ValueError, match='tuned already'):
        tuned_by('bias', model, loader)


def test_a_method_that_does_not_fit_leaves_the_model_as_it_was(model: SmallModel, loader: list[Tensor]) -> None:
    with pytest.raises(InjectionError):
        tuned_by('adapter', model, loader)
    assert all(value.requires_grad for value in model.parameters())
    assert tuned_of(model) is None


def test_a_penalty_over_model_parameters_that_would_count_twice_is_refused(
    model: SmallModel, loader: list[Tensor]
) -> None:
    tuned = tuned_by('gps', model, loader)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    penalty = sum(value.square().sum() for value in model.parameters())
    (model(loader[0]).loss + penalty).backward()
    with pytest.raises(UntrainedError, match=r'2 weights .* take tuned\.parameters\(\) instead'):
        optimizer.step()
    tuned.unload()
    tuned = tuned_by('gps', model, loader)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    penalty = sum(value.square().sum() for value in tuned.parameters())
    (model(loader[0]).loss + penalty).backward()
    optimizer.step()


@pytest.mark.parametrize('method', ['gps', 'lora'])
def test_a_refused_option_leaves_the_model_as_it_was(method: str, model: SmallModel, loader: list[Tensor]) -> None:
    before, modules = state(model), [*model.modules()]
    with pytest.raises(ValueError, match=r'no nn\.MultiheadAttention'):
        tuned_by(method, model, loader, lean=[FusedAttention()])
    assert [*model.modules()] == modules
    assert model.state_dict().keys() == before.keys()
    assert not moved(model, before)
    assert all(value.requires_grad for value in model.parameters())
    assert not any('forward' in vars(part) or part._forward_hooks for part in model.modules())
    tuned_by(method, model, loader)
    train(model, torch.optim.AdamW(model.parameters(), lr=1e-2), loader)
    assert moved(model, before)
