"""The role and the neurons of each parameter of a network, decided by the type of the module that owns it.

Names lie: SAM's ``LayerNorm2d`` sits at ``neck.1``, and mmpretrain calls its norms ``ln1``. So the owner's type
decides: torch's own types by the rules here, others by the tables of ``mmgps/architectures.py``. For an owner without a
rule, its code (``usage.py``) and the shape of the parameter decide:

* the vectors of a module that divides by a statistic of its input belong to a norm, and so do two vectors of equal size
  that are the only parameters of a module (``RMSNorm``, ``LayerNorm2d``, ``GRN``);
* a tensor that is expanded to the batch, joined to a sequence or written into one is a token;
* a vector, or a tensor that is longer than 1 only in its first dimension, is a bias if it is added; otherwise it scales
  channels or heads (layer scale);
* a tensor that is passed to ``linear`` or ``conv`` of torch as the weight is a connection weight;
* a table that is indexed and added, with one column or row per head, holds biases of relative positions;
* a tensor that is added, or has a leading (batch) dimension of 1, is a token or a position embedding;
* anything else is ``OTHER``: it stays frozen, and the report names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from mmgps.architectures import (
    BIAS_EMBEDDINGS,
    BIASED_ATTENTION,
    EXTERNAL_LAYERS,
    KEEPING_PARAMETRIZATIONS,
    PLACED_ATTENTION,
    SINGLE_PARAMETERS,
    TRANSPOSED_LINEAR,
)
from mmgps.rewiring import CONVOLUTIONS, HEADS, NORMS, TRANSPOSED, Injected, type_names

from .neurons import NeuronLayout
from .usage import Use, normalises, uses


class Role(StrEnum):
    """The function of a parameter within its network."""

    CONNECTION = 'connection'
    """Weight of a layer with neurons: the top K connections of each neuron are trained."""
    BIAS = 'bias'
    SCALE = 'scale'
    """Layer scale and other gains per channel or head."""
    POSITION_BIAS = 'position_bias'
    """Table of relative-position biases that are added to attention scores."""
    NORM = 'norm'
    EMBEDDING = 'embedding'
    """Class tokens, absolute and relative position embeddings, embedding tables."""
    INJECTED = 'injected'
    """Parameter of a module that a method added."""
    OTHER = 'other'


@dataclass(frozen=True)
class Parameter:
    """One parameter and its role.

    Args:
        name: Its first name below the described module.
        value: The parameter.
        role: Its role.
        is_bias: Whether it is an additive offset in any role, such as the bias of a norm.
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


ATTENTION_WEIGHTS = ('in_proj_weight', 'q_proj_weight', 'k_proj_weight', 'v_proj_weight')


def describe(module: nn.Module) -> dict[str, Parameter]:
    """Describe every parameter below ``module``, in the order of ``named_parameters``.

    A tied parameter appears once, under its first name. If one of its owners reads it as connections and another as an
    embedding table, it is a connection. An owner with a rule takes precedence over one without.
    """
    found: dict[int, Parameter] = {}
    guessed: set[int] = set()
    modules = dict(module.named_modules())
    for path, owner in modules.items():
        for attribute, value in owner.named_parameters(recurse=False):
            name = f'{path}.{attribute}' if path else attribute
            known = _known_role(modules, path, attribute, value)
            role, layout = known or _read_role(owner, attribute, value)
            first = found.get(id(value))
            if first is None:
                guessed |= {id(value)} if known is None else set()
            elif not (role is Role.CONNECTION is not first.role or (known and id(value) in guessed)):
                continue
            is_bias = role is Role.BIAS or (role is Role.NORM and _is_offset(owner, attribute))
            found[id(value)] = Parameter(first.name if first else name, value, role, is_bias, layout, owner, attribute)
    return {entry.name: entry for entry in found.values()}


Known = tuple[Role, NeuronLayout | None]


def _known_role(modules: dict[str, nn.Module], path: str, attribute: str, value: nn.Parameter) -> Known | None:
    """The role of a parameter by the types of its owner and of the owner's parent; None without a rule."""
    owner = modules[path]
    around = modules.get(path.rpartition('.')[0], owner)
    if isinstance(owner, ParametrizationList):
        holder, _, name = path.rpartition('.')  # LAYER.parametrizations
        return _parametrized_role(modules[holder.rpartition('.')[0]], name, owner, attribute, value) if holder else None
    if isinstance(owner, nn.Embedding):
        biases = set().union(*(BIAS_EMBEDDINGS.get(name, set()) for name in type_names(around)))
        return (Role.POSITION_BIAS if path.rpartition('.')[2] in biases else Role.EMBEDDING), None
    return _reparametrized_role(owner, attribute, value) or _layer_role(owner, attribute, value)


