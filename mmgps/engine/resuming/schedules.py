"""Restore the schedule and optimizer settings of a resumed run, or follow the config if it changed.

A scheduler of mmengine computes each rate from the previous one. So a scheduler with other settings, or at another
iteration, is stepped from its start to the position, which gives the rates of an uninterrupted run.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from mmengine.runner import Runner

from .run_settings import (
    RunSettings,
    changed_entries,
    described,
    flat,
    groups_of,
    needs_scores,
    scheduled_entries,
    schedulers_of,
    settings_of,
    structured_states,
)

PLACE = {'last_step', '_global_step', '_last_value'}
"""Attributes that hold the position of a scheduler of mmengine."""
OWN = ('mmengine', 'mmgps')
"""Packages whose schedulers depend on their settings, position and scores only."""
INSTEAD = 'or start anew from its weights with load_from instead of --resume'


class ResumeError(ValueError):
    """A run cannot continue under settings that differ from those of its checkpoint."""


@dataclass(frozen=True)
class ResumptionPlan:
    """Changes to a run once mmengine has loaded its checkpoint.

    Args:
        schedule: Step fresh schedulers to the position.
        groups: Settings of the config to apply, for each optimizer and parameter group.
    """

    schedule: bool
    groups: list[list[dict[str, Any]]]


def apply_plan(runner: Runner, plan: ResumptionPlan, now: RunSettings) -> None:
    """Apply the settings of the config, and step fresh schedulers to the position of the run."""
    for group, settings in zip(chain(*groups_of(runner)), chain(*plan.groups), strict=True):
        group.update(copy.deepcopy(settings))
    if plan.schedule:
        loop = runner.train_loop
        step_to(schedulers_of(runner), loop.epoch, loop.iter, now)


def step_to(schedulers: Sequence[Any], epoch: int, iteration: int, now: RunSettings) -> None:
    """Step fresh ``schedulers`` up to a position, as mmengine's hook does in training."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # from torch, since the optimizer does not step
        for by_epoch in _steps(epoch, iteration, now):
            for scheduler in schedulers:
                if scheduler.by_epoch == by_epoch:
                    scheduler.step()


def _steps(epoch: int, iteration: int, now: RunSettings) -> Iterator[bool]:
    """Yield True for each step by epoch and False for each by iteration, up to a position."""
    if now.loop == 'iterations':
        epoch, length = 0, 0
    else:
        length = now.epoch_length
    for _ in range(epoch):
        yield from [False] * length
        yield True
    yield from [False] * (iteration - epoch * length)


def plan_schedule(
    runner: Runner, checkpoint: dict[str, Any], then: RunSettings | None, now: RunSettings, moved: bool
) -> tuple[ResumptionPlan, list[str]]:
    """Decide whether ``runner`` restores or follows its schedule, and describe the changes for the log."""
    schedulers, groups = schedulers_of(runner), groups_of(runner)
    found = flat(checkpoint.get('param_schedulers'))
    former = [] if then is None else [settings['param_name'] for _, settings in then.schedulers]
    names = scheduled_entries([*former, *(each.param_name for each in schedulers)])
    wanted: list[list[dict[str, Any]]] = [[{} for _ in part] for part in groups]
    notes: list[str] = []
    if then is None:
        follow = bool(found) and not any(needs_scores(each) or not _is_own(each) for each in schedulers)
    else:
        notes += _settings_to_follow(then, now, groups, names, wanted)
        reasons = _differences(then, now, names)
        if len(found) != len(schedulers) and not reasons:
            reasons = [f'schedulers in the checkpoint: {len(found)}, in the config: {len(schedulers)}']
        notes += [f'{reason}; followed' for reason in reasons] + _too_short(schedulers, then, now)
        follow = bool(reasons) or moved
        if follow and not moved and _only_longer(schedulers, found, then, now):
            for state, scheduler in zip(found, schedulers, strict=True):
                state['end'] = scheduler.end
            follow = False
        elif follow:
            _check_without_memory(schedulers, found, then, reasons)
    if follow:
        for settings, group in zip(chain(*wanted), chain(*groups), strict=True):
            settings.update({name: value for name, value in settings_of(group).items() if name in names})
        checkpoint['param_schedulers'] = structured_states(runner)
    return ResumptionPlan(follow, copy.deepcopy(wanted)), notes


