"""Check that an earlier selection is the one that a config asks for."""

from __future__ import annotations

from mmgps.selection import Selection
from mmgps.sparse import SparseTraining
from mmgps.tuning import TuningMethod

from .selection_loss import SelectionLoss


def check_same_method(method: TuningMethod, selection: Selection, where: str) -> None:
    """Check that ``method`` made ``selection``.

    Args:
        method: Method of the config.
        selection: Earlier selection; settings that it does not record, as in older releases, are not compared.
        where: Origin of the selection, for the error message.

    Raises:
        ValueError: If another method made it, or other settings; names both.
    """
    wanted, found = method.settings(), dict(selection.settings)
    if method.name != selection.method or any(wanted.get(key) != value for key, value in found.items()):
        raise ValueError(
            f'the selection of {where} was made by {selection.method} with {found}, the config asks for {method.name} '
            f'with {wanted}; name the method and settings of the selection, or select anew in another work_dir'
        )


def check_same_loss(loss: SelectionLoss, selection: Selection, where: str) -> None:
    """Check that ``selection`` was made by gradients of ``loss``.

    Args:
        loss: Selection loss of the config.
        selection: Earlier selection; one that records no loss, as in older releases, is accepted.
        where: Origin of the selection, for the error message.

    Raises:
        ValueError: If it was made by another loss; names the differences.
    """
    wanted, found = loss.settings(), selection.loss
    if found is not None and wanted != found:
        differing = [key for key in (*found, *wanted) if found.get(key) != wanted.get(key)]
        there, here = ({key: said[key] for key in dict.fromkeys(differing) if key in said} for said in (found, wanted))
        raise ValueError(
            f'the selection of {where} was made by a {found["type"]} with {there}, the config asks for a '
            f'{wanted["type"]} with {here}; set loss of the hook to that of the selection, or select anew in another '
            'work_dir'
        )


def check_same_training(training: SparseTraining | None, found: str | None, selection: Selection) -> None:
    """Check that the optimizer state of a checkpoint belongs to ``training``; without connections any will do.

    Args:
        training: Sparse training of the config.
        found: Class name in the checkpoint; None if it records none.
        selection: Selection of the checkpoint.

    Raises:
        ValueError: If another class trained the checkpoint.
    """
    wanted = type(training).__name__
    if selection.connections and found not in (None, wanted):
        raise ValueError(
            f'the checkpoint was trained with {found}, the config asks for {wanted}, whose optimizer state '
            f"differs; resume with sparse=dict(type='mmgps.{found}') of the hook, or start anew in another work_dir"
        )
