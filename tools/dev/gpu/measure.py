"""The measurements of tools/dev/gpu/run.sh in one process; each task appends its rows to the results."""

from __future__ import annotations

import argparse
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType

from mmgps.utils.requirements import require

require('mmseg')

from mmengine.config import Config  # noqa: E402
from results import Results  # noqa: E402
from route_costs import route_costs  # noqa: E402
from step_costs import ALL, LEAN, Bench, Network, clear, with_ratios  # noqa: E402

from mmgps.benchmark import measure_deltas  # noqa: E402
from mmgps.benchmark.measurements import machine_header  # noqa: E402
from mmgps.benchmark.sam import Workload  # noqa: E402
from mmgps.benchmark.sam import compare as compare_sam  # noqa: E402
from mmgps.benchmark.timing import timed  # noqa: E402
from mmgps.engine.configs.config import set_data_root  # noqa: E402
from mmgps.engine.selecting.selection_loss import TrainingLoss  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
FEW = ('full', 'bias', 'gps-k1', 'gps-k20', 'gps-k1+lean')
NETWORKS = {
    'deit-tiny': Network('configs/polyp/gps_deit-tiny_kvasir.py', 64),
    'vit-b16': Network('configs/benchmark/vit-b16_kvasir.py', 64),
    'vit-l14': Network('configs/benchmark/vit-l14_kvasir-518.py', 8),
    'sam-vit-b': Network('configs/sam/full_sam-vit-b_kvasir-1024.py', 2),
    'vit-mini': Network('configs/gps_polyp_demo.py', 2),
    'sam-mini': Network('configs/sam/full_sam-mini_kvasir-128.py', 1),
}
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}


@dataclass(frozen=True)
class Task:
    """One measurement.

    Args:
        kind: A key of :data:`KINDS`.
        network: A key of :data:`NETWORKS`.
        precision: A key of :data:`DTYPES`.
        limit: Time limit in seconds.
        methods: Methods to measure.
        steps: Number of timed steps.
        warmup: Number of untimed steps before them.
        batch_size: Batch size; None for the network's.
        compiled: Mode of ``torch.compile`` for the backbone; empty for no compilation.
    """

    kind: str
    network: str
    precision: str = 'bf16'
    limit: int = 60
    methods: tuple[str, ...] = (*ALL, *LEAN)
    steps: int = 8
    warmup: int = 3
    batch_size: int | None = None
    compiled: str = ''

    def __str__(self) -> str:
        size = '' if self.batch_size is None else f', batch {self.batch_size}'
        return f'{self.kind} {self.network} {self.precision}{size}{self.compiled and f", compiled: {self.compiled}"}'


PLAN = (
    Task('steps', 'vit-b16'),
    Task('profile', 'vit-b16', methods=('bias', 'gps-k1')),
    Task('steps', 'sam-vit-b', steps=5, warmup=2),
    Task('steps', 'deit-tiny'),
    Task('steps', 'vit-l14', steps=5, warmup=2, limit=80),
    Task('steps', 'sam-vit-b', 'fp32', methods=FEW, steps=4, warmup=2, batch_size=4),
    Task('steps', 'vit-b16', 'fp32', methods=FEW, steps=5),
    Task('steps', 'deit-tiny', 'fp32', methods=FEW),
    Task('selection', 'vit-b16', steps=4),
    Task('selection', 'deit-tiny', 'fp32', steps=4),
    Task('deltas', 'vit-b16'),
    Task('steps', 'vit-b16', methods=('bias', 'gps-k1', 'full'), compiled='default', warmup=4, limit=90),
    Task('steps', 'vit-b16', methods=('bias', 'gps-k1', 'full'), compiled='reduce-overhead', warmup=4, limit=90),
    Task('steps', 'deit-tiny', methods=('bias', 'gps-k1'), compiled='reduce-overhead', warmup=4, limit=60),
    Task('steps', 'vit-l14', 'fp32', methods=FEW, steps=3, warmup=2, limit=60),
    Task('segment-anything', 'sam-vit-b', steps=2, limit=60),
    Task('routes', 'vit-b16'),
    Task('routes', 'vit-b16', 'fp32'),
)
QUICK = (PLAN[0], PLAN[2], PLAN[1])
ONCE = dict(steps=1, warmup=1)
TOY = (
    Task('steps', 'vit-mini', 'fp32', **ONCE),
    Task('steps', 'sam-mini', 'fp32', methods=FEW, **ONCE),
    Task('profile', 'vit-mini', 'fp32', methods=('bias', 'gps-k1'), **ONCE),
    Task('selection', 'vit-mini', 'fp32', **ONCE),
    Task('deltas', 'vit-mini'),
    Task('routes', 'vit-mini', 'fp32'),
)


