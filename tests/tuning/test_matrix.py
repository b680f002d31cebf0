"""Every method keeps the same promises on every architecture that it supports."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmpretrain')

from architectures import BUILDERS, build
from tuned import Tuned, Whole, outputs, state

from mmgps.delta import AppliedDelta, BaseFingerprint, Delta, DeltaMergeError, extract, load_delta, merge, save_delta
from mmgps.engine import METHOD_NAMES, build_method
from mmgps.selection import architecture_fingerprint, bits, describe
from mmgps.tuning import InjectionError, count_parts, merge_operations

EVERY = tuple(BUILDERS)
#: Method to the architectures that it supports, and whether it starts as the base.
CLAIMS: dict[str, tuple[tuple[str, ...], bool]] = {
    'gps': (EVERY, True),
    'gps-k20': (EVERY, True),
    'gps-magnitude': (EVERY, True),
    'gps-random': (EVERY, True),
    'gps-random5': (EVERY, True),
    'gps-taylor': (EVERY, True),
    'gps-squared': (EVERY, True),
    'gps-snr': (EVERY, True),
    'gps-shared': (EVERY, True),
    'gps-per-layer': (EVERY, True),
    'gps-network-wide': (EVERY, True),
    'gps-no-bias': (EVERY, True),
    'full': (EVERY, True),
    'linear': (EVERY, True),
    'bias': (EVERY, True),
    'lora': (EVERY, True),
    'adapter': (tuple(kind for kind in EVERY if kind not in ('mit', 'mobilenetv2')), True),
    'vpt-shallow': (('vit', 'mmpretrain-vit'), False),
    'vpt-deep': (('vit', 'mmpretrain-vit', 'swin', 'mmpretrain-swin'), False),
    'ssf': (EVERY, False),
    'spt-lora': (EVERY, True),
    'spt-adapter': (EVERY, True),
}
#: Variants of methods, and options that fit a method to small networks.
NAMES = {'gps-k20': 'gps'}
OPTIONS: dict[str, dict] = {
    'gps-k20': dict(k=20),
    'lora': dict(rank=2),
    'adapter': dict(bottleneck=2),
    'vpt-shallow': dict(tokens=3),
    'vpt-deep': dict(tokens=3),
    'spt-lora': dict(budget=0.3, rank=2),
    'spt-adapter': dict(budget=0.3, rank=1),
}
MERGEABLE = ('lora', 'ssf')
NOT_MERGEABLE = ('adapter', 'vpt-shallow', 'vpt-deep', 'spt-adapter')
#: Architectures on which variants of GPS, which differ in the choice alone, run in the default suite too.
QUICK = ('vit', 'swin', 'resnet')
CASES = [(method, kind) for method, (kinds, _) in CLAIMS.items() for kind in kinds]
REFUSED = [(method, kind) for method, (kinds, _) in CLAIMS.items() for kind in EVERY if kind not in kinds]
LATER = [case for case in CASES if case[0].startswith('gps-') and case[1] not in QUICK]
cases = pytest.mark.parametrize(
    ('method', 'kind'), [pytest.param(*case, marks=pytest.mark.slow if case in LATER else ()) for case in CASES]
)
pytestmark = pytest.mark.filterwarnings('ignore:k=[0-9]+ exceeds the fan-in')


def method_of(name: str):
    return build_method({**METHOD_NAMES[NAMES.get(name, name)], **OPTIONS.get(name, {})})


def tuned(method: str, kind: str, selection=None) -> Tuned:
    return Tuned(build(kind), method_of(method), selection)


def assert_same(found: list, expected: list) -> None:
    assert [a.shape for a in found] == [b.shape for b in expected]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def assert_near(found: list, expected: list) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_every_method_is_in_the_matrix() -> None:
    assert METHOD_NAMES.keys() == CLAIMS.keys() - NAMES.keys()


@cases
def test_only_what_the_selection_names_moves(method: str, kind: str) -> None:
    run = tuned(method, kind)
    backbone = run.model.backbone
    before = state(backbone)
    run.train(range(3))
    after = backbone.state_dict()
    connections = {p.name: c.mask(p.neurons) for p, c in run.selection.resolve(backbone)}
    moved = expected = 0
    for name, entry in describe(backbone).items():
        mask = torch.full_like(entry.value, name in run.selection.whole, dtype=torch.bool)
        mask = connections.get(name, mask)
        assert torch.equal(after[name][~mask], before[name][~mask]), name
        moved += int((after[name] != before[name]).sum())
        expected += int(mask.sum())
    [count] = [count for count in count_parts(run.model, 'backbone', run.selection) if count.part == 'backbone']
    assert count.trained == expected
    assert moved >= 0.7 * expected  # a rectifier may be silent for all inputs
    assert len(run.held()) == 1 + len(run.selection.connections) + len(run.selection.whole)


@cases
def test_names_shapes_and_fingerprint_of_the_base_stay(method: str, kind: str) -> None:
    base = build(kind)
    run = tuned(method, kind)
    found = state(run.model.backbone)
    assert run.selection.architecture == architecture_fingerprint(base)
    assert architecture_fingerprint(run.model.backbone) == architecture_fingerprint(base)
    for name, value in base.state_dict().items():
        assert torch.equal(found[name], value), name
    extra = set(found) - set(base.state_dict())
    assert extra == {name for name in run.selection.whole if name not in dict(base.named_parameters())}


@cases
def test_zero_steps_equal_the_base_where_the_method_starts_there(method: str, kind: str) -> None:
    run, plain = tuned(method, kind).model.backbone, build(kind)
    for name, value in plain.named_parameters():
        # torch multiplies by a frozen weight in another order
        value.requires_grad_(run.get_parameter(name).requires_grad)
    base, found = outputs(plain), outputs(run)
    if CLAIMS[method][1]:
        assert_same(found, base)
    else:
        assert [a.shape for a in found] == [b.shape for b in base]
        assert not torch.equal(found[-1], base[-1])


@cases
def test_a_checkpoint_holds_all_of_it(method: str, kind: str) -> None:
    run = tuned(method, kind).train(range(2))
    again = tuned(method, kind, run.selection)
    again.model.load_state_dict(run.model.state_dict())
    assert_same(outputs(again.model.backbone), outputs(run.model.backbone))
    assert not torch.equal(outputs(run.model.backbone)[-1], outputs(build(kind))[-1]) or method == 'linear'


@cases
def test_resumed_equals_uninterrupted(method: str, kind: str) -> None:
    whole = tuned(method, kind).train(range(4))
    first = tuned(method, kind).train(range(2))
    second = tuned(method, kind, first.selection)
    second.model.load_state_dict(first.model.state_dict())
    second.wrapper.load_state_dict(first.wrapper.state_dict())
    second.train(range(2, 4))
    expected, found = state(whole.model), state(second.model)
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


@cases
def test_a_copy_computes_the_same_and_is_its_own(method: str, kind: str) -> None:
    run = tuned(method, kind).train(range(2))
    twin = copy.deepcopy(run.model.backbone)
    expected = outputs(run.model.backbone)
    assert_same(outputs(twin), expected)
    with torch.no_grad():
        for value in twin.parameters():
            value.zero_()
    assert_same(outputs(run.model.backbone), expected)
    assert not torch.equal(outputs(twin)[-1], expected[-1])


@pytest.mark.parametrize(('method', 'kind'), [case for case in CASES if case[0] in MERGEABLE])
def test_merged_equals_unmerged(method: str, kind: str) -> None:
    run = tuned(method, kind).train(range(3))
    backbone = run.model.backbone.double()
    expected, base = outputs(backbone), build(kind)
    merge_operations(backbone)
    assert_near(outputs(backbone), expected)
    plain = copy.deepcopy(base).double()
    plain.load_state_dict(backbone.state_dict())
    assert_near(outputs(plain), expected)
    assert not torch.equal(outputs(base.double())[-1], outputs(plain)[-1])


def trained_delta(method: str, kind: str, path: Path) -> tuple[Tuned, Delta]:
    """A run and its delta, read from a file."""
    run = tuned(method, kind)
    base = BaseFingerprint.of(run.model.backbone, run.selection)
    run.train(range(2))
    save_delta(extract(run.model, run.selection, base), path)
    run.model.requires_grad_(False)  # torch's attention computes otherwise where something could be trained
    return run, load_delta(path)


def structure(module: torch.nn.Module) -> list:
    """Modules, hooks and forwards of ``module``, and its state bit for bit."""
    parts = [
        (name, type(part), len(part._forward_hooks), len(part._forward_pre_hooks), 'forward' in vars(part))
        for name, part in module.named_modules()
    ]
    return [parts, {name: bits(value).numpy().tobytes() for name, value in module.state_dict().items()}]


@cases
def test_base_and_delta_are_the_trained_network(method: str, kind: str, tmp_path: Path) -> None:
    run, delta = trained_delta(method, kind, tmp_path / 'delta')
    plain = Whole(build(kind)).requires_grad_(False)
    before, expected = structure(plain), state(run.model)
    with AppliedDelta(plain, delta):
        found = state(plain)
        assert found.keys() == expected.keys()
        assert [n for n, value in expected.items() if not torch.equal(bits(found[n]), bits(value))] == []
        plain.requires_grad_(False)
        assert_same(outputs(plain.backbone), outputs(run.model.backbone))
    assert structure(plain) == before


@cases
def test_a_merged_delta_is_a_plain_network(method: str, kind: str, tmp_path: Path) -> None:
    run, delta = trained_delta(method, kind, tmp_path / 'delta')
    plain = Whole(build(kind)).requires_grad_(False)
    if method in NOT_MERGEABLE:
        with pytest.raises(DeltaMergeError, match=f'{method} cannot be merged'):
            merge(plain, delta)
        return
    merged, before = merge(plain, delta), structure(plain)
    assert list(merged) == list(plain.state_dict())
    assert structure(plain) == before
    plain.load_state_dict(merged)
    if delta.injected():
        for found, expected in zip(outputs(plain.backbone), outputs(run.model.backbone), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    else:
        assert_same(outputs(plain.backbone), outputs(run.model.backbone))


@pytest.mark.parametrize(('method', 'kind'), REFUSED)
def test_what_a_method_cannot_do_is_said(method: str, kind: str) -> None:
    with pytest.raises(InjectionError, match=type(build(kind)).__name__):
        tuned(method, kind)
