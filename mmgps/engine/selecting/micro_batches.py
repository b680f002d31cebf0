"""The selection pass in parts of a batch, so that it needs no more memory than the training behind it."""

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

ROOM = 0.6
"""The share of what training keeps for a batch that a fitted part and the sums take: a batch of views, what forward and
backward need in passing, and the gaps of the heap, which training then inherits, come on top."""
PROBE = 2
"""Images that memory is measured with; a norm over a batch needs two."""


@runtime_checkable
class DivisibleLoss(SelectionLoss, Protocol):
    """A selection loss that can take the images of a batch some at a time."""

    def in_parts(self, model: Any, backbone: nn.Module, optim_wrapper: Any) -> Callable[[Any, int], Iterator[Tensor]]:
        """The function from a batch, and the images of a part, to scalars whose gradients add up to the batch's.

        Each is computed when it is asked for, and has to be differentiated before the next one.
        """
        ...

    def undivided_reason(self, model: Any, backbone: nn.Module) -> str | None:
        """Why the images of a batch cannot be taken some at a time; None if they can."""
        ...


@MICRO_BATCHES.register_module()
class MicroBatches:
    """Takes the gradient of a batch from a few of its images at a time; the gradients add up.

    A network that normalises over the batch keeps it, and the log says so. The gradients of :class:`mmgps.SupConLoss`,
    and of a task's loss that is a mean over images, are those of whole batches but for rounding. Any other loss, such
    as a Dice over all pixels of a batch, is taken of each part by itself. Dropout draws other numbers than in a whole
    batch.

    Args:
        size: Images of a part, for a contrastive loss views of images. None fits it: what a part keeps for its
            backward, and the summed gradients, then take 0.6 of what training keeps for a batch, as measured with two
            images.
        sums_on_host: Whether the gradient of each weight goes to the memory of the host as soon as it is made. For a
            GPU on which even one dense gradient of the backbone is too much.
        lean: Configs of options of the backbone within the pass, such as ``mmgps.Recomputation``, with which larger
            parts fit. They round otherwise.

    Raises:
        ValueError: For a size below 1.
    """

    def __init__(self, size: int | None = None, sums_on_host: bool = False, lean: Sequence[dict] = ()) -> None:
        if size is not None and size < 1:
            raise ValueError(f'size of mmgps.MicroBatches counts images and is to be at least 1, got {size!r}')
        self.size, self.sums_on_host = size, sums_on_host
        self.lean: list[LeanOption] = [LEAN.build({'_scope_': 'mmgps', **option}) for option in lean]

    @contextmanager
    def running(self, backbone: nn.Module) -> Iterator[None]:
        """The context of the pass.

        Raises:
            ValueError: If ``backbone`` has nothing for an option of ``lean``.
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
        """The loss of a batch for :func:`mmgps.selection.sum_gradients`, as a scalar or as those of the parts.

        Args:
            loss: The selection loss.
            model: Without DDP or another wrapper around it.
            backbone: The part of it in which connections are chosen.
            optim_wrapper: For its autocast.
            parameters: Whose gradients are summed.
            batch_size: Images in a batch of training.

        Raises:
            TypeError: For a loss that is no :class:`DivisibleLoss`.
        """
        if not isinstance(loss, DivisibleLoss):
            raise TypeError(
                f'{type(loss).__name__} has no in_parts and undivided_reason, which mmgps.MicroBatches needs; leave '
                'micro_batches out of the hook, or write them'
            )
        whole, parts = loss.bind(model, backbone, optim_wrapper), loss.in_parts(model, backbone, optim_wrapper)
        sizes: list[int] = []

        def divided(batch: Any) -> Tensor | Iterator[Tensor]:
            if not sizes:
                sizes.append(self._size(loss, model, backbone, optim_wrapper, parameters, batch_size, batch))
            return whole(batch) if sizes[0] >= samples_of(batch) else parts(batch, sizes[0])

        return divided

    def _size(
        self,
        loss: Any,
        model: Any,
        backbone: nn.Module,
        optim_wrapper: Any,
        parameters: Mapping[str, nn.Parameter],
        batch_size: int,
        batch: Any,
    ) -> int:
        images = samples_of(batch)
        reason = loss.undivided_reason(model, backbone)
        if reason is not None:
            print_log(f'selection pass: batches of {images} stay whole, since {reason}', logger='current')
            return images
        size = self.size
        if size is None:
            probe = next(divide(batch, PROBE))
            training = TrainingLoss(model, optim_wrapper)
            own = loss.bind(model, backbone, optim_wrapper)
            each = saved_by(model, parameters, lambda: own(probe), True) / PROBE
            room = ROOM * batch_size * saved_by(model, parameters, lambda: training(probe), False) / PROBE
            sums = 0 if self.sums_on_host else sum(4 * value.numel() for value in parameters.values())
            size = max(1, int((room - sums) / max(each, 1)))
        if size < images:
            print_log(f'selection pass: batches of {images} in parts of {size}', logger='current')
        return size


def saved_by(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], forward: Callable[[], Any], selecting: bool
) -> int:
    """Bytes that ``forward`` keeps where of ``model`` only ``parameters`` are trained, or all but ``parameters``.

    The model is left as it was found.
    """
    own = {id(value) for value in parameters.values()}
    with preserved(model):
        for value in model.parameters():
            value.requires_grad_((id(value) in own) == selecting)
        return saved_bytes(forward, [*model.parameters(), *model.buffers()])
