"""How many numbers of a tuned model moved, and whether those are the ones that its report and selection name."""

from __future__ import annotations

from torch import Tensor, nn

import mmgps


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def total(tuned: mmgps.Tuned) -> int:
    """How many numbers are trained, by the report."""
    [line] = [line for line in str(tuned).splitlines() if line.startswith('total')]
    return int(line.split()[1].replace(',', ''))


def count_moved(tuned: mmgps.Tuned, before: dict[str, Tensor]) -> int:
    """How many numbers moved.

    Raises:
        AssertionError: If one moved that the selection does not train, and that does not lie outside the backbone.
    """
    prefix = f'{tuned.target}.' if tuned.target else ''
    chosen = {f'{prefix}{entry.name}': (entry, item) for entry, item in tuned.selection.resolve(tuned.backbone)}
    whole = {f'{prefix}{name}' for name in tuned.selection.whole}
    moved = 0
    for name, value in tuned.model.named_parameters():
        if name not in before:
            continue
        differs = value != before[name]
        moved += int(differs.sum())
        if name in chosen:
            entry, item = chosen[name]
            assert not (differs & ~item.mask(entry.neurons)).any(), name
        elif name.startswith(prefix) and name not in whole:
            assert not differs.any(), name
    return moved


def check_moved(tuned: mmgps.Tuned, before: dict[str, Tensor]) -> None:
    """What the report says is trained moved, all of it, and nothing else."""
    assert count_moved(tuned, before) == total(tuned)
