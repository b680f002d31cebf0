"""Put a delta on a network, and take it off again."""

from __future__ import annotations

from types import TracebackType

from torch import nn

from mmgps.selection import SelectionMismatchError
from mmgps.tuning import TuningMethod, eject

from .base import DeltaMismatchError
from .delta import Delta
from .fit import backbone_of, check_tensors, verify
from .grow import check_growth, grow
from .patch import Patch
from .tensors import tensors_of


class AppliedDelta:
    """A delta on a network, from construction to :meth:`remove`.

    The numbers are written into the tensors of ``model``. What a method like LoRA needs beside the base is put in place
    where it is not there. :meth:`remove`, or leaving it as a context, restores the base bit for bit::

        with AppliedDelta(model, delta):
            model(picture)

    Args:
        model: With the numbers of the base.
        delta: What to apply.
        method: The method of the delta if it adds modules and is none of mmgps.

    Raises:
        DeltaMismatchError: If the delta belongs to another base or architecture; nothing is changed then.
    """

    def __init__(self, model: nn.Module, delta: Delta, method: TuningMethod | None = None) -> None:
        verify(model, delta)
        self._model, self._delta = model, delta
        patch, self._grew = fitted(model, delta, method)
        self._patch: Patch | None = patch
        patch.put_on()

    def remove(self) -> None:
        """Restore the base; a second call does nothing."""
        if self._patch is not None:
            self._patch.take_off()
            self._patch = None
            if self._grew:
                eject(backbone_of(self._model, self._delta))

    def __enter__(self) -> AppliedDelta:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def fitted(model: nn.Module, delta: Delta, method: TuningMethod | None = None) -> tuple[Patch, bool]:
    """The patch of ``delta`` for ``model``, which gets the modules that it lacks, and whether it lacked any.

    Raises:
        DeltaMismatchError: If the delta does not fit; nothing is changed then.
    """
    if method is None:
        beside = {name: delta.tensors[delta.prefix + name] for name in delta.injected()}
        check_growth(backbone_of(model, delta), delta.selection, beside)
    grew = grow(backbone_of(model, delta), delta.selection, delta.injected(), method)
    try:
        check_tensors(delta.tensors, tensors_of(model))
        return Patch(model, delta), grew
    except Exception as error:
        if grew:
            eject(backbone_of(model, delta))
        if isinstance(error, SelectionMismatchError):
            raise DeltaMismatchError(f'the delta does not fit: {error}') from error
        raise


def alike(some: Delta, other: Delta) -> bool:
    """Whether both have the same modules beside the base, so that one can follow the other in place."""
    if some.injected() != other.injected():
        return False
    mine, its = some.selection, other.selection
    return not some.injected() or (mine.method, dict(mine.settings)) == (its.method, dict(its.settings))
