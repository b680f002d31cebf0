"""What each parameter of a network is, decided by the type of the module that owns it.

Names lie: SAM's ``LayerNorm2d`` sits at ``neck.1``, mmpretrain calls its norms ``ln1``. So the owner's type decides;
for an owner that no rule knows, the parameter's shape does:

* a pair of equal vectors and nothing else is an affine normalisation (``LayerNorm2d``, ``GRN``);
* a vector, or a tensor that is longer than 1 only in its first dimension, scales channels or heads (layer scale);
* a leading dimension of 1 is a batch dimension: a token or a position embedding;
* anything else is ``OTHER``: it stays frozen, and the report names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from .injected import Injected
from .layout import NeuronLayout


class Role(StrEnum):
    """The part that a parameter plays."""

    CONNECTION = 'connection'
    """Weight of a layer with neurons: top-K per neuron are trained."""
    BIAS = 'bias'
    SCALE = 'scale'
    """Layer scale and other gains per channel or head."""
    POSITION_BIAS = 'position_bias'
    """Table of relative-position biases that are added to attention scores."""
    NORM = 'norm'
    EMBEDDING = 'embedding'
    """Class tokens, absolute and relative position embeddings, embedding tables."""
    INJECTED = 'injected'
    """What a method put beside the base."""
    OTHER = 'other'


@dataclass(frozen=True)
class Parameter:
    """One parameter and what it is.

    Args:
        name: Its first name below the module that was described.
        value: The parameter.
        role: What it is.
        is_bias: Whether it is an additive offset, in whatever role: the bias of a norm is one too.
        layout: Its neurons; only for ``Role.CONNECTION``.
        owner: The module that owns it.
        attribute: Its name within the owner.
    """

    name: str
    value: nn.Parameter
    role: Role
    is_bias: bool
    layout: NeuronLayout | None
    owner: nn.Module
    attribute: str

    @property
    def neurons(self) -> NeuronLayout:
        """The layout of a ``Role.CONNECTION``."""
        assert self.layout is not None, f'{self.name} has no neurons'
        return self.layout


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, *([nn.RMSNorm] if hasattr(nn, 'RMSNorm') else []))
ATTENTION_WEIGHTS = ('in_proj_weight', 'q_proj_weight', 'k_proj_weight', 'v_proj_weight')

# Layers from outside torch, by the qualified names of their types so that nothing has to be imported. A weight here
# is stored as [out, in / groups, *kernel].
EXTERNAL_LAYERS = {
    'mmcv.ops.deform_conv.DeformConv2d',
    'mmcv.ops.modulated_deform_conv.ModulatedDeformConv2d',
}
# Attention modules whose tables hold one bias per head and relative position, and whose vectors are biases.
BIASED_ATTENTION = {
    'mmseg.models.backbones.swin.WindowMSA',
    'mmseg.models.backbones.beit.BEiTAttention',
    'mmdet.models.backbones.swin.WindowMSA',
    'mmpretrain.models.utils.attention.WindowMSA',
    'mmpretrain.models.utils.attention.WindowMSAV2',
    'mmpretrain.models.utils.attention.BEiTAttention',
    'mmpretrain.models.utils.attention.CrossMultiheadAttention',
    'mmpretrain.models.utils.attention.LeAttention',
    'mmpretrain.models.backbones.beit.RelativePositionBias',
    'mmpretrain.models.backbones.levit.Attention',
    'mmpretrain.models.backbones.levit.AttentionSubsample',
    'mmpretrain.models.backbones.efficientformer.AttentionWithBias',
}
# Attention modules whose tables hold one vector per relative position, to be multiplied with the query: embeddings of
# positions, not biases of scores. SAM's, and those of the models that read its files.
PLACED_ATTENTION = {
    'mmgps.models.sam.attention.RelativeAttention',
    'mmpretrain.models.backbones.vit_sam.Attention',
    'mmpretrain.models.backbones.mvit.MultiScaleAttention',
    'segment_anything.modeling.image_encoder.Attention',
}


def describe(module: nn.Module) -> dict[str, Parameter]:
    """Describe every parameter below ``module``, in the order of ``named_parameters``.

    A tied parameter appears once, under its first name. If one of its owners reads it as connections and another as
    an embedding table, it is a connection.
    """
    found: dict[int, Parameter] = {}
    for path, owner in module.named_modules():
        for attribute, value in owner.named_parameters(recurse=False):
            name = f'{path}.{attribute}' if path else attribute
            entry = _describe_one(name, value, owner, attribute)
            known = found.setdefault(id(value), entry)
            if known.role is not Role.CONNECTION and entry.role is Role.CONNECTION:
                found[id(value)] = Parameter(**{**vars(entry), 'name': known.name})
    return {entry.name: entry for entry in found.values()}


def _describe_one(name: str, value: nn.Parameter, owner: nn.Module, attribute: str) -> Parameter:
    role, layout = _layer_role(owner, attribute, value) or (_structural_role(owner, value), None)
    is_bias = role is Role.BIAS or (role is Role.NORM and _is_offset(owner, value))
    return Parameter(name, value, role, is_bias, layout, owner, attribute)


def _layer_role(owner: nn.Module, attribute: str, value: nn.Parameter) -> tuple[Role, NeuronLayout | None] | None:
    """The role that the owner's type gives to one of its own attributes, None for an owner without a rule."""
    shape = tuple(value.shape)
    types = type_names(owner)
    if isinstance(owner, Injected):
        return Role.INJECTED, None
    if isinstance(owner, NORMS):
        return Role.NORM, None
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return Role.EMBEDDING, None
    if isinstance(owner, nn.MultiheadAttention):
        if attribute in ATTENTION_WEIGHTS:
            return Role.CONNECTION, NeuronLayout(shape)
        return (Role.BIAS, None) if value.dim() == 1 else None
    if isinstance(owner, nn.RNNBase):
        return (Role.CONNECTION, NeuronLayout(shape)) if value.dim() == 2 else (Role.BIAS, None)
    if types & BIASED_ATTENTION:
        return (Role.BIAS, None) if value.dim() == 1 else _table_role(value)
    if types & PLACED_ATTENTION:
        return Role.EMBEDDING, None
    transposed = isinstance(owner, TRANSPOSED)
    plain = isinstance(owner, (nn.Linear, nn.Bilinear, *CONVOLUTIONS)) or types & EXTERNAL_LAYERS
    if transposed or plain:
        if attribute == 'weight':
            groups = getattr(owner, 'groups', 1) if transposed else 1
            return Role.CONNECTION, NeuronLayout(shape, transposed, groups)
        if attribute == 'bias':
            return Role.BIAS, None
    return None


