"""Put a delta on a model and return it as a tuned one."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from mmgps.delta import Delta, check_injection, inject_missing, load_delta, verify
from mmgps.rewiring import Structure
from mmgps.sparse import CompactTraining, unregister
from mmgps.tuning import TuningMethod

from .snapshot import write_delta
from .tune import method_for
from .tuned import TrainingFactory, Tuned, check_untuned, tuned_of


def load(
    model: nn.Module,
    delta: str | Path | Delta,
    method: TuningMethod | None = None,
    training: TrainingFactory = CompactTraining,
) -> Tuned:
    """Tune ``model``, which has the numbers of the base, as the run that made ``delta`` did, and take over its numbers.

    The model computes as the trained one did, bit for bit, and can be trained on. A delta of another head than the
    model has, such as one for other classes, does not fit.

    Args:
        model: With the numbers of the base in its backbone, and a head of the same shape.
        delta: A file that :meth:`Tuned.save`, ``mmgps.DeltaHook`` or ``tools/delta.py`` wrote, or its content.
        method: The method of the delta, if it is none of mmgps.
        training: What trains the chosen connections if training goes on.

    Raises:
        DeltaFileError: If the file is no intact delta.
        DeltaMismatchError: If it belongs to another base or architecture; nothing is changed then.
        ValueError: If the model is tuned already.
    """
    check_untuned(model)
    found = delta if isinstance(delta, Delta) else load_delta(delta)
    unregister(model)
    verify(model, found)
    backbone, before, tuned = model.get_submodule(found.target), Structure(model), None
    try:
        if method is None:
            beside = {name: found.tensors[found.prefix + name] for name in found.injected()}
            check_injection(backbone, found.selection, beside)
        inject_missing(backbone, found.selection, found.injected(), method)
        tuned = Tuned(model, found.selection, method or method_for(found.selection), found.target, training)
        tuned.start()
        write_delta(model, found)
    except BaseException:
        if tuned is not None and tuned_of(model) is tuned:
            tuned.unload()
        before.restore()
        raise
    return tuned
