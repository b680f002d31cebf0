"""Whole models of other libraries, with their heads: random numbers, small, built without a download.

Each comes with a batch, a loss of it, and the arguments that ``mmgps.tune`` needs besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from frameworks.networks import TIMM
from torch import Tensor, nn

import mmgps

CLASSES = 5
_WIDTH = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
_IMAGE = dict(**_WIDTH, image_size=32, patch_size=8)
_SWIN = dict(image_size=32, patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)
_MIT = dict(hidden_sizes=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_attention_heads=(1, 1, 2, 2), decoder_hidden_size=16)


@dataclass
class Whole:
    """A model in float64, what it is trained on, and how it is tuned."""

    model: nn.Module
    loss: Callable[[nn.Module, int], Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    unused: str = ''
    """Beginning of the names of tensors that no step of training uses; empty if there are none."""

    def tune(self, method: str = 'gps', **options: Any) -> mmgps.Tuned:
        chosen_by = dict(batches=[0, 1], loss=lambda step: self.loss(self.model, step))
        return mmgps.tune(self.model, method, **chosen_by, **self.options, **options)

    def train(self, steps: int = 3) -> None:
        """Steps of AdamW over all parameters, of which the decay moves each number that is not zero."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, weight_decay=0.1)
        self.model.train()
        for step in range(steps):
            self.loss(self.model, step).backward()
            optimizer.step()
            optimizer.zero_grad()


