"""A model under a method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from mmgps.delta import (
    BaseFingerprint,
    Delta,
    DeltaMismatchError,
    Origin,
    check_tensors,
    extract,
    load_delta,
    save_delta,
    tensors_of,
)
from mmgps.rewiring import Call, Injected, Structure
from mmgps.selection import Selection
from mmgps.sparse import (
    ChosenConnections,
    CompactTraining,
    LeanOption,
    SparseTraining,
    start_options,
)
from mmgps.tuning import (
    FirstIteration,
    Trained,
    TuningMethod,
    beside,
    check_trainable,
    format_report,
    freeze_unselected,
    merge_operations,
    trained_tensors,
    unload,
)

from .optimizers import StepHooks, take_over
from .snapshot import Snapshot, write_delta

TrainingFactory = Callable[[nn.Module, Selection], SparseTraining]
_RECORD = '_mmgps_tuned'


class Tuned:
    """A model of which a selection is trained, and nothing else of its backbone.

    :func:`mmgps.tune` makes one and starts it. Any loop trains it then: whichever optimizer holds :meth:`parameters` or
    ``model.parameters()`` moves the selected numbers, and its first step raises an error if one of them is not held,
    gets no gradient, or would move as part of a whole weight.

    Args:
        model: The whole model, with the numbers of the base in its backbone.
        selection: What is trained of the backbone.
        method: The method that made the selection.
        target: Path of the backbone within ``model``; empty if it is all of it.
        training: Makes what trains the chosen connections: :class:`CompactTraining` or :class:`MaskedTraining`.
        lean: Options that take time or memory off a step.

    Raises:
        SelectionMismatchError: If the selection belongs to another network, or trains what is frozen.
        InjectionError: If the method cannot put in place what it trains.
    """

    def __init__(
        self,
        model: nn.Module,
        selection: Selection,
        method: TuningMethod,
        target: str = 'backbone',
        training: TrainingFactory = CompactTraining,
        lean: Sequence[LeanOption] = (),
    ) -> None:
        self.model, self.selection, self.method, self.target = model, selection, method, target
        self.backbone = model.get_submodule(target)
        self._flags = {name: value.requires_grad for name, value in model.named_parameters()}
        self.added = method.inject_selected(self.backbone, selection)
        """Weights of the base to the parameters that the method put beside them."""
        check_trainable(self.backbone, selection)
        self.training = training(self.backbone, selection)
        freeze_unselected(self.backbone, selection)
        self.lean = tuple(lean)
        self._base = BaseFingerprint({})
        self._before: Snapshot | None = None
        self._hooks: StepHooks | None = None
        self._reading: list[RemovableHandle] = []
        self.switched_off = False

    # -- clients that drive the steps themselves ------------------------------------------------------------------

    def take_over(self, optimizers: Sequence[Optimizer]) -> None:
        """Let optimizers that were built before hold what is trained, in the places of the weights that they hold.

        Raises:
            ValueError: See :func:`take_over`.
        """
        frozen = [value for value in self.backbone.parameters() if not value.requires_grad]
        take_over(optimizers, frozen, self.training, self.added)

    def start(self, registered: bool = True) -> None:
        """Begin training: the weights are in place, and are not replaced from now on.

        Args:
            registered: Whether the model is to be trained by any loop. A client that calls :meth:`take_over`, and
                ``before_step`` and ``after_step`` of :attr:`training` at each step, says False.
        """
        try:
            self._start(registered)
        except BaseException:
            self._close()
            raise

    def _start(self, registered: bool) -> None:
        self.training.start(registered)
        start_options(self.lean, self.backbone)
        if registered:
            self._base = BaseFingerprint.of(self.backbone, self.selection)
            self._before = Snapshot(self.model, self.selection, self.target)
            self._reading = [
                part.register_forward_pre_hook(Call(self.training.watch_weights))
                for part in (self.model, *self.model.children())
            ]
            self._hooks = StepHooks(self, self.watch([]))
            vars(self.model)[_RECORD] = self

    def watch(self, optimizers: Sequence[Optimizer]) -> FirstIteration:
        """Watch the first iteration of what is trained, see :class:`FirstIteration`."""
        return FirstIteration(self.model, self.trained(), optimizers, self.target)

    def trained(self) -> list[Trained]:
        """The tensors that are counted as trained, see :func:`mmgps.tuning.trained_tensors`."""
        return trained_tensors(self.model, self.training.replacements(), beside(self.backbone))

    # -- what a training loop needs --------------------------------------------------------------------------------

    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters: of the backbone, of what the method added, and of all outside the backbone."""
        return [entry.value for entry in self.trained()]

    def parameter_groups(self, lr: float, head_lr: float | None = None, **options: Any) -> list[dict[str, Any]]:
        """The trained parameters as groups for an optimizer.

        Args:
            lr: Learning rate of what is trained of the backbone.
            head_lr: That of everything outside the backbone; ``lr`` by default.
            **options: Further options of both groups, such as ``weight_decay``.
        """
        prefix = f'{self.target}.' if self.target else ''
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for entry in self.trained():
            groups[entry.name.startswith(prefix)].append(entry.value)
        rates = {True: lr, False: lr if head_lr is None else head_lr}
        named = {True: 'backbone', False: 'head'}
        return [
            {'params': groups[inside], 'lr': rates[inside], 'name': named[inside], **options}
            for inside in (True, False)
            if groups[inside]
        ]

    def __str__(self) -> str:
        details = [self.training.report(), *(option.report() for option in self.lean)]
        report = format_report(self.model, self.target, self.selection)
        return '\n'.join([f'fine-tuning by {self.selection.method}', report, *filter(None, details)])

    # -- deltas ----------------------------------------------------------------------------------------------------

    def delta(self, origin: Origin | None = None) -> Delta:
        """The changes of training so far.

        Raises:
            DeltaExtractError: If a number moved that is not selected.
        """
        self._check_open()
        return extract(self.model, self.selection, self._base, self.target, origin or Origin())

    def save(self, path: str | Path, origin: Origin | None = None) -> None:
        """Write :meth:`delta` to ``path``, a ``.safetensors`` file."""
        save_delta(self.delta(origin), path)

    def load(self, delta: str | Path | Delta) -> None:
        """Go on from the numbers of a delta of the same selection and base.

        Raises:
            DeltaMismatchError: If it has another selection or base; nothing is changed then.
        """
        self._check_open()
        found = delta if isinstance(delta, Delta) else load_delta(delta)
        if not found.selection.equals(self.selection) or found.target != self.target:
            raise DeltaMismatchError(
                f'the delta trains other numbers than this model does ({found.selection.method}, '
                f'{len(found.selection):,} connections of {found.target!r}); put it on a fresh model by mmgps.load'
            )
        found.base.check(self._base, f'the {type(self.backbone).__name__}')
        check_tensors(found.tensors, tensors_of(self.model))
        write_delta(self.model, found)

    # -- the base --------------------------------------------------------------------------------------------------

    @contextmanager
    def disabled(self) -> Iterator[nn.Module]:
        """The model as it was before, bit for bit; afterwards the trained one. No training within."""
        self._check_open()
        assert self._before is not None
        trained = Snapshot(self.model, self.selection, self.target)
        structure = Structure(self.model)
        self.switched_off = True
        try:
            if self._injects:
                unload(self.backbone)
            self._before.restore()
            yield self.model
        finally:
            structure.restore()
            trained.restore()
            self.switched_off = False

    def merge(self) -> nn.Module:
        """Leave a plain model with the trained numbers, and no trace of mmgps.

        Raises:
            InjectionError: If the method computes what the base architecture cannot, as adapters and prompts do; the
                model is left as it is then.
        """
        self._check_open()
        if self._injects:
            self.training.close()
            try:
                merge_operations(self.backbone)
            except BaseException:
                self.training.start()
                raise
        self._close()
        return self.model

    def unload(self) -> nn.Module:
        """Leave the model as it was before, bit for bit, and no trace of mmgps."""
        self._check_open()
        assert self._before is not None
        self._close()
        if self._injects:
            unload(self.backbone)
        self._before.restore()
        return self.model

    @property
    def _injects(self) -> bool:
        return any(
            isinstance(part, Injected) and not isinstance(part, ChosenConnections) for part in self.backbone.modules()
        )

    def _close(self) -> None:
        for option in reversed(self.lean):
            option.close()
        self.training.close()
        if self._hooks is not None:
            self._hooks.close()
            self._hooks = None
        for handle in self._reading:
            handle.remove()
        for name, value in self.model.named_parameters():
            value.requires_grad_(self._flags.get(name, value.requires_grad))
        vars(self.model).pop(_RECORD, None)

    def _check_open(self) -> None:
        if self._hooks is None:
            raise RuntimeError(
                'the model is not tuned any more, or not yet: merge() or unload() ended it; call mmgps.tune or '
                'mmgps.load again'
            )
        if self.switched_off:
            raise RuntimeError('this is not possible within disabled(); leave the context before')

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_nothing, ())


def tuned_of(model: nn.Module) -> Tuned | None:
    """The object that :func:`mmgps.tune` or :func:`mmgps.load` returned for ``model``, until merged or unloaded."""
    return vars(model).get(_RECORD)


def check_untuned(model: nn.Module) -> None:
    """Make sure that ``model`` is not tuned.

    Raises:
        ValueError: If it is.
    """
    if tuned_of(model) is not None:
        raise ValueError('the model is tuned already; call merge() or unload() of its tuned object before')


def _nothing() -> None:
    """Stand for the :class:`Tuned` of a model in its copies and pickles."""
