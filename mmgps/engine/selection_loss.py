"""What the selection pass takes the gradient of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmgps.registry import SELECTION_LOSSES

from .selection_batches import SelectionBatches, selection_batches


class SelectionLoss(Protocol):
    """A loss, and the batches of training data that it is taken over."""

    def batches(
        self, loader: DataLoader, num_batches: int | None, seed: int, rank: int, world_size: int
    ) -> SelectionBatches:
        """Batches for one pass that leave ``loader`` untouched; for the arguments see :func:`selection_batches`."""
        ...

    def bind(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any], Tensor]:
        """The function from one of these batches to a scalar, summed over its images.

        Args:
            model: Without DDP or another wrapper around it.
            backbone: The part of ``model`` in which connections are chosen.
            optim_wrapper: For its autocast.
        """
        ...


@SELECTION_LOSSES.register_module()
class TaskLoss:
    """The loss that the model is trained by, over the training data: the default."""

    def batches(
        self, loader: DataLoader, num_batches: int | None, seed: int, rank: int, world_size: int
    ) -> SelectionBatches:
        return selection_batches(loader, num_batches, seed, rank, world_size)

    def bind(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any], Tensor]:
        return TrainingLoss(model, optim_wrapper)


class TrainingLoss:
    """The loss of a batch, summed over its samples, as the model's own ``train_step`` computes it.

    ``train_step`` is what a model may override; it hands its loss to an optimizer wrapper, and this is one that
    keeps it. The mean over a batch is multiplied by the batch's size, so that how samples are batched, or spread over
    processes, does not weigh them.
    """

    def __init__(self, model: Any, optim_wrapper: Any) -> None:
        self._model, self._optim_wrapper = model, optim_wrapper
        self._loss: Tensor | None = None

    def __call__(self, batch: Any) -> Tensor:
        self._loss = None
        self._model.train_step(batch, optim_wrapper=self)
        if self._loss is None:
            raise TypeError(f'{type(self._model).__name__}.train_step did not call optim_wrapper.update_params(loss)')
        loss, self._loss = self._loss, None
        return loss * samples_of(batch)

    def optim_context(self, model: nn.Module) -> AbstractContextManager[None]:
        """The autocast context of the real wrapper."""
        return self._optim_wrapper.optim_context(model)

    def update_params(self, loss: Tensor) -> None:
        """Keep the loss instead of training on it."""
        self._loss = loss


def samples_of(batch: Any) -> int:
    """How many images a batch holds."""
    inputs = batch['inputs'] if isinstance(batch, Mapping) and 'inputs' in batch else batch
    return len(inputs)
