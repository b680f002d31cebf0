"""The losses whose gradients the selection pass sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmgps.registry import SELECTION_LOSSES
from mmgps.rewiring import type_names

from .selection_batches import SelectionBatches, divide, samples_of, selection_batches

BATCH_NORMS = {'torch.nn.modules.batchnorm._BatchNorm', 'mmcv.ops.sync_bn.SyncBatchNorm'}


class SelectionLoss(Protocol):
    """A loss with the batches of training data to compute it on."""

    def batches(
        self, loader: DataLoader, num_batches: int | None, seed: int, rank: int, world_size: int
    ) -> SelectionBatches:
        """Make the batches of one pass, see :func:`selection_batches`."""
        ...

    def bind(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any], Tensor]:
        """Return a function from one of these batches to a scalar, summed over its images.

        Args:
            model: Model without DDP or another wrapper.
            backbone: Part of ``model`` in which connections are selected.
            optim_wrapper: Optimizer wrapper, for its autocast.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """Type and arguments as JSON values; a run resumes only under equal settings."""
        ...


@SELECTION_LOSSES.register_module()
class TaskLoss:
    """Training loss of the model over the training data: the default."""

    def batches(
        self, loader: DataLoader, num_batches: int | None, seed: int, rank: int, world_size: int
    ) -> SelectionBatches:
        return selection_batches(loader, num_batches, seed, rank, world_size)

    def bind(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any], Tensor]:
        return TrainingLoss(model, optim_wrapper)

    def in_parts(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any, int], Iterator[Tensor]]:
        """See :class:`mmgps.engine.selecting.micro_batches.DivisibleLoss`."""
        loss = self.bind(model, backbone, optim_wrapper)
        return lambda batch, size: (loss(part) for part in divide(batch, size))

    def undivided_reason(self, model: Any, backbone: nn.Module) -> str | None:
        """See :class:`mmgps.engine.selecting.micro_batches.DivisibleLoss`."""
        augments = getattr(getattr(model, 'data_preprocessor', None), 'batch_augments', None)
        if augments is not None:
            return f'{type(augments).__name__} of the data preprocessor mixes its images'
        return norms_over_batch(model)

    def settings(self) -> dict[str, Any]:
        return {'type': 'TaskLoss'}


class TrainingLoss:
    """Loss of a batch, summed over its samples, as the model's own ``train_step`` computes it.

    A model may override ``train_step``, which passes its loss to an optimizer wrapper; here a :class:`LossCapture`
    takes it. The mean over a batch is multiplied by the batch size, so neither the batch size nor the number of
    processes changes the weight of a sample.
    """

    def __init__(self, model: Any, optim_wrapper: Any) -> None:
        self._model, self._optim_wrapper = model, optim_wrapper

    def __call__(self, batch: Any) -> Tensor:
        capture = LossCapture(self._optim_wrapper)
        self._model.train_step(batch, optim_wrapper=capture)
        if capture.loss is None:
            raise TypeError(f'{type(self._model).__name__}.train_step did not call optim_wrapper.update_params(loss)')
        return capture.loss * samples_of(batch)


def norms_over_batch(network: nn.Module) -> str | None:
    """Name the norm by which ``network`` normalises over a batch; None if there is none."""
    for name, module in network.named_modules():
        if module.training and type_names(module) & BATCH_NORMS:
            return f'{name} ({type(module).__name__}) normalises over the batch'
    return None


class LossCapture:
    """Optimizer wrapper that captures the losses of a model's ``train_step`` and steps nothing.

    A model with several optimizers looks them up by name in an ``OptimWrapperDict`` and may pass one loss to each; the
    losses are summed. ``train_step`` may also call the parts of ``update_params`` itself.

    Args:
        optim_wrapper: Wrapper to replace; it gives the context of the forward pass, such as autocast.
    """

    def __init__(self, optim_wrapper: Any) -> None:
        self._optim_wrapper = optim_wrapper
        self._losses: list[Tensor] = []

    @property
    def loss(self) -> Tensor | None:
        """Sum of the captured losses, None without any."""
        return sum(self._losses[1:], self._losses[0]) if self._losses else None

    def __getitem__(self, name: str) -> LossCapture:
        part = LossCapture(self._optim_wrapper[name])
        part._losses = self._losses
        return part

    def optim_context(self, model: nn.Module) -> AbstractContextManager[None]:
        """Context of the real wrapper."""
        return self._optim_wrapper.optim_context(model)

    def update_params(self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None) -> None:
        """Capture the loss instead of training on it."""
        self._losses.append(loss)

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss unchanged, since nothing accumulates over iterations."""
        return loss

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Capture the loss; it is differentiated later."""
        self._losses.append(loss)

    def should_update(self) -> bool:
        """Return False."""
        return False

    def step(self, **kwargs: Any) -> None:
        """Do nothing."""

    def zero_grad(self, **kwargs: Any) -> None:
        """Do nothing."""
