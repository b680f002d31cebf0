"""``mmgps.tune`` on whole models of four libraries: the numbers that move are those of the report, and no others."""

from __future__ import annotations

import warnings

import pytest
import torch
from counting import count_moved, parameters, total
from torch import nn
from whole_models import ALL

import mmgps
from mmgps.selection import Role, describe
from mmgps.sparse import MaskedTraining
from mmgps.tuned.conventions import classifiers

COMPARED = [
    'timm levit_128s', 'timm swinv2_tiny_window8_256', 'timm test_nfnet', 'transformers DINOv2',
    'transformers SegFormer', 'torchvision ViT',
]  # fmt: skip
"""Those of which compact training is compared with masked training: routes of each kind."""


@pytest.mark.parametrize('name', ALL)
@pytest.mark.filterwarnings('ignore')  # those of the libraries
def test_the_numbers_that_move_are_those_of_the_report(name: str) -> None:
    whole = ALL[name]()
    assert [p.name for p in describe(whole.model).values() if p.role is Role.OTHER] == []
    before = parameters(whole.model)
    tuned = whole.tune()
    expected = total(tuned)
    assert expected == sum(value.numel() for value in tuned.parameters())
    assert expected < sum(value.numel() for value in before.values())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        whole.train()
    unused = named_as_unused(caught)
    assert all(whole.unused and name.startswith(whole.unused) for name in unused), unused
    assert bool(unused) == bool(whole.unused)
    assert count_moved(tuned, before) == expected - sum(before[name].numel() for name in unused)


def named_as_unused(caught: list[warnings.WarningMessage]) -> list[str]:
    """The tensors that the one warning of it names."""
    said = [str(warning.message) for warning in caught if 'count as trained' in str(warning.message)]
    assert len(said) <= 1
    return said[0].partition(': ')[2].partition(';')[0].split(', ') if said else []


@pytest.mark.parametrize('name', COMPARED)
@pytest.mark.filterwarnings('ignore')
def test_compact_training_is_masked_training(name: str) -> None:
    states, selection = [], None
    for training in (mmgps.sparse.CompactTraining, MaskedTraining):
        torch.manual_seed(0)
        whole = ALL[name]()
        selection = whole.tune(training=training, selection=selection).selection
        whole.train()
        states.append(whole.model.state_dict())
    assert list(states[0]) == list(states[1])
    torch.testing.assert_close(states[0], states[1], rtol=1e-9, atol=1e-9)


# -- the part that is pre-trained, and the head, where none is named ---------------------------------------------------

PARTS = {
    'timm test_vit': ('', ['head']),
    'timm convnext_atto': ('', ['head.fc']),
    'timm deit_tiny_distilled_patch16_224': ('', ['head', 'head_dist']),
    'transformers ViT': ('vit', []),
    'transformers Mask2Former': ('model', []),
    'smp Unet resnet18': ('encoder', []),
    'torchvision resnet18': ('', ['fc']),
    'torchvision mobilenet_v3_small': ('', ['classifier.3']),
    'torchvision ViT': ('', ['heads.head']),
    'torchvision lraspp': ('backbone', []),
}


@pytest.mark.parametrize('name', PARTS)
@pytest.mark.filterwarnings('ignore')
def test_libraries_say_what_is_pretrained(name: str) -> None:
    whole = ALL[name]()
    target, heads = PARTS[name]
    tuned = mmgps.tune(whole.model, 'bias')
    assert tuned.target == target
    assert classifiers(tuned.backbone) == heads
    inside = [f'{head}.{key}' for head in heads for key, _ in tuned.backbone.get_submodule(head).named_parameters()]
    assert {*inside} <= {*tuned.selection.whole}


def test_a_timm_network_within_another_model_has_its_classifier_as_head() -> None:
    import timm

    model = nn.ModuleDict({'backbone': timm.create_model('test_vit', num_classes=3)})
    assert 'head.weight' in mmgps.tune(model, 'bias').selection.whole


def test_a_timm_network_that_is_built_by_its_class() -> None:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=32, embed_dim=24, depth=1, num_heads=2, num_classes=3)
    assert 'head.weight' in mmgps.tune(model, 'bias').selection.whole


def test_what_no_convention_tells_is_asked_for() -> None:
    whole = ALL['transformers SAM']()
    with pytest.raises(ValueError, match=r'which part of SamModel is pre-trained\? Set target to one of .*vision_enco'):
        mmgps.tune(whole.model, 'linear')
