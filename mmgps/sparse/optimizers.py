"""Check that an optimizer takes the same steps for a few numbers of a weight as for the whole weight.

An elementwise optimizer does: it computes the step of each number from the history of that number alone. An optimizer
that treats a tensor as a whole (LARS and LAMB by its norm, Adafactor by its rows, columns and scale, Muon as a matrix)
takes steps of another length or direction if it holds only the trained numbers. Unknown classes are refused.
"""

from __future__ import annotations

from inspect import unwrap

from torch import optim
from torch.optim import Optimizer

ELEMENTWISE: tuple[type[Optimizer], ...] = (
    optim.SGD, optim.ASGD, optim.RMSprop, optim.Rprop, optim.Adagrad, optim.Adadelta, optim.Adam, optim.AdamW,
    optim.Adamax, optim.NAdam, optim.RAdam,
)  # fmt: skip


def is_elementwise(optimizer: Optimizer) -> bool:
    """Whether ``optimizer`` is known to step each number by itself: one of torch's, or a subclass with its step."""
    kind = type(optimizer)
    return any(issubclass(kind, known) and unwrap(kind.step) is unwrap(known.step) for known in ELEMENTWISE)


def check_elementwise(optimizer: Optimizer) -> None:
    """Make sure that ``optimizer`` steps each number by itself.

    Raises:
        ValueError: Names the class and the alternatives.
    """
    if is_elementwise(optimizer):
        return
    name = type(optimizer).__name__
    if isinstance(optimizer, optim.LBFGS):
        raise ValueError(
            'LBFGS computes the loss again within its step, and an optimizer wrapper hands it none; choose one that '
            f'does not: {_known()}'
        )
    raise ValueError(
        f'{name} is not known to step each number by itself, so compact training may differ from training the dense '
        f'weights; choose an optimizer of torch that does ({_known()}), or mmgps.MaskedTraining by training= of '
        f'mmgps.tune or sparse= of the hook, or, if {name} does or the difference is meant, '
        'mmgps.CompactTraining there with any_optimizer=True'
    )


def _known() -> str:
    return ', '.join(kind.__name__ for kind in ELEMENTWISE)
