"""Run the selection pass of a method inside a runner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_dist_info
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmgps.selection import Selection, preserved, sum_gradients
from mmgps.tuning import TuningMethod

from .kept_loss import LossKeeper
from .loaders import selection_loader
from .optim import wrappers_of
from .seeding import run_seed

REPORT_EVERY_S = 10.0


class SelectionPassError(RuntimeError):
    """Another process failed during selection."""


@dataclass(frozen=True)
class Cost:
    """What a selection took.

    Args:
        seconds: Wall-clock time, of the pass and of the choice.
        batches: Batches of this process.
        gradient_bytes: Size of the summed gradients, the memory that the pass adds to a forward and backward.
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


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a DDP or other wrapper."""
    inner: Any = model.module if is_model_wrapper(model) else model
    return inner


def select(
    runner: Runner, backbone: nn.Module, method: TuningMethod, num_batches: int | None
) -> tuple[Selection, Cost]:
    """Let ``method`` choose, with gradients from the training data of ``runner`` if it needs them."""
    began = time.perf_counter()
    gradients, batches = None, 0
    if method.needs_gradient:
        gradients, batches = _gradients(runner, backbone, method, num_batches)
    selection = method.select(backbone, gradients)
    size = sum(g.numel() * g.element_size() for g in (gradients or {}).values())
    return selection, Cost(time.perf_counter() - began, batches, size)


def _gradients(
    runner: Runner, backbone: nn.Module, method: TuningMethod, num_batches: int | None
) -> tuple[dict[str, Tensor], int]:
    rank, world_size = get_dist_info()
    loader = selection_loader(runner.train_dataloader, num_batches, run_seed(runner.seed), rank, world_size)
    model = unwrapped(runner.model)
    parameters = {name: entry.value for name, entry in method.candidates(backbone).items()}

    def work() -> dict[str, Tensor]:
        with preserved(model):
            return sum_gradients(
                model.train(),
                parameters,
                _with_progress(loader, len(loader), runner.logger),
                TrainingLoss(model, runner.optim_wrapper),
                loss_scale(runner.optim_wrapper),
                method.accumulation,
            )

    gradients = _together(work)
    for name in gradients:
        all_reduce(gradients[name])
    return gradients, len(loader)


class TrainingLoss:
    """The loss of a batch, summed over its samples, as the model's own ``train_step`` computes it.

    ``train_step`` is what a model may override; it hands its loss to an optimizer wrapper, and gets one that keeps
    it. The mean over a batch is multiplied by the batch's size, so that how samples are batched, or spread over
    processes, does not weigh them.
    """

    def __init__(self, model: Any, optim_wrapper: Any) -> None:
        self._model, self._optim_wrapper = model, optim_wrapper

    def __call__(self, batch: Any) -> Tensor:
        keeper = LossKeeper(self._optim_wrapper)
        self._model.train_step(batch, optim_wrapper=keeper)
        if keeper.loss is None:
            raise TypeError(f'{type(self._model).__name__}.train_step did not call optim_wrapper.update_params(loss)')
        return keeper.loss * _samples(batch)


def _samples(batch: Any) -> int:
    """Samples in ``batch``; the inputs of a model that compares views are a list of views, not of samples."""
    given = batch if isinstance(batch, Mapping) else {}
    labelled = given.get('data_samples')
    return len(given.get('inputs', batch) if labelled is None else labelled)


def loss_scale(optim_wrapper: Any) -> float | None:
    """The scale of a wrapper that trains in float16, else None; of several, the largest."""
    if not isinstance(optim_wrapper, OptimWrapper):
        return None
    scales = [_scale(wrapper) for wrapper in wrappers_of(optim_wrapper)]
    return max((scale for scale in scales if scale is not None), default=None)


def _scale(optim_wrapper: OptimWrapper) -> float | None:
    scaler = getattr(optim_wrapper, 'loss_scaler', None)
    half = getattr(optim_wrapper, 'cast_dtype', None) in (None, torch.float16)
    return float(scaler.get_scale()) if scaler and half else None


def _together(work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Do ``work`` on every process; if one fails, all do, instead of waiting for it for ever."""
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