def _settings_to_follow(
    then: RunSettings,
    now: RunSettings,
    groups: list[list[dict[str, Any]]],
    scheduled: set[str],
    wanted: list[list[dict[str, Any]]],
) -> list[str]:
    """Add changed settings outside of the schedule to ``wanted``, and describe the changes."""
    changes: Counter[str] = Counter()
    by_group = (chain(*each) for each in (then.groups, now.groups, groups, wanted))
    for before, after, group, settings in zip(*by_group, strict=True):
        for name in after.keys() - scheduled:
            if name not in before or before[name] != after[name]:
                settings[name] = group[name]
                changes[f'{name} of the optimizer: {before.get(name)} -> {after[name]}'] += 1
    return [f'{change}, in {count} parameter groups; followed' for change, count in sorted(changes.items())]


def _differences(then: RunSettings, now: RunSettings, scheduled: set[str]) -> list[str]:
    """Describe the differences between the schedules of checkpoint and config."""
    ignored = {*PLACE, 'base_values'}
    former, current = ([name for name, _ in each.schedulers] for each in (then, now))
    if former != current:
        return [f'schedulers: {former} -> {current}']
    notes = []
    for (name, before), (_, after) in zip(then.schedulers, now.schedulers, strict=True):
        changes = changed_entries(*({key: each[key] for key in each if key not in ignored} for each in (before, after)))
        notes += [f'{name}: {", ".join(changes)}'] if changes else []
    compared = [name for name in sorted(scheduled) if name.startswith('initial_') or not now.schedulers]
    first: dict[str, str] = {}
    for before, after in zip(chain(*then.groups), chain(*now.groups), strict=True):
        for entry in compared:
            if before.get(entry) != after.get(entry):
                first.setdefault(entry, f'{entry}: {before.get(entry)} -> {after.get(entry)}')
    return [*notes, *first.values()]


def _is_own(scheduler: Any) -> bool:
    return type(scheduler).__module__.partition('.')[0] in OWN


def _only_longer(
    schedulers: Sequence[Any], found: Sequence[dict[str, Any]], then: RunSettings, now: RunSettings
) -> bool:
    """Return True if only ends of schedulers by score changed, and the run has not reached them."""
    if len(found) != len(schedulers) or len(then.schedulers) != len(now.schedulers):
        return False
    for scheduler, state, (name, before), (kind, after) in zip(
        schedulers, found, then.schedulers, now.schedulers, strict=True
    ):
        changed = {key for key in after if before.get(key) != after[key]}
        if name != kind or changed - ({'end'} if needs_scores(scheduler) else set()):
            return False
        if changed and min(before['end'], after['end']) < state['_global_step']:
            return False
    return any(map(needs_scores, schedulers))


def _check_without_memory(
    schedulers: Sequence[Any], found: Sequence[dict[str, Any]], then: RunSettings, reasons: Sequence[str]
) -> None:
    """Refuse to step schedulers to a position if they remember more than their number of steps.

    An unknown scheduler does so if an attribute other than its position has changed since it was built.

    Raises:
        ResumeError: Names the scheduler and its memory.
    """
    for at, scheduler in enumerate(schedulers):
        memory = ['the scores so far'] if needs_scores(scheduler) else []
        if not _is_own(scheduler) and at < min(len(found), len(then.schedulers)):
            built = then.schedulers[at][1]
            kept = built.keys() & found[at].keys() - PLACE
            memory += sorted(key for key in kept if described(found[at][key]) != built[key])
        if memory:
            why = '; '.join(reasons) or 'an epoch has another number of iterations'
            raise ResumeError(
                f'{type(scheduler).__name__} remembers {", ".join(memory)}, so it cannot be stepped to the position of '
                f'the checkpoint under another schedule: {why}. Set param_scheduler, learning rate and batch size as '
                f'they were, {INSTEAD}'
            )


def _too_short(schedulers: Sequence[Any], then: RunSettings, now: RunSettings) -> list[str]:
    """Advise on a run that was made longer without its schedule, which lasted to the former end."""
    rates = [each for each in schedulers if each.param_name == 'lr' and not needs_scores(each)]
    if now.loop == 'epochs':
        ends = [each.end if each.by_epoch else each.end / now.epoch_length for each in rates]
    else:
        ends = [each.end for each in rates if not each.by_epoch]
    if not ends or not then.length <= max(ends) < now.length:
        return []
    return [
        f'the run is longer, {then.length} -> {now.length} {now.loop}, but its schedule ends after {max(ends):g}: the '
        f'learning rate stays constant from there; set end (and T_max) of param_scheduler to {now.length}'
    ]
