"""How a resumed run treats each setting and state that affects the rest of it.

=================================== ==================================================================================
weights, optimizer, loss scaler     restored by mmengine
selection, injected modules         restored by :class:`mmgps.engine.TuneHook`
gradients within an accumulation    restored (:mod:`mmgps.engine.resuming.checkpoints`)
schedulers, with memory too         restored; under other settings, or at another iteration, stepped from the start of
                                    the config's schedule to the position, or refused if they depend on scores
hooks with memory                   restored, or refused by name (:mod:`mmgps.engine.resuming.hook_memory`)
seed                                restored by mmengine
order, augmentation, dropout        derived from the position (:mod:`mmgps.engine.resuming.seeding`)
a validation due at the position    run before the first step, if something depends on its scores
data set, batch size, ``drop_last`` compared: followed from the start of an epoch and in loops by iteration, refused
processes, samplers                 within an epoch
``accumulative_counts``             compared: followed if no gradient is pending, else refused
kind of loop, kind of optimizer     compared: refused
settings of the optimizer           compared: followed
length, ``val_interval``            those of the config
=================================== ==================================================================================

One warning lists the settings that are followed.

mmengine writes a checkpoint before it validates. A run that resumes from it would never see those scores: early
stopping, schedulers by score and the best checkpoint would miss one validation. So a resumed run validates first, and a
checkpoint that is saved during a validation, such as the best one, holds the state before it.
"""

from __future__ import annotations

import copy
from typing import Any

from mmengine.runner import Runner

from .checkpoints import GRADIENTS_KEY
from .hook_memory import needs_validation
from .run_settings import (
    RunSettings,
    changed_entries,
    groups_of,
    needs_scores,
    place_in,
    scheduled_entries,
    schedulers_of,
    settings_of,
    structured_states,
)
from .schedules import INSTEAD, ResumeError, ResumptionPlan, plan_schedule

RUN_KEY = 'mmgps_run'


def plan_resumption(runner: Runner, checkpoint: dict[str, Any], now: RunSettings) -> ResumptionPlan:
    """Compare the settings of a checkpoint with those of ``runner``, which is about to load it.

    The iteration in the meta data of ``checkpoint`` changes, if it has another number under the settings ``now``.

    Raises:
        ResumeError: If a changed setting cannot be followed; names both values and the next step.
    """
    then = RunSettings.unpack(checkpoint.get(RUN_KEY))
    if 'optimizer' not in checkpoint and isinstance(runner, Runner):
        raise ResumeError(
            'the checkpoint holds no state of the optimizer, as with save_optimizer=False of the CheckpointHook; '
            f'resume from one that does, {INSTEAD}'
        )
    notes = []
    if then is None:
        notes.append(
            'the checkpoint does not record its settings, so they are not compared: keep batch size, data and '
            'optimizer as they were. Hooks that remember, such as EarlyStoppingHook, start anew'
        )
    else:
        _check_kind(then, now)
    meta = checkpoint['meta']
    before = meta['iter']
    notes += _move(checkpoint, then, now)
    if then is not None:
        _check_accumulation(then, now, before, meta['iter'])
        if then.accumulation != now.accumulation:
            notes.append(f'accumulative_counts: {then.accumulation} -> {now.accumulation}; followed')
    elif (GRADIENTS_KEY in checkpoint) != any(meta['iter'] % count for count in now.accumulation):
        raise ResumeError(
            f'the checkpoint at iteration {meta["iter"]} and accumulative_counts={now.accumulation} do not fit: it '
            f'{"holds" if GRADIENTS_KEY in checkpoint else "does not hold"} gradients of an accumulation; set '
            f'accumulative_counts of optim_wrapper to that of its run, {INSTEAD}'
        )
    plan, more = plan_schedule(runner, checkpoint, then, now, moved=meta['iter'] != before)
    notes += more
    if notes:
        runner.logger.warning('resuming under other settings than those of the checkpoint:\n  ' + '\n  '.join(notes))
    return plan


def warn_if_finished(runner: Runner) -> None:
    """Warn if a resumed run is at its end, and say how to make it longer."""
    unit, at, last = place_in(runner.train_loop)
    if at >= last:
        key = 'max_iters' if unit == 'iteration' else 'max_epochs'
        runner.logger.warning(
            f'nothing left to do: the checkpoint is that of {unit} {at} of {last}; to train longer, set '
            f'train_cfg.{key} above {at}, and end (and T_max) of param_scheduler where the config names them'
        )
    elif runner.train_loop.stop_training:
        runner.logger.warning(f'nothing left to do: the run was stopped early, at {unit} {at} of {last}')


