"""Run the selection pass of a method inside a runner, and check that an earlier selection fits the config."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_dist_info
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmgps.rewiring import type_names
from mmgps.selection import Quantiles, Selection, gradient_quantiles, preserved, sum_gradients
from mmgps.sparse import SparseTraining
from mmgps.tuning import TuningMethod

from ..optim import wrappers_of
from ..resuming.seeding import mixed_seed, run_seed, seed_generators
from ..tuned_backbone import unwrapped
from .micro_batches import MicroBatches
from .selection_batches import batch_size_of
from .selection_loss import SelectionLoss, TaskLoss

REPORT_EVERY_S = 10.0
SYNCHRONIZED = {'torch.nn.modules.batchnorm.SyncBatchNorm', 'mmcv.ops.sync_bn.SyncBatchNorm'}
"""Classes that exchange statistics with other processes in training."""


class SelectionPassError(RuntimeError):
    """Another process failed during selection."""


@dataclass(frozen=True)
class SelectionCost:
    """Cost of a selection.

    Args:
        seconds: Wall-clock time of pass and choice.
        batches: Batches of this process.
        gradient_bytes: Size of the summed gradients: the memory of the pass in addition to forward and backward.
    """

    seconds: float
    batches: int
    gradient_bytes: int

    def __str__(self) -> str:
        if not self.batches:
            return f'selected in {self.seconds:.1f} s without a pass over the data'
        return (
            f'selected in {self.seconds:.1f} s from {self.batches} batches; '
            f'summed gradients took {self.gradient_bytes / 2**20:.1f} MiB'
        )


@dataclass(frozen=True)
class SelectionResult:
    """Selection of a method, and its cost.

    Args:
        selection: Selected parameters and connections.
        cost: Cost of the selection.
        gradients: Quantiles of the summed gradients by weight; empty for a method without gradients.
    """

    selection: Selection
    cost: SelectionCost
    gradients: Mapping[str, Quantiles]


def select(
    runner: Runner,
    backbone: nn.Module,
    method: TuningMethod,
    num_batches: int | None,
    objective: SelectionLoss | None = None,
    division: MicroBatches | None = None,
) -> SelectionResult:
    """Let ``method`` select, by gradients on the training data of ``runner`` if it needs them.

    Args:
        runner: Runner whose model holds the pre-trained weights.
        backbone: Backbone to select in.
        method: Tuning method.
        num_batches: Batches of this process; None for all training data.
        objective: Loss to differentiate; the task loss by default.
        division: Division of a batch into micro-batches; None for full batches.
    """
    began = time.perf_counter()
    gradients, batches, loss = None, 0, None
    if method.needs_gradient:
        objective = objective or TaskLoss()
        gradients, batches = _gradients(runner, backbone, method, num_batches, objective, division)
        loss = objective.settings()
    selection = replace(method.select(backbone, gradients), loss=loss)
    size = sum(g.numel() * g.element_size() for g in (gradients or {}).values())
    cost = SelectionCost(time.perf_counter() - began, batches, size)
    return SelectionResult(selection, cost, gradient_quantiles(backbone, selection, gradients or {}))


def _gradients(
    runner: Runner,
    backbone: nn.Module,
    method: TuningMethod,
    num_batches: int | None,
    objective: SelectionLoss,
    division: MicroBatches | None,
) -> tuple[dict[str, Tensor], int]:
    rank, world_size = get_dist_info()
    seed = run_seed(runner.seed)
    batches = objective.batches(runner.train_dataloader, num_batches, seed, rank, world_size)
    model = unwrapped(runner.model)
    parameters = {name: entry.value for name, entry in method.candidates(backbone).items()}
    loss: Callable[[Any], Tensor | Iterable[Tensor]] = objective.bind(model, backbone, runner.optim_wrapper)
    if division is not None:
        size = batch_size_of(runner.train_dataloader)
        loss = division.bind(objective, model, backbone, runner.optim_wrapper, parameters, size)

    def work() -> dict[str, Tensor]:
        with preserved(model), nullcontext() if division is None else division.running(backbone):
            return sum_gradients(
                model.train(),
                parameters,
                _with_progress(_seeded(batches, seed, rank), len(batches), runner.logger),
                lambda weighed: _weighed(loss(weighed[0]), weighed[1]),
                loss_scale(runner.optim_wrapper),
                method.accumulation,
                any_rank if synchronizes(model) else None,
                division is not None and division.sums_on_host,
            )

    gradients = on_all_ranks(work)
    for name in gradients:
        all_reduce(gradients[name])
    return gradients, len(batches)


def _weighed(losses: Tensor | Iterable[Tensor], weight: float) -> Tensor | Iterable[Tensor]:
    return losses * weight if isinstance(losses, Tensor) else (loss * weight for loss in losses)


def loss_scale(optim_wrapper: Any) -> float | None:
    """Loss scale of a wrapper that trains in float16, the largest of several; None without one."""
    if not isinstance(optim_wrapper, OptimWrapper):
        return None
    scales = [_scale(wrapper) for wrapper in wrappers_of(optim_wrapper)]
    return max((scale for scale in scales if scale is not None), default=None)


def _scale(optim_wrapper: OptimWrapper) -> float | None:
    scaler = getattr(optim_wrapper, 'loss_scaler', None)
    half = getattr(optim_wrapper, 'cast_dtype', None) in (None, torch.float16)
    return float(scaler.get_scale()) if scaler and half else None


def synchronizes(model: nn.Module) -> bool:
    """Return True if a forward pass of ``model`` waits for other processes."""
    return any(type_names(module) & SYNCHRONIZED for module in model.modules())


def any_rank(happened: bool) -> bool:
    """Return True if ``happened`` is True on any process; all processes must call."""
    flag = torch.tensor(float(happened))
    all_reduce(flag, 'max')
    return bool(flag)


def on_all_ranks(work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Do ``work`` on every process; if it fails on one, all raise instead of waiting forever."""
    result, failure = None, None
    try:
        result = work()
    except Exception as error:
        failure = error
    causes = all_gather_object(None if failure is None else f'{type(failure).__name__}: {failure}')
    if failure is not None:
        raise failure
    for rank, cause in enumerate(causes):
        if cause is not None:
            raise SelectionPassError(f'the selection pass failed on process {rank}: {cause}')
    assert result is not None
    return result


