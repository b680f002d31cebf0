"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch


def machine_name(device: str) -> str:
    """Name of the CUDA device, else of the processor, and how many cores."""
    if torch.device(device).type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return f'{names[0] if names else platform.machine()}, {os.cpu_count()} cores'


def commit() -> str | None:
    """Commit of the checkout that mmgps runs from, with ``+`` if files of it were changed; None outside one."""
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
    """Machine, its load, commit, torch and threads, as JSON values."""
    return {
        'machine': machine_name(device),
        'load': round(os.getloadavg()[0], 1),
        'device': device,
        'commit': commit(),
        'torch': torch.__version__,
        'threads': torch.get_num_threads(),
    }