class Measurements:
    """Runs tasks, and keeps the networks that several tasks share.

    Args:
        device: Device to measure on.
        data: Folder with ``kvasir_seg_352/`` and ``deit_tiny_mmseg.pth``.
    """

    def __init__(self, device: str, data: Path) -> None:
        self.device, self.data = device, data
        self._benches: dict[tuple[str, int | None], Bench] = {}

    def bench(self, task: Task) -> Bench:
        """Return the network of ``task`` in its precision."""
        key = (task.network, task.batch_size)
        if key not in self._benches:
            network = NETWORKS[task.network]
            self._benches[key] = Bench(self._config(task.network), task.batch_size or network.batch_size, self.device)
        self._benches[key].precision(task.precision)
        return self._benches[key]

    def _config(self, name: str) -> Config:
        cfg = Config.fromfile(ROOT / NETWORKS[name].config)
        if name != 'vit-mini':
            set_data_root(cfg, str(self.data / 'kvasir_seg_352'))
            cfg.model.init_cfg = cfg.model.backbone.init_cfg = None
        if name == 'deit-tiny':
            cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(self.data / 'deit_tiny_mmseg.pth'))
        return cfg

    def steps(self, task: Task) -> list[dict[str, Any]]:
        """Measure step time and peak memory of the methods."""
        return with_ratios(list(self.bench(task).costs(task.methods, task.steps, task.warmup, task.compiled)))

    def routes(self, task: Task) -> list[dict[str, Any]]:
        """Time the three routes of a linear layer over a grid."""
        return list(route_costs(self.device, task.network == 'vit-mini', DTYPES[task.precision]))

    def selection(self, task: Task) -> list[dict[str, Any]]:
        """Time the selection pass and a full forward and backward pass over the same batches."""
        bench = self.bench(task)
        model = bench.model()
        loss = TrainingLoss(model, bench.setup.optimize(list(model.parameters())))

        def plain() -> None:
            for batch in bench.batches:
                loss(batch).backward()
                model.zero_grad()

        passed = {'selection pass': lambda: bench.setup.gradients(model, bench.batches), 'forward and backward': plain}
        rows = []
        for name, run in passed.items():
            times = []
            for _ in range(2 + task.steps // 2):
                clear(self.device)
                if self.device != 'cpu':
                    torch.cuda.reset_peak_memory_stats(self.device)
                times.append(timed(lambda _, run=run: run(), None, self.device, time.perf_counter))
            peak = None if self.device == 'cpu' else torch.cuda.max_memory_allocated(self.device) / 2**30
            rows.append(dict(what=name, batches=len(bench.batches), ms=1e3 * median(times[1:]), peak_gib=peak))
        return rows

    def deltas(self, task: Task) -> list[dict[str, Any]]:
        """Measure the size of deltas and the time of a switch on the device."""
        cfg = Config.fromfile(ROOT / NETWORKS[task.network].config)
        costs = measure_deltas(cfg, ['gps-random', 'bias', 'lora', 'ssf'], device=self.device)
        rows = []
        for cost in costs:
            times = [1e3 * seconds for seconds in cost.switch_s]
            rows.append(
                dict(method=cost.method, mb=cost.file_bytes / 1e6, switch_ms=median(times), slowest_ms=max(times))
            )
        return rows

    def sam(self, task: Task) -> list[dict[str, Any]]:
        """Compare full fine-tuning of SAM with the authors' implementation."""
        self._benches.clear()
        clear(self.device)
        costs = compare_sam(Workload(steps=task.steps, device=self.device)).items()
        return [dict(what=name, step_ms=1e3 * cost.step_s, peak_gib=cost.peak_bytes / 2**30) for name, cost in costs]

    def profile(self, task: Task) -> list[dict[str, Any]]:
        """Profile a step of each method: its costliest kernels, or operators on the CPU."""
        bench, rows = self.bench(task), []
        activity = torch.profiler.ProfilerActivity
        for name in task.methods:
            rig = bench.rig(name)
            wall = median(bench.seconds(rig, 5, task.warmup))
            activities = [activity.CPU] if self.device == 'cpu' else [activity.CPU, activity.CUDA]
            with torch.profiler.profile(activities=activities) as seen:
                bench.seconds(rig, 1, 0)
            rows += costliest(name, seen.key_averages(), self.device, 1e3 * wall)
            del rig
            clear(self.device)
        return rows


def costliest(method: str, events: Any, device: str, wall: float, most: int = 22) -> list[dict[str, Any]]:
    """Return a row for the sum of all kernels, and rows for the costliest ones."""
    on_cuda = device != 'cpu'
    kernels = [event for event in events if not on_cuda or event.device_type is DeviceType.CUDA]
    spent = {event.key: event.self_device_time_total if on_cuda else event.self_cpu_time_total for event in kernels}
    calls = {event.key: event.count for event in kernels}
    rows = [dict(method=method, kernel='all', ms=sum(spent.values()) / 1e3, calls=sum(calls.values()), wall_ms=wall)]
    for key in sorted(spent, key=lambda key: -spent[key])[:most]:
        rows.append(dict(method=method, kernel=key[:110], ms=spent[key] / 1e3, calls=calls[key]))
    return rows


KINDS: dict[str, Callable[[Measurements, Task], list[dict[str, Any]]]] = {
    'steps': Measurements.steps,
    'routes': Measurements.routes,
    'selection': Measurements.selection,
    'deltas': Measurements.deltas,
    'segment-anything': Measurements.sam,
    'profile': Measurements.profile,
}


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer."""

    def late(*_: Any) -> None:
        raise TimeoutError(f'it took more than {seconds:.0f} s')

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--only', nargs='+', metavar='WORD', help='tasks with one of these words in their name')
    parser.add_argument('--skip', type=int, default=0, help='number of tasks to skip')
    parser.add_argument('--seconds', type=float, default=300, help='limit for all tasks')
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    return parser.parse_args()


def plan(args: argparse.Namespace) -> list[Task]:
    """Return the tasks of a run; without images, only those of the network that draws its data."""
    tasks = TOY if args.device == 'cpu' else QUICK if args.quick else PLAN
    if not (args.data / 'kvasir_seg_352').is_dir():
        print(f'no images at {args.data}; measuring only the network with drawn data')
        tasks = tuple(task for task in tasks if task.network == 'vit-mini')
    return [task for task in tasks if not args.only or any(word in str(task) for word in args.only)]


def main() -> None:
    args = parse_args()
    results, failed = Results(args.out), 0
    measurements, end = Measurements(args.device, args.data), time.monotonic() + args.seconds
    for number, task in enumerate(plan(args)):
        if number < args.skip:
            continue
        began, error = time.monotonic(), None
        (args.out / 'task').write_text(str(number))
        rows: list[dict[str, Any]] = []
        try:
            with at_most(min(task.limit if args.device != 'cpu' else 300, max(end - began, 1))):
                rows = KINDS[task.kind](measurements, task)
        except Exception as caught:  # a failing task must not stop the others
            error = f'{type(caught).__name__}: {str(caught)[:300]}'
            traceback.print_exc()
            del caught
        failed += error is not None or any('error' in row for row in rows)
        about = {**machine_header(args.device), 'batch_size': task.batch_size or NETWORKS[task.network].batch_size}
        about['seconds'] = round(time.monotonic() - began, 1)
        results.add(str(task), rows, **about, **({'error': error} if error else {}))
        print(f'{task}: {error or "measured"} in {about["seconds"]} s', flush=True)
        clear(args.device)
    raise SystemExit(failed)


if __name__ == '__main__':
    main()
