"""Step time and peak memory of the methods on one network, each alone on the device."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmgps.benchmark import Setup
from mmgps.benchmark.memory import activation_bytes, peak_resident
from mmgps.benchmark.recipes import Lean, MethodRecipe, Recipe, Selected, UnmergedLora
from mmgps.benchmark.setup import Rig
from mmgps.benchmark.timing import synchronize
from mmgps.engine import find_backbone
from mmgps.selection import RandomScore, Selection
from mmgps.sparse import CompactTraining, FusedAttention, LeanOption, MaskedTraining, Recomputation
from mmgps.tuning import GPS, BiasTuning, FullTuning, LinearProbe, LoRA

GIB = 2**30
PRECISIONS: dict[str, dict[str, Any]] = {
    'fp32': dict(type='mmgps.GPSOptimWrapper'),
    'bf16': dict(type='mmgps.GPSAmpOptimWrapper', dtype='bfloat16', loss_scale=1.0),
}
KS = (1, 5, 20)
FIXED = ('full', 'linear', 'bias', 'lora-qkv', 'lora-all')
ALL = (*FIXED, 'gps-masked-k1', 'gps-k1', 'gps-k5', 'gps-k20', 'random-k5')
LEAN = ('full+lean', 'bias+lean', 'gps-k1+lean', 'gps-k20+lean')


@dataclass(frozen=True)
class Network:
    """A config and its batch size.

    Args:
        config: Path of the config.
        batch_size: Images per step.
    """

    config: str
    batch_size: int


class Prepared(nn.Module):
    """Replaces the data preprocessor, because the batches are already normalised and on the device."""

    def forward(self, data: Any, training: bool = False) -> Any:
        return data


class Bench:
    """The base of one network on the CPU, its batches on the device, and selections by real gradients.

    Args:
        cfg: The config, with its data root set.
        batch_size: Images per step.
        device: Device to train on.
        batches: Number of batches; the selection pass uses all of them, and training takes them in turn.
    """

    def __init__(self, cfg: Config, batch_size: int, device: str, batches: int = 2) -> None:
        self.device, self._cfg = device, copy.deepcopy(cfg)
        self.base = Setup(self._cfg, device='cpu').build()
        loaded = Setup(self._cfg, device=device).batches(batches, batch_size)
        prepare: Any = copy.deepcopy(self.base.data_preprocessor).to(device)
        self.batches = [prepare(batch, True) for batch in loaded]
        self.base.data_preprocessor = Prepared()
        self.precision('fp32')
        self._selections: dict[str, Selection] = {}

    def precision(self, name: str) -> None:
        """Switch to a precision, a key of :data:`PRECISIONS`."""
        cfg = copy.deepcopy(self._cfg)
        cfg.optim_wrapper = Config(dict(wrapper=PRECISIONS[name])).wrapper
        self.setup = Setup(cfg, device=self.device)

    def model(self) -> Any:
        """Return a copy of the base on the device, in training mode."""
        model: Any = copy.deepcopy(self.base).to(self.device)
        model.train()
        return model

    def select(self) -> None:
        """Select on the device by the gradients of the batches, and at random. Later calls do nothing."""
        if self._selections:
            return
        model = self.model()
        backbone, gradients = find_backbone(model, 'backbone'), self.setup.gradients(model, self.batches)
        for k in KS:
            self._selections[f'gps-k{k}'] = GPS(k).select(backbone, gradients)
        self._selections['random-k5'] = GPS(5, score=RandomScore()).select(backbone, None)

    def recipe(self, name: str) -> Recipe:
        """Return the method called ``name``; the suffix ``+lean`` adds options that save time or memory."""
        if name.endswith('+lean'):
            return Lean(self.recipe(name.removesuffix('+lean')), self._options)
        fixed: dict[str, Callable[[], Recipe]] = {
            'full': lambda: MethodRecipe(FullTuning()),
            'linear': lambda: MethodRecipe(LinearProbe()),
            'bias': lambda: MethodRecipe(BiasTuning()),
            'lora-qkv': lambda: MethodRecipe(LoRA(8)),
            'lora-all': lambda: UnmergedLora(8),
        }
        if name in fixed:
            return fixed[name]()
        self.select()
        sparse = MaskedTraining if 'masked' in name else CompactTraining
        return Selected(self._selections[name.replace('-masked', '')], sparse)

    def _options(self) -> Sequence[LeanOption]:
        attends = any(isinstance(module, nn.MultiheadAttention) for module in self.base.modules())
        return [*([FusedAttention()] if attends else []), Recomputation()]

    def rig(self, name: str, compiled: str = '') -> Rig:
        """Apply a method to its own model, with the backbone compiled in the mode ``compiled``, if any."""
        rig = Rig(self.setup, self.model(), self.recipe(name))
        if compiled:
            torch._dynamo.reset()
            find_backbone(rig.model, 'backbone').compile(mode=compiled)
        return rig

    def seconds(self, rig: Rig, steps: int, warmup: int) -> list[float]:
        """Return the seconds of each step, with a synchronization like that of a runner that logs the loss."""
        found = []
        for number in range(warmup + steps):
            torch.manual_seed(number)
            synchronize(self.device)
            began = time.perf_counter()
            rig.step(self.batches[number % len(self.batches)])
            synchronize(self.device)
            found.append(time.perf_counter() - began)
        return found[warmup:]

    def costs(self, names: Sequence[str], steps: int, warmup: int, compiled: str = '') -> Iterator[dict[str, Any]]:
        """Yield a row for each method, measured alone on the device."""
        if any(name.removesuffix('+lean') not in FIXED for name in names):
            self.select()
        for name in names:
            clear(self.device)
            try:
                yield self._measured(name, steps, warmup, compiled)
            except (RuntimeError, ValueError) as error:
                yield dict(method=name, error=f'{type(error).__name__}: {str(error)[:200]}')

    def _measured(self, name: str, steps: int, warmup: int, compiled: str) -> dict[str, Any]:
        rig = self.rig(name, compiled)
        if self.device != 'cpu':
            torch.cuda.reset_peak_memory_stats(self.device)
        spent = self.seconds(rig, steps, warmup)
        peak = peak_resident() if self.device == 'cpu' else torch.cuda.max_memory_allocated(self.device)
        saved = {} if compiled else dict(saved_gib=activation_bytes(rig, self.batches[0]) / GIB)
        times = dict(step_ms=1e3 * median(spent), fastest_ms=1e3 * min(spent))
        return dict(method=name, trained=rig.trained, **times, peak_gib=peak / GIB, **saved)


def with_ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add the ratios of step time and peak memory to those of bias and full tuning."""
    of = {row['method']: row for row in rows if 'step_ms' in row}
    found = []
    for row in rows:
        ratios = {
            f'{key[:4]}/{name}': row[key] / of[name][key]
            for name in ('bias', 'full')
            for key in ('step_ms', 'peak_gib')
            if name in of and key in row
        }
        found.append({**row, **ratios})
    return found


def clear(device: str) -> None:
    """Free the memory of earlier methods."""
    gc.collect()
    if device != 'cpu':
        torch.cuda.empty_cache()