def _seeded(batches: Iterable[Any], seed: int, rank: int) -> Iterator[Any]:
    """Seed the generators for each batch by its position, so that dropout does not depend on earlier draws."""
    for number, batch in enumerate(batches):
        seed_generators(mixed_seed(seed, rank, number))
        yield batch


def _with_progress(batches: Iterable[Any], total: int, logger: MMLogger) -> Iterator[Any]:
    began = reported = time.perf_counter()
    logger.info(f'selection pass: {total} batches of the training data')
    for done, batch in enumerate(batches, 1):
        yield batch
        now = time.perf_counter()
        if now - reported > REPORT_EVERY_S and done < total:
            reported = now
            left = (now - began) / done * (total - done)
            logger.info(f'selection pass: {done}/{total} batches, {left:.0f} s left')


def check_same_method(method: TuningMethod, selection: Selection, where: str) -> None:
    """Check that ``method`` of the config made the earlier ``selection``, whose origin is ``where``.

    Settings that the selection does not record, as in older releases, are not compared.

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
    """Check that the earlier ``selection`` was made by gradients of ``loss``; without a recorded loss it is accepted.

    Raises:
        ValueError: If it was made by another loss; names the differences.
    """
    wanted, found = loss.settings(), selection.loss
    if found is not None and wanted != found:
        differing = [key for key in (*found, *wanted) if found.get(key) != wanted.get(key)]
        there, here = ({key: each[key] for key in dict.fromkeys(differing) if key in each} for each in (found, wanted))
        raise ValueError(
            f'the selection of {where} was made by a {found["type"]} with {there}, the config asks for a '
            f'{wanted["type"]} with {here}; set loss of the hook to that of the selection, or select anew in another '
            'work_dir'
        )


def check_same_training(training: SparseTraining | None, found: str | None, selection: Selection) -> None:
    """Check that the optimizer state of a checkpoint belongs to ``training``; without connections any state does.

    ``found`` is the class name that the checkpoint records, or None.

    Raises:
        ValueError: If another class trained the checkpoint.
    """
    wanted = type(training).__name__
    if selection.connections and found not in (None, wanted):
        raise ValueError(
            f'the checkpoint was trained with {found}, the config asks for {wanted}, whose optimizer state '
            f"differs; resume with sparse=dict(type='mmgps.{found}') of the hook, or start anew in another work_dir"
        )
