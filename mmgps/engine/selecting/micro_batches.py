"""Micro-batches of the selection pass, so that it needs no more memory than training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from mmengine.logging import print_log
from torch import Tensor, nn

from mmgps.registry import LEAN, MICRO_BATCHES
from mmgps.selection import preserved
from mmgps.sparse import LeanOption, saved_bytes, start_options

from .selection_batches import divide, samples_of
from .selection_loss import SelectionLoss, TrainingLoss

MEMORY_SHARE = 0.6
"""Memory of a fitted part and the gradient sums, as a share of the memory that training saves for a batch. The rest is
for the batch of views, temporary buffers of forward and backward, and heap fragmentation, which training inherits."""
PROBE = 2
"""Number of images to measure memory with; a norm over a batch needs two."""


@runtime_checkable
class DivisibleLoss(SelectionLoss, Protocol):
    """A selection loss that can be computed from parts of a batch."""

    def in_parts(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any, int], Iterator[Tensor]]:
        """Return a function from a batch and a part size to scalars whose gradients sum to the gradient of the batch.

        Each scalar is computed on demand and must be differentiated before the next one.
        """
        ...

    def undivided_reason(self, model: Any, backbone: nn.Module) -> str | None:
        """Reason why a batch must not be divided; None if it may be."""
        ...


@MICRO_BATCHES.register_module()
class MicroBatches:
    """Compute the gradient of a batch as a sum over micro-batches of a few images.

    A network that normalises over the batch gets full batches, and the log says so. For :class:`mmgps.SupConLoss`, and
    for a task loss that is a mean over images, the gradients equal those of full batches up to rounding. Any other
    loss, such as Dice over all pixels of a batch, is computed per part. Dropout draws other numbers than in a full
    batch.

    Args:
        size: Images of a part; for a contrastive loss, views of images. None measures two images and fits the size:
            saved activations of a part and summed gradients then take 0.6 of the activations that training saves for a
            batch.
        sums_on_host: Move the gradient of each weight to the host as soon as it is computed, for a GPU that cannot
            hold one dense gradient of the backbone.
        lean: Configs of options of the backbone within the pass, such as ``mmgps.Recomputation``, which make larger
            parts fit and change the rounding.

    Raises:
        ValueError: For a size below 1.
    """

    def __init__(self, size: int | None = None, sums_on_host: bool = False, lean: Sequence[dict] = ()) -> None:
        if size is not None and size < 1:
            raise ValueError(f'size of mmgps.MicroBatches counts images and must be at least 1, got {size!r}')
        self.size, self.sums_on_host = size, sums_on_host
        self.lean: list[LeanOption] = [LEAN.build({'_scope_': 'mmgps', **option}) for option in lean]

    @contextmanager
    def running(self, backbone: nn.Module) -> Iterator[None]:
        """Context of the pass with the options of ``lean``.

        Raises:
            ValueError: If an option does not apply to ``backbone``.
        """
        start_options(self.lean, backbone)
        try:
            yield
        finally:
            for option in reversed(self.lean):
                option.close()

    def bind(
        self,
        loss: Any,
        model: Any,
        backbone: nn.Module,
        optim_wrapper: Any,
        parameters: Mapping[str, nn.Parameter],
        batch_size: int,
    ) -> Callable[[Any], Tensor | Iterator[Tensor]]:
        """Bind the loss of a batch for :func:`mmgps.selection.sum_gradients`, as one scalar or one per part.

        Args:
            loss: Selection loss.
            model: Model without DDP or another wrapper.
            backbone: Part of the model in which connections are selected.
            optim_wrapper: Optimizer wrapper, for its autocast.
            parameters: Parameters whose gradients are summed.
            batch_size: Images in a training batch.

        Raises:
            TypeError: For a loss that is not a :class:`DivisibleLoss`.
        """
        if not isinstance(loss, DivisibleLoss):
            raise TypeError(
                f'{type(loss).__name__} has no in_parts and undivided_reason, which mmgps.MicroBatches needs; leave '
                'micro_batches out of the hook, or write them'
            )
        whole, parts = loss.bind(model, backbone, optim_wrapper), loss.in_parts(model, backbone, optim_wrapper)
        training = TrainingLoss(model, optim_wrapper)

        def size_of(batch: Any) -> int:
            images, reason = samples_of(batch), loss.undivided_reason(model, backbone)
            if reason is not None:
                print_log(f'selection pass: batches of {images} stay whole, since {reason}', logger='current')
                return images
            size = self.size
            if size is None:
                probe = next(divide(batch, PROBE))
                each = saved_by(model, parameters, lambda: whole(probe), True) / PROBE
                room = MEMORY_SHARE * batch_size * saved_by(model, parameters, lambda: training(probe), False) / PROBE
                sums = 0 if self.sums_on_host else sum(4 * value.numel() for value in parameters.values())
                size = max(1, int((room - sums) / max(each, 1)))
            if size < images:
                print_log(f'selection pass: batches of {images} in parts of {size}', logger='current')
            return size

        sizes: list[int] = []

        def divided(batch: Any) -> Tensor | Iterator[Tensor]:
            if not sizes:
                sizes.append(size_of(batch))
            return whole(batch) if sizes[0] >= samples_of(batch) else parts(batch, sizes[0])

        return divided


def saved_by(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], forward: Callable[[], Any], selecting: bool
) -> int:
    """Measure the bytes that ``forward`` saves for backward; ``model`` is left unchanged.

    ``selecting`` differentiates ``parameters`` only, as the selection pass does; otherwise all others.
    """
    own = {id(value) for value in parameters.values()}
    with preserved(model):
        for value in model.parameters():
            value.requires_grad_((id(value) in own) == selecting)
        return saved_bytes(forward, [*model.parameters(), *model.buffers()])