def _check_kind(then: RunSettings, now: RunSettings) -> None:
    if then.loop != now.loop:
        raise ResumeError(
            f'the checkpoint was trained in a loop that counts {then.loop}, train_cfg counts {now.loop}; set '
            f'train_cfg to a loop by {then.loop}, {INSTEAD}'
        )
    sizes, current = ([len(part) for part in each.groups] for each in (then, now))
    if then.optimizers == now.optimizers and sizes != current:
        raise ResumeError(
            f'the optimizer of the checkpoint has {sizes} parameter groups, the optimizer of the config {current}; set '
            f'paramwise_cfg and constructor of optim_wrapper as they were, {INSTEAD}'
        )
    if then.optimizers != now.optimizers:
        raise ResumeError(
            f'the checkpoint was trained by {", ".join(then.optimizers)}, the config asks for '
            f'{", ".join(now.optimizers)}; set optim_wrapper.optimizer.type to that of the checkpoint, {INSTEAD}'
        )


def _move(checkpoint: dict[str, Any], then: RunSettings | None, now: RunSettings) -> list[str]:
    """Set the iteration of the checkpoint to the number that it has under the new settings."""
    changed = [] if then is None else changed_entries(then.data, now.data)
    meta, length = checkpoint['meta'], now.epoch_length
    if now.loop == 'iterations':
        return [f'{each}; followed from iteration {meta["iter"]} on' for each in changed]
    epoch, iteration = meta['epoch'], meta['iter']
    former = _former_length(checkpoint, now) if then is None else then.epoch_length
    within = iteration - epoch * former
    if not 0 <= within <= former:
        raise ResumeError(
            f'the checkpoint says epoch {epoch} and iteration {iteration}, which no run of {former} iterations an '
            'epoch reaches: its batch size, images or processes were others; set them as they were, '
            f'{INSTEAD}'
        )
    if not changed and former == length:
        return []
    if then is None:
        changed = [f'iterations of an epoch: {former} -> {length}']
    if 0 < within < former:
        raise ResumeError(
            f'the checkpoint is within epoch {epoch + 1}, after {within} of {former} iterations, and this run would '
            f'see other batches: {"; ".join(changed)}. Set these as they were, or resume from a checkpoint at the end '
            f'of an epoch, {INSTEAD}'
        )
    meta['iter'] = epoch * length + (length if within else 0)
    return [f'{each}; followed from epoch {epoch + 1} on, iteration {meta["iter"]}' for each in changed]


def _former_length(checkpoint: dict[str, Any], now: RunSettings) -> int:
    """Iterations of an epoch according to mmengine's message hub."""
    known = checkpoint.get('message_hub', {}).get('runtime_info', {})
    epochs, iterations = known.get('max_epochs'), known.get('max_iters')
    return iterations // epochs if epochs and iterations else now.epoch_length


def _check_accumulation(then: RunSettings, now: RunSettings, before: int, after: int) -> None:
    """Refuse a position at which gradients are pending under one setting and not under the other."""
    for former, count in zip(then.accumulation, now.accumulation, strict=True):
        had = 0 if before == then.iterations else before % former
        if had != after % count or (had and former != count):
            raise ResumeError(
                f'gradients are accumulated: the checkpoint has summed {had} of {former} at iteration {before}, the '
                f'run under accumulative_counts={count} would have summed {after % count} at iteration {after}; set '
                'accumulative_counts of optim_wrapper and batch_size as they were, or accumulative_counts so that it '
                f'divides both iterations, {INSTEAD}'
            )


def validate_if_due(runner: Runner) -> None:
    """Validate before the first step if an uninterrupted run validates here and something depends on the scores."""
    loop: Any = runner.train_loop
    if runner.val_loop is None:
        return
    if not (needs_validation(runner.hooks) or any(map(needs_scores, schedulers_of(runner)))):
        return
    loop._decide_current_val_interval()
    unit, at, last = place_in(loop)
    if unit == 'epoch' and loop.iter != loop.epoch * len(loop.dataloader):
        return
    if 0 < at >= loop.val_begin and (at % loop.val_interval == 0 or at == last):
        runner.logger.info('validating the resumed state, whose scores decide how the run continues')
        runner.val_loop.run()


class BeforeValidation:
    """State of schedulers by score, and the rates that they set, from before a validation."""

    def __init__(self) -> None:
        self._states: Any = None
        self._groups: list[list[dict[str, Any]]] = []

    def hold(self, runner: Runner) -> None:
        """Copy the present state, if the validation will step a scheduler."""
        schedulers = schedulers_of(runner)
        if any(map(needs_scores, schedulers)):
            names = scheduled_entries([each.param_name for each in schedulers])
            self._states = structured_states(runner)
            self._groups = [
                [{key: value for key, value in settings_of(group).items() if key in names} for group in part]
                for part in groups_of(runner)
            ]

    def release(self) -> None:
        """Drop the state, since the validation has ended."""
        self._states = None

    def put_into(self, checkpoint: dict[str, Any]) -> None:
        """Put the state from before the current validation into ``checkpoint``."""
        if self._states is None or 'optimizer' not in checkpoint:
            return
        checkpoint['param_schedulers'] = copy.deepcopy(self._states)
        saved = checkpoint['optimizer']
        parts = [saved] if 'param_groups' in saved else list(saved.values())
        for part, groups in zip(parts, self._groups, strict=True):
            base = part.get('base_param_settings')
            for group, settings in zip([*part['param_groups'], *([base] if base else [])], groups, strict=True):
                group.update(copy.deepcopy(settings))
