"""The validation that follows a checkpoint, where something depends on its scores.

mmengine writes a checkpoint first and validates then. A run that goes on from it would never see those scores: early
stopping, schedulers by score and the best checkpoint would miss one validation. So a resumed run makes it up, and what
is saved in the midst of a validation, such as a best checkpoint, is the state before it.
"""

from __future__ import annotations

import copy
from typing import Any

from mmengine.runner import IterBasedTrainLoop, Runner

from .hook_memory import needs_validation
from .run_settings import groups_of, needs_scores, scheduled_entries, schedulers_of, settings_of, structured_states


def validate_if_due(runner: Runner) -> None:
    """Validate before the first step if the uninterrupted run does so here and something depends on it."""
    loop: Any = runner.train_loop
    if runner.val_loop is None:
        return
    if not (needs_validation(runner.hooks) or any(map(needs_scores, schedulers_of(runner)))):
        return
    loop._decide_current_val_interval()
    at, last = (loop.iter, loop.max_iters) if isinstance(loop, IterBasedTrainLoop) else (loop.epoch, loop.max_epochs)
    if not isinstance(loop, IterBasedTrainLoop) and loop.iter != loop.epoch * len(loop.dataloader):
        return
    if 0 < at >= loop.val_begin and (at % loop.val_interval == 0 or at == last):
        runner.logger.info('validating the resumed state, whose scores decide how the run goes on')
        runner.val_loop.run()


class BeforeValidation:
    """Schedulers by score and the rates that they set, as they were when a validation began."""

    def __init__(self) -> None:
        self._states: Any = None
        self._groups: list[list[dict[str, Any]]] = []

    def hold(self, runner: Runner) -> None:
        """Keep the state of now, if there is a scheduler that the validation will step."""
        schedulers = schedulers_of(runner)
        if any(map(needs_scores, schedulers)):
            names = scheduled_entries([each.param_name for each in schedulers])
            self._states = structured_states(runner)
            self._groups = [
                [{key: value for key, value in settings_of(group).items() if key in names} for group in part]
                for part in groups_of(runner)
            ]

    def release(self) -> None:
        """Forget it: the validation has ended."""
        self._states = None

    def put_into(self, checkpoint: dict[str, Any]) -> None:
        """Let a ``checkpoint`` hold the state before the validation that is under way."""
        if self._states is None or 'optimizer' not in checkpoint:
            return
        checkpoint['param_schedulers'] = copy.deepcopy(self._states)
        saved = checkpoint['optimizer']
        parts = [saved] if 'param_groups' in saved else list(saved.values())
        for part, groups in zip(parts, self._groups, strict=True):
            base = part.get('base_param_settings')
            for group, settings in zip([*part['param_groups'], *([base] if base else [])], groups, strict=True):
                group.update(copy.deepcopy(settings))