def _layer_role(owner: nn.Module, attribute: str, value: Tensor) -> Known | None:
    """The role of an attribute by the type of its owner; None without a rule."""
    shape = tuple(value.shape)
    types = type_names(owner)
    if isinstance(owner, Injected):
        return Role.INJECTED, None
    if isinstance(owner, NORMS):
        return Role.NORM, None
    if isinstance(owner, nn.EmbeddingBag):
        return Role.EMBEDDING, None
    if isinstance(owner, nn.MultiheadAttention):
        if attribute in ATTENTION_WEIGHTS:
            return Role.CONNECTION, NeuronLayout(shape)
        return (Role.BIAS, None) if value.dim() == 1 else None
    if isinstance(owner, nn.RNNBase | nn.RNNCellBase):
        return (Role.CONNECTION, NeuronLayout(shape)) if value.dim() == 2 else (Role.BIAS, None)
    for single in (SINGLE_PARAMETERS[name] for name in types & SINGLE_PARAMETERS.keys()):
        if attribute in single:
            return Role(single[attribute]), None
    if types & BIASED_ATTENTION:
        return (Role.BIAS, None) if value.dim() == 1 else _table_role(value)
    if types & PLACED_ATTENTION:
        return Role.EMBEDDING, None
    transposed = isinstance(owner, TRANSPOSED) or bool(types & TRANSPOSED_LINEAR)
    plain = isinstance(owner, (nn.Linear, nn.Bilinear, *CONVOLUTIONS)) or types & EXTERNAL_LAYERS
    if transposed or plain:
        if attribute == 'weight':
            groups = getattr(owner, 'groups', 1) if transposed else 1
            return Role.CONNECTION, NeuronLayout(shape, transposed, groups)
        if attribute == 'bias':
            return Role.BIAS, None
    return None


def _parametrized_role(
    layer: nn.Module, name: str, owner: ParametrizationList, attribute: str, value: nn.Parameter
) -> Known | None:
    """The role of an original tensor of ``torch.nn.utils.parametrize``: that of the parameter it replaces.

    The first of the two originals of weight norm is the gain.
    """
    if not all(type_names(step) & KEEPING_PARAMETRIZATIONS for step in owner):
        return Role.OTHER, None
    return (Role.SCALE, None) if attribute == 'original0' else _layer_role(layer, name, value)


def _reparametrized_role(owner: nn.Module, attribute: str, value: nn.Parameter) -> Known | None:
    """The role of a parameter from which a hook of ``torch.nn.utils`` computes an attribute before each forward."""
    for hook in owner._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and attribute == f'{hook.name}_g':
            return Role.SCALE, None
        if isinstance(hook, WeightNorm) and attribute == f'{hook.name}_v':
            return _layer_role(owner, hook.name, value)
        if isinstance(hook, SpectralNorm) and attribute == f'{hook.name}_orig':
            return _layer_role(owner, hook.name, value)
        if isinstance(hook, BasePruningMethod) and attribute == f'{hook._tensor_name}_orig':
            return _layer_role(owner, hook._tensor_name, value)
    return None


def _table_role(value: Tensor) -> tuple[Role, None]:
    return (Role.SCALE if value.dim() > 2 and _is_vector(value) else Role.POSITION_BIAS), None


def _read_role(owner: nn.Module, attribute: str, value: nn.Parameter) -> Known:
    """The role of a parameter whose owner has no rule, by the code of the owner or else by its shape."""
    done = uses(owner).get(attribute, frozenset())
    if _is_norm(owner):
        return Role.NORM, None
    if Use.WEIGHT in done and value.dim() > 1:
        return Role.CONNECTION, NeuronLayout(tuple(value.shape))
    if Use.TOKEN in done or (done == {Use.EXPANDED} and not _is_vector(value)):
        return Role.EMBEDDING, None
    if _is_vector(value):
        return (Role.BIAS if done - {Use.EXPANDED} == {Use.ADDED} else Role.SCALE), None
    if done == {Use.MULTIPLIED} and value.dim() > 2 and value.shape[1] == value.numel():
        return Role.SCALE, None  # of the channels of a map
    heads = [count for name in HEADS if isinstance(count := getattr(owner, name, None), int)]
    if done >= {Use.GATHERED, Use.ADDED} and any(count in value.shape for count in heads):
        return Role.POSITION_BIAS, None
    if done == {Use.ADDED} and value.dim() == 2 and value.shape[0] in heads:
        return Role.BIAS, None  # of the channels of each head
    return (Role.EMBEDDING if value.shape[0] == 1 or Use.ADDED in done else Role.OTHER), None


def _is_norm(owner: nn.Module) -> bool:
    """True if ``owner`` is a norm: it divides by a statistic, or two vectors of equal size are its only parameters."""
    own = dict(owner.named_parameters(recurse=False))
    below = [child for child in owner.children() if not isinstance(child, Injected)]
    if isinstance(owner, nn.ParameterList | nn.ParameterDict) or not all(map(_is_one_dimensional, own.values())):
        return False
    if normalises(owner):
        return not any(True for child in below for _ in child.parameters())
    known = uses(owner)
    gains = all(known.get(name, frozenset()) == {Use.MULTIPLIED} for name in own)
    pair = len(own) == 2 and len({value.shape for value in own.values()}) == 1
    large = all(value.numel() > 1 for value in own.values())
    return pair and large and not below and not gains


def _is_vector(value: Tensor) -> bool:
    return value.dim() <= 1 or value.numel() == value.shape[0]


def _is_one_dimensional(value: Tensor) -> bool:
    return value.numel() == max(value.shape, default=1)


def _is_offset(owner: nn.Module, attribute: str) -> bool:
    """True if an attribute is the offset of its norm, by torch's name, by its code, or as the second of a pair."""
    if getattr(owner, 'bias', None) is not None:
        return attribute == 'bias'
    own = [name for name, _ in owner.named_parameters(recurse=False)]
    added = [name for name in own if Use.ADDED in uses(owner).get(name, ())]
    return attribute in added if added else len(own) == 2 and attribute == own[1]
