"""Compact training: the chosen numbers of a weight are one small parameter, at about the cost of bias tuning."""

from __future__ import annotations

from types import TracebackType

from torch import nn

from mmgps.selection import Selection

from .install import Handle, Installer
from .readers import Reader
from .reduce import average_gradients
from .routes import Route
from .weight import TrainedWeight


class CompactTraining:
    """Trains the chosen connections as small parameters of their own.

    The dense weights stay in their modules, frozen, and receive the new numbers after each step. Nothing is
    registered in the modules: the state dict, the parameters and their order are those of the base. Equal to
    :class:`MaskedTraining` up to rounding.

    Build it when the backbone is on its device; :meth:`close`, or leaving it as a context, restores the modules.

    Args:
        backbone: The network that ``selection`` was made for.
        selection: What is trained.

    Raises:
        SelectionMismatchError: If it was made for another network.
    """

    def __init__(self, backbone: nn.Module, selection: Selection) -> None:
        self._backbone = backbone
        self._weights = [
            TrainedWeight(parameter, connections) for parameter, connections in selection.resolve(backbone)
        ]
        self._handles: list[Handle] = []
        self._readers: list[Reader] = []
        self._routes: dict[str, Route] = {}
        self._required: list[bool] = []

    def replacements(self) -> dict[nn.Parameter, nn.Parameter]:
        return {weight.dense: weight.values for weight in self._weights}

    def routes(self) -> dict[str, Route]:
        """Weight name to the way its gradient is made; of a tied weight, the way of its first owner."""
        return dict(self._routes)

    def follow(self) -> None:
        """Let the values go where the weights went since this was built: to another device, or into shards."""
        for weight in self._weights:
            weight.follow()

    def start(self) -> None:
        """Take the values from the weights, freeze these, and install what makes the values' gradients.

        Raises:
            RuntimeError: If the backbone went to another device or type since this was built, without :meth:`follow`.
        """
        self.close()
        self._required = [weight.dense.requires_grad for weight in self._weights]
        for weight in self._weights:
            _check_place(weight)
            weight.dense.requires_grad_(False)
            weight.read()
        installer = Installer(self._weights)
        installer.install(self._backbone)
        self._handles, self._readers, self._routes = installer.handles, installer.readers, installer.routes

    def before_step(self) -> None:
        average_gradients([weight.values for weight in self._weights])

    def after_step(self) -> None:
        assert self._required or not self._weights, 'start() comes before the first step'
        for weight in self._weights:
            weight.write()
        self._readers = [reader for reader in self._readers if not reader.settle()]

    def report(self) -> str:
        if not self._routes:
            return ''
        lines = [f'{name:<44} {route}' for name, route in self._routes.items()]
        return '\n'.join(['compact training, route of each layer:', *lines])

    def close(self) -> None:
        """Leave the modules as :meth:`start` found them, with the numbers trained since."""
        for handle in [*self._handles, *self._readers]:
            handle.remove()
        for weight, required in zip(self._weights, self._required, strict=False):
            weight.dense.requires_grad_(required)
        self._handles, self._readers, self._routes, self._required = [], [], {}, []

    def __enter__(self) -> CompactTraining:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_place(weight: TrainedWeight) -> None:
    now, built = (weight.dense.device, weight.dense.dtype), (weight.values.device, weight.values.dtype)
    if now != built:
        raise RuntimeError(
            f'{weight.name} is on {now[0]} as {now[1]}, its values were built on {built[0]} as {built[1]}; '
            'move and convert the backbone before building CompactTraining'
        )
