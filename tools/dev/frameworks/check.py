"""Check GPS on one network against slow oracles that share no code with it."""

from __future__ import annotations

import copy
import heapq
from collections import Counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmgps.rewiring import Injected
from mmgps.selection import Role, Selection, describe, sum_gradients
from mmgps.sparse import CompactTraining, MaskedTraining
from mmgps.tuned import Tuned, method_for
from mmgps.tuning import GPS, LoRA
from mmgps.tuning.sites import InjectionError

from .networks import TIMM, TORCHVISION, TRANSFORMERS, build, outputs

STEPS = 3
ALL = [*TIMM, *TRANSFORMERS, *TORCHVISION]
#: Parameters without a rule, as class and attribute; docs/coverage_frameworks.md lists them.
UNKNOWN = {
    'MambaMixer.A_log',
    'MixtralExperts.gate_up_proj',
    'MixtralExperts.down_proj',
}
# Classes with "Norm" in their name are norms too: unlike the library, a check may read names.
TORCH_NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def check(name: str) -> dict[str, object]:
    """Select, train and compare; return the facts for the table.

    Raises:
        AssertionError: If GPS and its oracle differ.
    """
    network, inputs = build(name)
    set_modes(network)
    found = check_roles(network)
    selection = check_choice(network, inputs)
    check_training(network, inputs, selection)
    return {
        'name': name,
        'roles': found,
        'connections': len(selection),
        'routes': routes(network, selection),
        'lora': try_lora(network, inputs),
    }


def set_modes(network: nn.Module) -> None:
    """Set training mode except for batch norm, which would amplify rounding over two inputs."""
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def loss(network: nn.Module, inputs: dict[str, Tensor], step: int) -> Tensor:
    torch.manual_seed(step)
    np.random.seed(step)  # noqa: NPY002  for the masks of Wav2Vec2
    generator = torch.Generator().manual_seed(0)
    parts = [(torch.randn(y.shape, generator=generator).to(y) * y).mean() for y in outputs(network, inputs)]
    return torch.stack(parts).sum()


def check_roles(network: nn.Module) -> dict[str, int]:
    """Check that only listed parameters are unknown, and that norms, biases and embeddings have their roles.

    Returns:
        Number of tensors by role.
    """
    described = describe(network)
    unknown = {f'{type(p.owner).__name__}.{p.attribute}' for p in described.values() if p.role is Role.OTHER}
    assert unknown <= UNKNOWN, unknown - UNKNOWN
    for parameter in described.values():
        kind = type(parameter.owner).__name__
        is_norm = isinstance(parameter.owner, TORCH_NORMS) or 'Norm' in kind or kind in ('Affine', 'ConvNextV2GRN')
        assert (parameter.role is Role.NORM) == is_norm, (parameter.name, kind, parameter.role)
        if parameter.attribute.endswith('bias') and not is_norm and parameter.value.dim() == 1:
            assert parameter.role is Role.BIAS, (parameter.name, kind, parameter.role)
        if 'bias_table' in parameter.attribute or 'attention_biases' in parameter.attribute:
            assert parameter.role is Role.POSITION_BIAS, (parameter.name, kind, parameter.role)
        if 'token' in parameter.attribute or parameter.attribute in ('class_embedding', 'pos_embed'):
            assert parameter.role is Role.EMBEDDING, (parameter.name, kind, parameter.role)
    return dict(Counter(parameter.role.value for parameter in described.values()))


def check_choice(network: nn.Module, inputs: dict[str, Tensor]) -> Selection:
    """Check that GPS chooses like a loop over neurons."""
    method = GPS(1)
    weights = {key: entry.value for key, entry in method.candidates(network).items()}
    gradients = sum_gradients(network, weights, [0], lambda step: loss(network, inputs, step))
    selection = method.select(network, gradients)
    slow = slow_choice(network, gradients)
    assert slow.keys() <= selection.connections.keys()
    extra = selection.connections.keys() - slow.keys()
    owners = {key: type(describe(network)[key].owner).__name__ for key in extra}
    assert set(owners.values()) <= {'MixtralTopKRouter', 'ParametrizationList'}, owners
    for key, expected in slow.items():
        assert selection.connections[key].positions.tolist() == expected, key
    return selection


