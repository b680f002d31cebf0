"""Count the trained numbers by part of the model, and format the report at the start of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from mmgps.selection import Role, Selection, describe
from mmgps.sparse import registered_in
from mmgps.utils.text import text_table


@dataclass(frozen=True)
class Count:
    """Trained and total numbers of one part of a model."""

    part: str
    trained: int
    total: int

    @property
    def density(self) -> float:
        """Trained numbers as a share of the part."""
        return self.trained / self.total if self.total else 0.0


def count_parts(model: nn.Module, target: str, selection: Selection) -> list[Count]:
    """Count each direct child of ``model``; of the backbone, the numbers that its selection trains.

    A parameter that several parts share counts in the first one. A child that contains the backbone counts as one part.

    Args:
        model: The whole model, after :func:`freeze_unselected`.
        target: Path of the backbone in the model.
        selection: The selection of the backbone.
    """
    weights = dict(model.get_submodule(target).named_parameters())
    chosen = {id(weights[name]): len(item) for name, item in selection.connections.items()}
    seen = set(map(id, registered_in(model)))  # counted as numbers of their weights
    counts = []
    own = (type(model).__name__, model.parameters(recurse=False))
    for part, values in (own, *((name, child.parameters()) for name, child in model.named_children())):
        fresh = [value for value in values if id(value) not in seen]
        seen.update(map(id, fresh))
        trained = sum(chosen.get(id(value), value.numel() * value.requires_grad) for value in fresh)
        if fresh:
            counts.append(Count(part, trained, sum(value.numel() for value in fresh)))
    return counts


def count_roles(backbone: nn.Module, selection: Selection) -> dict[str, int]:
    """Trained numbers of the backbone by role, in the order of :class:`Role`."""
    counts = dict.fromkeys((role.value for role in Role), 0)
    whole = set(selection.whole)
    for name, entry in describe(backbone).items():
        if name in selection.connections:
            counts[entry.role.value] += len(selection.connections[name])
        elif name in whole:
            counts[entry.role.value] += entry.value.numel()
    return {role: count for role, count in counts.items() if count}


def count_whole(counts: Sequence[Count]) -> Count:
    """The sum of all parts."""
    return Count('total', sum(c.trained for c in counts), sum(c.total for c in counts))


def count_backbone(model: nn.Module, target: str, selection: Selection) -> Count:
    """The count of the backbone, at any depth of the model."""
    inner = model.get_submodule(target)
    trained = sum(count_roles(inner, selection).values())
    return Count(target, trained, sum(value.numel() for value in {*inner.parameters()} - {*registered_in(inner)}))


def format_report(model: nn.Module, target: str, selection: Selection) -> str:
    """The table that is logged when training starts."""
    inner, counts = model.get_submodule(target), count_parts(model, target, selection)
    whole, base = count_whole(counts), count_backbone(model, target, selection)
    rows = [[c.part, f'{c.trained:,}', f'{c.total:,}', f'{c.density:.3%}'] for c in [*counts, whole]]
    lines = [text_table(['part', 'trained', 'total', 'density'], rows)]
    roles = count_roles(inner, selection).items()
    detail = ', '.join(f'{role.replace("_", " ")} {count:,}' for role, count in roles) or 'nothing'
    neurons = sum(item.neurons for item in selection.connections.values())
    density = f'density {base.density:.3%} without the head, {whole.density:.3%} with it'
    lines.append(f'trained of {target}: {detail}; {density}')
    if neurons:
        k = f', K={selection.settings["k"]}' if 'k' in selection.settings else ''
        lines.append(f'{len(selection):,} connections chosen for {neurons:,} neurons{k}')
    other = [name for name, entry in describe(inner).items() if entry.role is Role.OTHER]
    if other and selection.method != 'full':
        lines.append(f'frozen because no rule knows their owners: {", ".join(other[:5])}{" ..." * (len(other) > 5)}')
    return '\n'.join(lines)
