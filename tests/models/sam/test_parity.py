"""Features and mask logits equal those of the authors' SAM with the same weights."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg')

from sam_oracle import NARROW, oracle, oracle_logits
from tiny_sam import build_sam

from mmgps.models.sam import SIZES, load_published
from mmgps.models.sam.attention import RelativeAttention
from mmgps.sparse import saved_bytes

#: Absolute; features and logits are of the order of one.
WITHIN = 1e-4


def assert_parity(sam, model, images: torch.Tensor) -> None:
    load_published(model, sam.state_dict(), 'the oracle')
    assert_same_outputs(sam, model, images)


def assert_same_outputs(sam, model, images: torch.Tensor) -> None:
    features, logits = oracle_logits(sam, images)
    with torch.no_grad():
        own = model.eval().extract_feat(images)
        found = model.decode_head(own)
    assert features.std() > 0.1
    assert logits.std() > 0.01
    torch.testing.assert_close(own[0], features, atol=WITHIN, rtol=0)
    torch.testing.assert_close(found[:, 1:], logits, atol=WITHIN, rtol=0)
    assert not found[:, 0].any()


@pytest.mark.parametrize('size', [1024, 352, 128])
def test_features_and_logits(size: int) -> None:
    """352 is 22 tokens, so windows are padded; 128 is 8, less than a window."""
    images = torch.randn(1 if size == 1024 else 2, 3, size, size)
    assert_parity(oracle(NARROW, size), build_sam(NARROW, size), images)


@pytest.mark.slow
def test_features_and_logits_of_vit_b() -> None:
    arch = vars(SIZES['vit_b'])
    assert_parity(oracle(arch, 1024), build_sam('vit_b', 1024), torch.randn(1, 3, 1024, 1024))


@pytest.mark.parametrize('tables', [256, 512])
def test_features_and_logits_at_another_size_than_the_tables(tables: int) -> None:
    """352 px, larger and smaller. The oracle interpolates relative positions itself; absolute ones it does not, so they
    are set, and so is the grid that its decoder expects."""
    sam, model = oracle(NARROW, tables), build_sam(NARROW, tables)
    load_published(model, sam.state_dict(), 'the oracle')
    table = sam.image_encoder.pos_embed.detach()
    resized = F.interpolate(table.permute(0, 3, 1, 2), (22, 22), mode='bicubic').permute(0, 2, 3, 1)
    sam.image_encoder.pos_embed.data = resized
    sam.prompt_encoder.image_embedding_size = (22, 22)
    assert_same_outputs(sam, model, torch.randn(2, 3, 352, 352))


def test_gradients() -> None:
    sam, model = oracle(NARROW, 352).double(), build_sam(NARROW, 352).double()
    load_published(model, sam.state_dict(), 'the oracle')
    images = torch.randn(1, 3, 352, 352).double()
    for encode in (sam.image_encoder, lambda x: model.extract_feat(x)[0]):
        encode(images).square().sum().backward()
    found = dict(model.backbone.named_parameters())
    for name, value in sam.image_encoder.named_parameters():
        torch.testing.assert_close(found[name].grad, value.grad, atol=1e-8, rtol=1e-8)


def test_every_mask_and_its_estimated_quality() -> None:
    sam, model = oracle(NARROW, 128), build_sam(NARROW, 128)
    load_published(model, sam.state_dict(), 'the oracle')
    image = torch.randn(1, 256, 8, 8)
    sparse, dense = sam.prompt_encoder(None, None, None)
    expected = sam.mask_decoder(image, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True)
    positions, no_mask = model.decode_head.prompt_encoder((8, 8))
    found = model.decode_head.mask_decoder(image, positions, sparse, no_mask, slice(1, None))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=WITHIN, rtol=0)


def test_recomputing_changes_only_the_kept_tensors() -> None:
    model = build_sam(NARROW, 128)
    images = torch.randn(1, 3, 128, 128)
    gradients, kept = [], []
    for model.backbone.with_cp in (False, True):
        model.zero_grad()
        kept.append(saved_bytes(lambda: model.backbone(images), model.parameters()))
        model.backbone(images)[0].square().mean().backward()
        gradients.append([value.grad.clone() for value in model.backbone.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[1] < 0.5 * kept[0]


def test_the_scores_are_never_stored() -> None:
    """One tensor of scores would be larger than everything that is kept."""
    attention = RelativeAttention(32, 2, 64)
    x = torch.randn(1, 64, 64, 32, requires_grad=True)
    scores = 2 * 4096 * 4096 * 4
    assert saved_bytes(lambda: attention(x), attention.parameters()) < 0.2 * scores


def test_a_grid_that_is_not_square() -> None:
    model = build_sam(NARROW, 128)
    with torch.no_grad():
        [feature] = model.backbone(torch.randn(1, 3, 96, 160))
        assert feature.shape == (1, 256, 6, 10)
        assert model.decode_head((feature,)).shape == (1, 2, 24, 40)


def test_a_size_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match=r'images of \(100, 128\) do not divide .* set size_divisor=16'):
        build_sam().backbone(torch.randn(1, 3, 100, 128))
