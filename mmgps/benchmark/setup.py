"""Model, optimizer wrapper and batches of a config without a runner, and a method at work on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, load_checkpoint
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from mmgps.engine import GPSAmpOptimWrapper, GPSOptimWrapper, find_backbone, weights_only
from mmgps.engine.configs.config import AMP_FORM, type_name
from mmgps.engine.resuming.seeding import seed_generators
from mmgps.engine.selecting.selection_batches import selection_batches
from mmgps.engine.selecting.selection_loss import TrainingLoss
from mmgps.engine.selecting.selection_pass import loss_scale
from mmgps.selection import sum_gradients
from mmgps.tuning import GPS, count_parts

from .recipes import Recipe

LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Setup:
    """Starting point of every method. It is sent to child processes.

    Args:
        cfg: The config.
        target: Path of the backbone within the model.
        device: Device to train on.
        seed: Seed of weights that no file provides, data order, augmentation and dropout.
    """

    cfg: Config
    target: str = 'backbone'
    device: str = 'cpu'
    seed: int = 0

    def prepare(self) -> None:
        """Import and register in this process the names that the config uses."""
        if 'custom_imports' in self.cfg:
            import_modules_from_strings(**self.cfg.custom_imports)
        init_default_scope(self.cfg.get('default_scope', 'mmengine'))

    @weights_only()
    def build(self) -> nn.Module:
        """The model of the config with its weights, in training mode on the device. SyncBN becomes BN.

        Raises:
            ValueError: If it has no ``target``.
        """
        self.prepare()
        seed_generators(self.seed)
        model: Any = MODELS.build(copy.deepcopy(self.cfg.model))
        with quiet():
            model.init_weights()
        if self.cfg.get('load_from'):
            load_checkpoint(model, self.cfg.load_from, map_location='cpu')
        find_backbone(model, self.target)
        model = revert_sync_batchnorm(model).to(self.device).train()
        assert isinstance(model, nn.Module)
        return model

    def optimize(self, values: Sequence[nn.Parameter]) -> GPSOptimWrapper | GPSAmpOptimWrapper:
        """AdamW over ``values`` in the precision of the config."""
        optimizer = torch.optim.AdamW(values, lr=LEARNING_RATE)
        given = self.cfg.get('optim_wrapper') or {}
        if type_name(given) in AMP_FORM.values():
            options = {name: given[name] for name in ('loss_scale', 'dtype') if name in given}
            return GPSAmpOptimWrapper(optimizer=optimizer, **options)
        return GPSOptimWrapper(optimizer=optimizer)

    def batches(self, count: int, batch_size: int | None = None) -> list[Any]:
        """The first batches of the selection pass over the training data, loaded and augmented.

        Args:
            count: Largest number of batches.
            batch_size: Batch size; the config's by default.
        """
        self.prepare()
        options = copy.deepcopy(self.cfg.train_dataloader)
        options.update(num_workers=0, persistent_workers=False)
        options.pop('prefetch_factor', None)
        if batch_size is not None:
            options.batch_size = batch_size
        loader = Runner.build_dataloader(options, seed=self.seed)
        return [batch for batch, _ in selection_batches(loader, count, self.seed)]

    def gradients(self, model: nn.Module, batches: Sequence[Any]) -> dict[str, Tensor]:
        """The selection pass of GPS over ``batches``; see :func:`mmgps.selection.sum_gradients`."""
        candidates = GPS().candidates(find_backbone(model, self.target))
        parameters = {name: entry.value for name, entry in candidates.items()}
        wrapper = self.optimize(list(parameters.values()))
        copies = map(copy.deepcopy, batches)
        return sum_gradients(model, parameters, copies, TrainingLoss(model, wrapper), loss_scale(wrapper))

    def weights(self) -> str:
        """Origin of the weights: the file name without its folder, which would mean nothing on another machine."""
        found = self.cfg.get('load_from') or _checkpoint(self.cfg.model)
        return Path(found).name if found else f'random (seed {self.seed}), the config names no file'


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress mmengine's log line for each initialised parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


def _checkpoint(part: Any) -> str | None:
    """The first file that an ``init_cfg`` or ``pretrained`` within a config of a model names."""
    if isinstance(part, list | tuple):
        return next(filter(None, map(_checkpoint, part)), None)
    if not isinstance(part, dict):
        return None
    starts = part.get('init_cfg') or ()
    named = [start.get('checkpoint') for start in (starts if isinstance(starts, list | tuple) else [starts])]
    return next(filter(None, [*named, part.get('pretrained'), *map(_checkpoint, part.values())]), None)


class Rig:
    """One method applied to a model, with its optimizer, as :class:`mmgps.engine.TuneHook` applies it.

    Args:
        setup: Setup that built ``model``.
        model: A model for this rig alone.
        recipe: The method.
    """

    def __init__(self, setup: Setup, model: nn.Module, recipe: Recipe) -> None:
        self.model: Any = model
        find_backbone(model, setup.target)
        self.tuned = recipe.tune(model, setup.target)
        self.values = self.tuned.parameters()
        """Parameters that the optimizer holds; processes exchange their gradients."""
        self.trained = sum(part.trained for part in count_parts(model, setup.target, self.tuned.selection))
        """Number of trained values."""
        self.wrapper = setup.optimize(self.values)
        self.wrapper.sparse = self.sparse = self.tuned.training
        self.loss = TrainingLoss(model, self.wrapper)
        """Loss of a batch with its graph, to account for what a forward pass keeps."""
        self.tuned.start(registered=False)

    def step(self, batch: Any) -> None:
        """Forward of the model's loss, backward, optimizer step, zeroing of the gradients; may change ``batch``."""
        self.model.train_step(batch, optim_wrapper=self.wrapper)