def slow_choice(network: nn.Module, gradients: dict[str, Tensor]) -> dict[str, list[int]]:
    """Choose the best input of each output, the lowest one on a tie, in every Linear, convolution and attention.

    Returns:
        Positions by name of the weight, counted by outputs and then by inputs.
    """
    chosen: dict[str, list[int]] = {}
    seen: set[int] = set()
    for path, module in network.named_modules():
        by_inputs = type(module).__name__ == 'Conv1D' or isinstance(module, nn.ConvTranspose2d)
        layer = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.MultiheadAttention)
        for attribute in ('weight', 'in_proj_weight'):
            weight = getattr(module, '_parameters', {}).get(attribute)
            if weight is None or id(weight) in seen or not (layer or by_inputs):
                continue
            seen.add(id(weight))
            key = f'{path}.{attribute}' if path else attribute
            gradient = gradients[key]
            assert not isinstance(module, nn.ConvTranspose2d) or module.groups == 1
            chosen[key] = []
            for neuron in range(gradient.shape[1] if by_inputs else gradient.shape[0]):
                row = gradient[:, neuron] if by_inputs else gradient[neuron]
                values = [abs(value) for value in row.flatten().tolist()]
                best = heapq.nsmallest(1, range(len(values)), key=lambda at, v=values: (-v[at], at))
                chosen[key].append(neuron * len(values) + best[0])
    return chosen


def train(kind: type, base: nn.Module, inputs: dict[str, Tensor], selection: Selection, rate: float) -> nn.Module:
    """Train a copy of ``base`` for a few steps."""
    network = copy.deepcopy(base)
    tuned = Tuned(network, selection, method_for(selection), '', kind)
    training = tuned.training
    optimizer = torch.optim.SGD(tuned.parameters(), lr=rate, momentum=0.9, weight_decay=0.05)
    training.start()
    for step in range(STEPS):
        optimizer.zero_grad()
        loss(network, inputs, step).backward()
        training.before_step()
        optimizer.step()
        training.after_step()
    return network


def check_training(network: nn.Module, inputs: dict[str, Tensor], selection: Selection) -> None:
    """Check that compact equals masked training, frozen parameters keep their bits, and trained ones move."""
    network.zero_grad()
    loss(network, inputs, 0).backward()
    gradients = {key: value.grad for key, value in network.named_parameters() if value.grad is not None}
    size = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    rate = 1e-2 / float(size.clamp_min(1e-12))
    network.zero_grad()
    masked, compact = (train(kind, network, inputs, selection, rate) for kind in (MaskedTraining, CompactTraining))
    before, expected, after = (dict(each.state_dict()) for each in (network, masked, compact))
    assert list(after) == list(before)
    described = describe(network)
    chosen = {parameter.name: (parameter, item) for parameter, item in selection.resolve(network)}
    for name, value in before.items():
        if not value.is_floating_point() or not value.numel():
            continue
        error = (after[name] - expected[name]).abs().max() / expected[name].abs().max().clamp_min(1e-3)
        assert error < 1e-10, (name, float(error))
        if name in chosen:
            parameter, connections = chosen[name]
            mask = connections.mask(parameter.neurons)
            assert torch.equal(after[name][~mask], value[~mask]), name
        elif name in described and name not in selection.whole:
            assert torch.equal(after[name], value), name
        elif name in selection.whole and name in gradients and gradients[name].abs().max() > 1e-9 * size:
            assert not torch.equal(after[name], value), name
    moved = sum(int((after[name] != before[name]).sum()) for name in chosen)
    assert moved > 0.3 * len(selection), (moved, len(selection))
    assert {entry.name for entry in described.values() if entry.is_bias and entry.role is not Role.NORM} <= {
        *selection.whole
    }


def routes(network: nn.Module, selection: Selection) -> dict[str, int]:
    network = copy.deepcopy(network)
    with CompactTraining(network, selection) as training:
        return dict(Counter(route.kind.value for route in training.routes().values()))


def try_lora(base: nn.Module, inputs: dict[str, Tensor]) -> str:
    """Check that default LoRA starts as the identity and gets gradients everywhere, or that it is refused."""
    network = copy.deepcopy(base)
    try:
        LoRA(2).put_in_place(network)
    except InjectionError as error:
        return 'refused: ' + str(error).split(';')[0].removeprefix('lora cannot change the output of ')
    first = float(loss(base, inputs, 0))
    assert abs(float(loss(network, inputs, 0)) - first) <= 1e-12 * max(1.0, abs(first))
    added = [module for module in network.modules() if isinstance(module, Injected)]
    loss(network, inputs, 0).backward()
    silent = [module for module in added if all(value.grad is None for value in module.parameters())]
    assert not silent, f'{len(silent)} of {len(added)} get no gradient'
    return str(len(added))
