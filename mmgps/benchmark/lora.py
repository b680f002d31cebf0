"""LoRA (Hu et al., ICLR 2022) by HF ``peft``, on every linear layer of a plain ViT.

``peft`` merges the factors into the weight of an ``nn.MultiheadAttention`` before each forward and takes them out
after it: autograd then makes the whole gradient of that weight. :class:`Lora` takes ``peft`` as it is. To show that
this does not make LoRA look worse than it is, :class:`UnmergedLora` is LoRA as mmgps has it, which computes
``w x + b (a x)`` everywhere; it is measured where it is asked for by name.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mmgps.rewiring import CONVOLUTIONS, TRANSPOSED
from mmgps.selection import Role, Selection, architecture_fingerprint, describe
from mmgps.tuned import Tuned
from mmgps.tuning import FullTuning, LoRA
from mmgps.utils.requirements import require


class LeftOutError(RuntimeError):
    """A method cannot be measured here; the message says why."""


class Lora:
    """LoRA as ``peft`` does it.

    Args:
        rank: Rank of the factors.
    """

    name = 'lora'

    def __init__(self, rank: int = 8) -> None:
        self.rank = rank

    def tune(self, model: nn.Module, target: str) -> Tuned:
        """Inject the factors and train nothing else of the backbone.

        Raises:
            LeftOutError: Without ``peft``, or for a backbone that is no plain ViT.
        """
        peft, backbone = import_peft(), model.get_submodule(target)
        if not is_plain_vit(backbone):
            raise LeftOutError(
                f'{type(backbone).__name__} is no plain ViT (linear layers behind one convolution that makes patches)'
            )
        targets = linear_layers(backbone)
        options = peft.LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=targets)
        peft.inject_adapter_in_model(options, backbone)
        whole = tuple(name for name, _ in backbone.named_parameters() if _is_factor(name))
        selection = Selection(self.name, {}, whole, architecture_fingerprint(backbone), {'rank': self.rank})
        return Tuned(model, selection, FullTuning(), target)  # which has nothing to inject: peft did


class UnmergedLora(Lora):
    """LoRA with the same numbers by :class:`mmgps.tuning.LoRA`, which merges nothing into any weight."""

    def tune(self, model: nn.Module, target: str) -> Tuned:
        method = LoRA(self.rank, parts=('qkv', 'proj', 'fc1', 'fc2', 'linear'))
        return Tuned(model, method.select(model.get_submodule(target)), method, target)


def _is_factor(name: str) -> bool:
    return any(part in ('lora_A', 'lora_B') for part in name.split('.'))


def import_peft() -> Any:
    """The package.

    Raises:
        LeftOutError: If it is not installed.
    """
    require('mmengine')  # also declares the operators that torchvision, which peft loads, may lack
    try:
        import peft
    except ModuleNotFoundError as error:
        if error.name != 'peft':
            raise
        raise LeftOutError('peft is not installed; run: pip install -c constraints.txt peft') from error
    return peft


def is_plain_vit(backbone: nn.Module) -> bool:
    """Tell whether every layer is linear except one convolution, the patch embedding."""
    owners = [entry.owner for entry in describe(backbone).values() if entry.role is Role.CONNECTION]
    convolutions = [owner for owner in owners if isinstance(owner, (*CONVOLUTIONS, *TRANSPOSED))]
    attention = any(isinstance(owner, nn.MultiheadAttention) for owner in owners)
    others = [o for o in owners if not isinstance(o, (nn.Linear, nn.MultiheadAttention, *CONVOLUTIONS, *TRANSPOSED))]
    return attention and len(convolutions) == 1 and not others


def linear_layers(backbone: nn.Module) -> list[str]:
    """Paths of the modules with linear maps; an attention stands for its projections."""
    attentions = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.MultiheadAttention)}
    inner = {id(part) for module in attentions.values() for part in module.modules()}
    linear = [n for n, m in backbone.named_modules() if isinstance(m, nn.Linear) and id(m) not in inner]
    return [*attentions, *linear]