def images(size: int = 32, count: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(*shape: int, classes: int = CLASSES, seed: int = 0) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def squared(output: Any) -> Tensor:
    """Mean square of all that a model returns."""
    return torch.stack([value.square().mean() for value in _tensors(output)]).sum()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
        return
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _tensors(part)


def seeded(loss: Callable[[nn.Module, int], Tensor]) -> Callable[[nn.Module, int], Tensor]:
    def of(model: nn.Module, step: int) -> Tensor:
        torch.manual_seed(step)
        return loss(model, step)

    return of


def _made(model: nn.Module, loss: Callable[[nn.Module, int], Tensor], **options: Any) -> Whole:
    unused, dtype = options.pop('unused', ''), options.pop('dtype', torch.float64)
    return Whole(shaken(model).to(dtype).train(), seeded(loss), options, unused)


def shaken(model: nn.Module) -> nn.Module:
    """``model`` with some noise on all parameters: a gain or bias that is zero would not show that it is trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.05 * torch.randn(value.shape, generator=generator)
    return model


# -- timm ----------------------------------------------------------------------------------------------------------

TIMM_NAMES = [
    'beit_base_patch16_224',
    'cait_xxs24_224',
    'convnext_atto',
    'deit_tiny_distilled_patch16_224',
    'densenet121',
    'levit_128s',
    'mobilenetv3_small_050',
    'swinv2_tiny_window8_256',
    'test_maxvit',
    'test_nfnet',
    'test_resnet',
    'test_vit',
    'xcit_nano_12_p8_224',
]


def of_timm(name: str) -> Whole:
    import timm

    arguments = dict(TIMM[name])
    size = arguments.pop('size', 224)
    model = timm.create_model(name, num_classes=CLASSES, **arguments)
    return _made(model, lambda model, step: squared(model(images(size, seed=step))))


# -- transformers --------------------------------------------------------------------------------------------------


def _classifier(kind: str, **arguments: Any) -> Whole:
    import transformers

    model = getattr(transformers, kind)
    network = model(model.config_class(num_labels=CLASSES, **arguments))
    return _made(network, lambda m, step: m(pixel_values=images(seed=step), labels=labels(2, seed=step)).loss)


def _segformer() -> Whole:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES, **_MIT))
    return _made(model, lambda m, step: m(pixel_values=images(64, seed=step), labels=labels(2, 64, 64, seed=step)).loss)


def _clip_vision() -> Whole:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    model = CLIPVisionModel(CLIPVisionConfig(**_IMAGE))
    return _made(model, lambda m, step: squared(m(pixel_values=images(seed=step)).pooler_output), target='')


def _mask2former() -> Whole:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4,
        out_features=['stage1', 'stage2', 'stage3', 'stage4'],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=24,
        dim_feedforward=24, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=4,
        num_labels=CLASSES, train_num_points=32,
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(config)

    def loss(model: nn.Module, step: int) -> Tensor:
        masks = [labels(2, 64, 64, classes=2, seed=step).float() for _ in range(2)]
        kinds = [labels(2, seed=step) for _ in range(2)]
        return model(pixel_values=images(64, seed=step).float(), mask_labels=masks, class_labels=kinds).loss

    return _made(model, loss, dtype=torch.float32)  # it makes positions in that


def _sam() -> Whole:
    from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

    vision = SamVisionConfig(
        **_WIDTH,
        image_size=32,
        patch_size=8,
        window_size=2,
        global_attn_indexes=(1,),
        output_channels=16,
        mlp_dim=24,
        num_pos_feats=8,
    )
    prompts = SamPromptEncoderConfig(hidden_size=16, image_size=32, patch_size=8, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(hidden_size=16, mlp_dim=24, num_attention_heads=2, iou_head_hidden_dim=16)
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder))

    def loss(model: nn.Module, step: int) -> Tensor:
        points = torch.full((2, 1, 1, 2), 8.0, dtype=torch.float64)
        found = model(pixel_values=images(seed=step), input_points=points)
        return squared([found.pred_masks, found.iou_scores])

    return _made(model, loss, target='vision_encoder', unused='prompt_encoder.')


TRANSFORMERS: dict[str, Callable[[], Whole]] = {
    'ViT': lambda: _classifier('ViTForImageClassification', **_IMAGE),
    'Swin': lambda: _classifier('SwinForImageClassification', **_SWIN),
    'DINOv2': lambda: _classifier('Dinov2ForImageClassification', **_IMAGE),
    'SegFormer': _segformer,
    'CLIP vision': _clip_vision,
    'Mask2Former': _mask2former,
    'SAM': _sam,
}

# -- segmentation-models-pytorch -----------------------------------------------------------------------------------


def _smp(kind: str, encoder: str, **arguments: Any) -> Whole:
    import segmentation_models_pytorch as smp

    model = getattr(smp, kind)(encoder, encoder_weights=None, classes=CLASSES, **arguments)
    return _made(model, lambda m, step: squared(m(images(64, seed=step))))


SMP: dict[str, Callable[[], Whole]] = {
    'Unet resnet18': lambda: _smp('Unet', 'resnet18', decoder_channels=(32, 16, 16, 8, 8)),
    'FPN mit_b0': lambda: _smp('FPN', 'mit_b0', decoder_pyramid_channels=32, decoder_segmentation_channels=32),
    'DeepLabV3Plus timm': lambda: _smp('DeepLabV3Plus', 'timm-mobilenetv3_small_minimal_100', decoder_channels=16),
}

# -- torchvision ---------------------------------------------------------------------------------------------------


def _torchvision(name: str, size: int = 64, **arguments: Any) -> Whole:
    from torchvision import models

    model = models.get_model(name, weights=None, num_classes=CLASSES, **arguments)
    return _made(model, lambda m, step: squared(m(images(size, seed=step))))


def _torchvision_vit() -> Whole:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=CLASSES)
    return _made(model, lambda m, step: squared(m(images(seed=step))))


TORCHVISION: dict[str, Callable[[], Whole]] = {
    'resnet18': lambda: _torchvision('resnet18'),
    'mobilenet_v3_small': lambda: _torchvision('mobilenet_v3_small'),
    'ViT': _torchvision_vit,
    'lraspp': lambda: _torchvision('lraspp_mobilenet_v3_large', weights_backbone=None),
}

ALL: dict[str, Callable[[], Whole]] = {
    **{f'timm {name}': lambda name=name: of_timm(name) for name in TIMM_NAMES},  # type: ignore[misc]
    **{f'transformers {name}': make for name, make in TRANSFORMERS.items()},
    **{f'smp {name}': make for name, make in SMP.items()},
    **{f'torchvision {name}': make for name, make in TORCHVISION.items()},
}