def type_names(owner: nn.Module) -> set[str]:
    """Qualified names of the class of ``owner`` and of those that it derives from."""
    return {f'{kind.__module__}.{kind.__qualname__}' for kind in type(owner).__mro__}


def _table_role(value: nn.Parameter) -> tuple[Role, None]:
    return (Role.SCALE if _is_vector(value) else Role.POSITION_BIAS), None


def _structural_role(owner: nn.Module, value: nn.Parameter) -> Role:
    own = list(owner.parameters(recurse=False))
    if len(own) == 2 and own[0].shape == own[1].shape and all(map(_is_vector, own)):
        alone = all(isinstance(child, Injected) for child in owner.children())
        return Role.NORM if alone else Role.SCALE
    if _is_vector(value):
        return Role.SCALE
    return Role.EMBEDDING if value.shape[0] == 1 else Role.OTHER


def _is_vector(value: nn.Parameter) -> bool:
    return value.dim() <= 1 or value.numel() == value.shape[0]


def _is_offset(owner: nn.Module, value: nn.Parameter) -> bool:
    """Whether ``value`` is what its norm adds: ``bias`` by torch's convention, else the second of its pair."""
    own = list(owner.parameters(recurse=False))
    declared = getattr(owner, 'bias', None)
    return value is declared if declared is not None else len(own) == 2 and value is own[1]
