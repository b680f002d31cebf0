"""GPS as a hook of its own."""

from __future__ import annotations

from collections.abc import Sequence

from mmgps.registry import CHOICES, HOOKS, SCORES
from mmgps.tuning import GPS

from .tune_hook import TuneHook


@HOOKS.register_module()
class GPSHook(TuneHook):
    """Select, of every neuron of the backbone, the ``k`` connections with the largest gradient, and train only those.

    Use it with ``optim_wrapper=dict(type='mmgps.GPSOptimWrapper', ...)``.

    Args:
        k: Connections per neuron.
        score: Config of the score.
        choice: Config of the choice.
        full_roles: Roles that are trained in full, see :class:`mmgps.tuning.GPS`.
        target: Path of the backbone within the model.
        num_batches: Batches of the selection pass on each process; None for all training data.
        selection: A file written by a former run under the same options, used instead of selecting.
        sparse: Config of what trains the chosen connections, see :class:`TuneHook`.
        loss: Config of what the selection pass takes the gradient of, see :class:`TuneHook`.
        lean: Configs of options that take time or memory off a step, see :class:`TuneHook`.
        micro_batches: Config of how the selection pass divides a batch, see :class:`TuneHook`.
        allow_random_base: See :class:`TuneHook`.
    """

    def __init__(
        self,
        k: int = 1,
        score: dict | None = None,
        choice: dict | None = None,
        full_roles: str | Sequence[str] = ('bias', 'scale', 'position_bias'),
        target: str = 'backbone',
        num_batches: int | None = None,
        selection: str | None = None,
        sparse: dict | None = None,
        loss: dict | None = None,
        lean: Sequence[dict] = (),
        micro_batches: dict | None = None,
        allow_random_base: bool = False,
    ) -> None:
        method = GPS(
            k,
            SCORES.build({'_scope_': 'mmgps', 'type': 'GradientScore', **(score or {})}),
            CHOICES.build({'_scope_': 'mmgps', 'type': 'PerNeuron', **(choice or {})}),
            full_roles,
        )
        super().__init__(method, target, num_batches, selection, sparse, loss, lean, micro_batches, allow_random_base)
