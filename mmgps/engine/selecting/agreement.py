"""Whether a selection that was made before is the one that a config asks for."""

from __future__ import annotations

from mmgps.selection import Selection
from mmgps.sparse import SparseTraining
from mmgps.tuning import TuningMethod

from .selection_loss import SelectionLoss


def check_same_method(method: TuningMethod, selection: Selection, where: str) -> None:
    """Make sure that ``selection`` was made by ``method``, as far as it says.

    Args:
        method: Of the config.
        selection: Settings that it does not name, as one of an older release may not, are let pass.
        where: It was found, for the error.

    Raises:
        ValueError: If it was made by another, or with other settings; names both.
    """
    wanted, found = method.settings(), dict(selection.settings)
    if method.name != selection.method or any(wanted.get(key) != value for key, value in found.items()):
        raise ValueError(
            f'the selection of {where} was made by {selection.method} with {found}, the config asks for {method.name} '
            f'with {wanted}; name the method and settings of the selection, or select anew in another work_dir'
        )


def check_same_loss(loss: SelectionLoss, selection: Selection, where: str) -> None:
    """Make sure that ``selection`` was made by the gradient of ``loss``, as far as it says.

    Args:
        loss: Of the config.
        selection: One without a loss was made without gradients, or before selections named it; it is let pass.
        where: It was found, for the error.

    Raises:
        ValueError: If it was made by another loss; names what differs.
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
    """Make sure that a checkpoint holds the optimizer's state of ``training``; without connections there is none.

    Args:
        training: Of the config.
        found: Class of that of the checkpoint; None if it does not say.
        selection: That was trained.

    Raises:
        ValueError: If it was trained by another class.
    """
    wanted = type(training).__name__
    if selection.connections and found not in (None, wanted):
        raise ValueError(
            f"the checkpoint was trained with {found}, the config asks for {wanted}, whose optimizer's state is "
            f"another; resume with sparse=dict(type='mmgps.{found}') of the hook, or start anew in another work_dir"
        )
