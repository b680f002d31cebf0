"""Cost of a full fine-tuning step of SAM in mmgps and in the authors' code, each in its own process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from mmgps.utils.requirements import require
from mmgps.utils.text import text_table

from .memory import in_child, peak_resident
from .timing import Clock

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Workload:
    """The step to measure.

    Args:
        arch: ``'vit_b'``, ``'vit_l'`` or ``'vit_h'``.
        size: Side of the image in pixels; the authors' SAM takes 1024 only.
        steps: Timed steps, after one untimed step.
        device: Device to run on.
        recompute: Keep only the inputs of blocks in mmgps (``with_cp``).
        clock: Returns seconds; ``time.process_time`` ignores other programs on the CPU, but also all work on a GPU.
    """

    arch: str = 'vit_b'
    size: int = 1024
    steps: int = 1
    device: str = 'cpu'
    recompute: bool = False
    clock: Clock = time.perf_counter


@dataclass(frozen=True)
class StepCost:
    """Seconds of the fastest step, and peak bytes: resident on the CPU, allocated on CUDA."""

    step_s: float
    peak_bytes: int


def compare(workload: Workload) -> dict[str, StepCost]:
    """Measure both implementations, one after the other.

    Raises:
        RuntimeError: If one of the processes failed.
    """
    return {name: in_child(name, measure, name, workload) for name in BUILDERS}


def format_costs(costs: dict[str, StepCost]) -> str:
    """Format the costs as a table, with their ratios to the authors' code."""
    theirs = costs['segment-anything']
    rows = [
        [
            name,
            f'{cost.step_s:.2f}',
            f'{cost.step_s / theirs.step_s:.2f}',
            f'{cost.peak_bytes / 2**20:.0f}',
            f'{cost.peak_bytes / theirs.peak_bytes:.2f}',
        ]
        for name, cost in costs.items()
    ]
    return text_table(['', 'step s', 'ratio', 'peak MiB', 'ratio'], rows)


def _own(workload: Workload) -> tuple[nn.Module, Logits]:
    init_default_scope('mmseg')
    encoder = dict(type='mmgps.SAMImageEncoder', arch=workload.arch, img_size=workload.size, with_cp=workload.recompute)
    parts: Any = nn.ModuleDict(dict(encoder=MODELS.build(encoder), head=MODELS.build(dict(type='mmgps.SAMMaskHead'))))
    return parts, lambda image: parts.head(parts.encoder(image))[:, 1:]


def _theirs(workload: Workload) -> tuple[nn.Module, Logits]:
    from segment_anything import sam_model_registry

    sam: Any = sam_model_registry[workload.arch]()
    sam.prompt_encoder.requires_grad_(False)
    if workload.size != sam.image_encoder.img_size:
        raise ValueError(f'segment-anything is built for 1024 px, got size={workload.size}')
    sparse, dense = sam.prompt_encoder(None, None, None)
    positions = sam.prompt_encoder.get_dense_pe()

    def logits(image: Tensor) -> Tensor:
        places = (part.to(image.device) for part in (positions, sparse, dense))
        return sam.mask_decoder(sam.image_encoder(image), *places, multimask_output=False)[0]

    return sam, logits


BUILDERS = {'segment-anything': _theirs, 'mmgps': _own}


def measure(name: str, workload: Workload) -> StepCost:
    """Measure a forward and a backward pass of the network called ``name`` in this process."""
    require('mmseg')  # for both networks, so that neither alone pays for its size
    torch.manual_seed(0)
    model, logits = BUILDERS[name](workload)
    model.to(workload.device).train()
    image = torch.randn(1, 3, workload.size, workload.size, device=workload.device)
    times = [_step(model, logits, image, workload.clock) for _ in range(workload.steps + 1)]
    on_cuda = torch.device(workload.device).type == 'cuda'
    peak = torch.cuda.max_memory_allocated(workload.device) if on_cuda else peak_resident()
    return StepCost(min(times[1:]), peak)


def _step(model: nn.Module, logits: Logits, image: Tensor, clock: Clock) -> float:
    began = clock()
    model.zero_grad()
    loss = logits(image).square().mean()
    loss.backward()
    loss.item()  # waits for CUDA
    return clock() - began
