"""Parameters of SAM ViT-B that each method trains: the paper's 93.8, 4.06, 4.16 and 4.22 million."""

import pytest
import torch

pytest.importorskip('mmseg')

from tiny_sam import build_sam
from torch import nn

from mmgps.selection import MagnitudeScore, Role, describe
from mmgps.tuning import GPS, BiasTuning, FullTuning, LinearProbe, TuningMethod, count_parts, freeze_unselected

TOTAL = 93_735_472
ENCODER = 89_670_912
DECODER = 4_058_340
PROMPTS = TOTAL - ENCODER - DECODER


@pytest.fixture
def model() -> nn.Module:
    with torch.device('meta'):
        return build_sam('vit_b', 1024)


def trained(model: nn.Module, method: TuningMethod) -> int:
    selection = method.select(model.backbone, None)
    freeze_unselected(model.backbone, selection)
    counts = count_parts(model, 'backbone', selection)
    assert sum(count.total for count in counts) == TOTAL
    return sum(count.trained for count in counts)


def test_parts(model: nn.Module) -> None:
    assert PROMPTS == 6_220
    for part, count in ((model.backbone, ENCODER), (model.decode_head.mask_decoder, DECODER)):
        assert sum(value.numel() for value in part.parameters()) == count


@pytest.mark.parametrize(
    ('method', 'count'),
    [
        (LinearProbe(), 4_058_340),
        (BiasTuning(), 4_160_996),
        # Every method freezes the prompt encoder, so full tuning does not train these 6,220.
        (FullTuning(), TOTAL - PROMPTS),
    ],
    ids=['linear', 'bias', 'full'],
)
def test_whole_parameters(method: TuningMethod, count: int, model: nn.Module) -> None:
    assert trained(model, method) == count


class First:
    """Choose the first K connections of every neuron, without values, which the meta device does not have."""

    def choose(self, scores, k):
        shapes = {name: scores[name].shape for name in scores}
        return {n: (torch.arange(rows)[:, None] * fan + torch.arange(k)).flatten() for n, (rows, fan) in shapes.items()}


def test_gps(model: nn.Module) -> None:
    method = GPS(1, MagnitudeScore(), First())
    assert trained(model, method) == 4_226_276
    selection = method.select(model.backbone)
    entries = describe(model.backbone)
    assert len(selection) == 84_224  # neurons: 83,712 with a bias, and 512 of the neck without
    assert sum(entries[name].value.numel() for name in selection.whole) == 83_712


def test_parameters_that_are_not_connections(model: nn.Module) -> None:
    """Relative positions are embeddings, not biases; the norms of the neck are norms."""
    entries = describe(model.backbone)
    roles = {name: entry.role for name, entry in entries.items()}
    assert {roles[f'blocks.{at}.attn.rel_pos_{axis}'] for at in range(12) for axis in 'hw'} == {Role.EMBEDDING}
    assert roles['pos_embed'] is Role.EMBEDDING
    assert {roles[f'neck.{at}.{name}'] for at in (1, 3) for name in ('weight', 'bias')} == {Role.NORM}
    assert Role.OTHER not in roles.values()


@pytest.mark.parametrize(
    ('arch', 'total', 'encoder'),
    [
        ('vit_b', TOTAL, ENCODER),
        ('vit_l', 312_342_832, 308_278_272),
        ('vit_h', 641_090_608, 637_026_048),
    ],
)
def test_every_size_has_the_numbers_of_the_authors_own(arch: str, total: int, encoder: int) -> None:
    """All names and shapes of all three sizes agree, which needs no values."""
    registry = pytest.importorskip('segment_anything').sam_model_registry
    with torch.device('meta'):
        own, theirs = build_sam(arch, 1024), registry[arch]()
    assert numbers(own) == numbers(theirs) == total
    assert numbers(own.backbone) == numbers(theirs.image_encoder) == encoder
    assert total - encoder == DECODER + PROMPTS
    found = {name: tuple(value.shape) for name, value in own.backbone.named_parameters()}
    assert found == {name: tuple(value.shape) for name, value in theirs.image_encoder.named_parameters()}


def numbers(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
