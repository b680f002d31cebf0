"""Measured costs of a method, the bars they are compared with, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .recipes import is_plain_vit

WIDE = 50_000_000
"""Backbones of at least this size use the bars of ViT-B (86 M parameters), smaller ones those of DeiT-Tiny (5.5 M)."""


@dataclass(frozen=True)
class Measurements:
    """Costs of one method.

    Args:
        step_s: Median seconds of a step.
        saved_bytes: Bytes that the forward pass keeps for the backward pass.
        peak_bytes: Peak memory; None if not measured.
        optimizer_bytes: Bytes of the optimizer state.
        reduced_bytes: Bytes of gradients that data-parallel processes exchange per step.
        trained: Number of trained values in the whole model.
    """

    step_s: float
    saved_bytes: int
    peak_bytes: int | None
    optimizer_bytes: int
    reduced_bytes: int
    trained: int

    @property
    def optimizer_bytes_per_number(self) -> float:
        return self.optimizer_bytes / self.trained

    @property
    def reduced_bytes_per_number(self) -> float:
        return self.reduced_bytes / self.trained


@dataclass(frozen=True)
class SelectionCost:
    """Cost of choosing connections.

    Args:
        batches: Number of batches in the selection pass.
        pass_s: Median seconds of the selection pass.
        plain_s: Median seconds of the forward and backward passes of full fine-tuning over the same batches.
        choice_s: Seconds to choose connections from the summed gradients, by K.
    """

    batches: int
    pass_s: float
    plain_s: float
    choice_s: dict[str, float]

    LIMIT = 1.15

    @property
    def ratio(self) -> float:
        return self.pass_s / self.plain_s


@dataclass(frozen=True)
class Bar:
    """Upper limit of a ratio between two methods.

    Args:
        measurement: An attribute of :class:`Measurements`.
        method: Method in the numerator.
        reference: Method in the denominator.
        limit: Largest acceptable ratio.
        aim: Ratio to aim for.
    """

    measurement: str
    method: str
    reference: str
    limit: float
    aim: float

    def ratio(self, measurements: Mapping[str, Measurements]) -> float | None:
        """Return the measured ratio; None if a method or its measurement is missing."""
        if not {self.method, self.reference} <= measurements.keys():
            return None
        own, other = (getattr(measurements[name], self.measurement) for name in (self.method, self.reference))
        return own / other if own and other else None

    def verdict(self, ratio: float | None) -> str:
        """State in words how ``ratio`` compares with the limit and the aim."""
        if ratio is None:
            return 'not measured'
        if ratio > self.limit:
            return f'misses by {ratio - self.limit:.3f}'
        return 'meets the aim' if ratio <= self.aim else 'meets the bar'


def bars_for(backbone: nn.Module) -> list[Bar]:
    """Return the bars for a plain ViT of this size; other architectures have none."""
    if not is_plain_vit(backbone):
        return []
    wide = sum(value.numel() for value in backbone.parameters()) >= WIDE
    one, many = 'gps-compact-k1', 'gps-compact-k20'
    return [
        Bar('step_s', one, 'bias', 1.06 if wide else 1.08, 1.02 if wide else 1.03),
        Bar('step_s', one, 'full', 0.82 if wide else 0.92, 0.75 if wide else 0.85),
        Bar('step_s', one, 'lora-r8', 0.95, 0.85),
        Bar('saved_bytes', one, 'bias', 1.10, 1.05),
        Bar('saved_bytes', one, 'lora-r8', 0.75, 0.65),
        Bar('step_s', many, 'full', 1.02, 0.90 if wide else 0.95),
        Bar('step_s', f'{one}+leaner', 'bias', 1.05, 1.00),
        Bar('saved_bytes', f'{one}+leaner', 'bias', 0.85, 0.75),
        *(
            bar
            for k, step in ((5, 0.88), (20, 0.95))
            for bar in (
                Bar('step_s', f'gps-compact-k{k}+lean', 'full', 1.00, step),
                Bar('saved_bytes', f'gps-compact-k{k}+lean', 'full', 0.85, 0.70 if k == 5 else 0.75),
            )
        ),
        Bar('optimizer_bytes_per_number', one, 'bias', 1.01, 1.01),
        Bar('reduced_bytes_per_number', one, 'bias', 1.01, 1.01),
    ]


def machine_name(device: str) -> str:
    """Return the name of the CUDA device, or of the processor with its number of cores."""
    if torch.device(device).type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return f'{names[0] if names else platform.machine()}, {os.cpu_count()} cores'


def commit() -> str | None:
    """Return the commit of the checkout that mmgps runs from; ``+`` marks changed files, None means no checkout."""
    found = _git('rev-parse', '--short=12', 'HEAD')
    return found and found + ('+' if _git('status', '--porcelain', '--untracked-files=no') else '')


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return None
    try:
        answer = subprocess.run(['git', *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def machine_header(device: str) -> dict[str, Any]:
    """Return machine, load, commit, torch version and threads as JSON values."""
    return {
        'machine': machine_name(device),
        'load': round(os.getloadavg()[0], 1),
        'device': device,
        'commit': commit(),
        'torch': torch.__version__,
        'threads': torch.get_num_threads(),
    }
