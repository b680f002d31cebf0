"""Commands of ``tools/delta.py``, which turn checkpoints into deltas and deltas into checkpoints."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmgps.delta import (
    AppliedDelta,
    BaseFingerprint,
    Delta,
    check_injection,
    diff,
    extract,
    format_diff,
    inject_missing,
    load_delta,
    merge,
    same,
    save_delta,
    union,
    unpack_delta,
    verify,
)
from mmgps.delta.diff import total
from mmgps.selection import Selection, pack_selection, unpack_selection
from mmgps.utils.atomic_file import check_apart
from mmgps.utils.text import printable

from ..configs.command_line import add_config_arguments, read_config
from ..safe_loading import load_plain, write_plain
from ..tuned_backbone import find_backbone
from .base_model import build_base, state_of
from .checkpoint_method import CHECKPOINT_KEY
from .delta_hook import DELTA_KEY, origin_of

PathLike = str | os.PathLike[str]


def extract_from_checkpoint(
    cfg: Config, checkpoint: PathLike, base: PathLike | None = None, target: str = 'backbone'
) -> Delta:
    """Extract the delta of the run of ``cfg`` that wrote ``checkpoint``.

    Args:
        cfg: Config of the run.
        checkpoint: Checkpoint of a run under ``mmgps.GPSHook`` or ``mmgps.TuneHook``.
        base: Base of the run, see :func:`mmgps.engine.build_base`.
        target: Path of the backbone within the model.

    Raises:
        ValueError: If the checkpoint holds no selection, or the file cannot be read safely.
        DeltaExtractError: If the base differs from the base of the run.
    """
    loaded = load_plain(checkpoint)
    if DELTA_KEY in loaded:
        return unpack_delta(loaded[DELTA_KEY])
    if CHECKPOINT_KEY not in loaded:
        raise ValueError(
            f'{checkpoint} holds no selection ({CHECKPOINT_KEY!r}): it was not trained with mmgps.GPSHook or '
            'mmgps.TuneHook, so there is no record of what it changed'
        )
    selection = unpack_selection(loaded[CHECKPOINT_KEY])
    model = build_base(cfg, base, target)
    backbone = find_backbone(model, target)
    beside, state = set(selection.whole) - dict(backbone.named_parameters()).keys(), state_of(loaded)
    check_injection(backbone, selection, {name: state.get(f'{target}.{name}') for name in beside})
    inject_missing(backbone, selection, beside)
    before = BaseFingerprint.of(backbone, selection)
    model.load_state_dict(dict(state))
    meta = loaded.get('meta', {})
    origin = origin_of(cfg, meta.get('dataset_meta'), meta.get('epoch'), meta.get('iter'))
    return extract(model, selection, before, target, origin)


def trained_state(cfg: Config, delta: Delta, base: PathLike | None = None) -> dict[str, Tensor]:
    """Tensors of the trained network, under their names in training.

    Raises:
        DeltaMismatchError: If the delta belongs to another base or architecture.
    """
    model = build_base(cfg, base, delta.target)
    AppliedDelta(model, delta)
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def merged_state(cfg: Config, delta: Delta, base: PathLike | None = None) -> dict[str, Tensor]:
    """Tensors of the trained network, under the names of the base architecture, see :func:`mmgps.delta.merge`."""
    return merge(build_base(cfg, base, delta.target), delta)


def write_checkpoint(
    path: PathLike, state: Mapping[str, Tensor], delta: Delta, selection: Selection | None = None
) -> None:
    """Write the weights ``state`` that come from ``delta`` as a checkpoint of mmengine, completely or not at all.

    A network with injected modules needs its ``selection`` in the checkpoint.
    """
    origin = delta.origin
    meta: dict[str, Any] = {'epoch': origin.epoch, 'iter': origin.iteration}
    if origin.dataset_meta:  # mmseg would use empty meta data too
        meta['dataset_meta'] = dict(origin.dataset_meta)
    checkpoint: dict[str, Any] = {'meta': meta, 'state_dict': dict(state)}
    if selection is not None:
        checkpoint[CHECKPOINT_KEY] = pack_selection(selection)
    write_plain(path, checkpoint)


def verify_delta(
    cfg: Config, delta: Delta, base: PathLike | None = None, checkpoint: PathLike | None = None
) -> list[str]:
    """Check a delta against its base, and against the weights in a checkpoint of the same run, bit for bit.

    Returns:
        One sentence for each check that passed.

    Raises:
        DeltaMismatchError: If the delta belongs to another base or architecture; names the difference.
        ValueError: If base and delta give other weights than the checkpoint has.
    """
    verify(build_base(cfg, base, delta.target), delta)
    found = ['the file is intact', f'the base is that of the delta: {len(delta.base.digests)} tensors, bit for bit']
    if checkpoint is not None:
        expected = dict(state_of(load_plain(checkpoint)))
        wrong = differing(trained_state(cfg, delta, base), expected)
        if wrong:
            raise ValueError(f'base and delta differ from {checkpoint} in {len(wrong)} tensors, first {wrong[0]!r}')
        found.append(f'base and delta are {checkpoint}: {len(expected)} tensors, bit for bit')
    return found


def differing(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that only one side has, or whose type, shape or bits differ."""
    names = dict.fromkeys((*some, *others))
    return [name for name in names if name not in some or name not in others or not same(some[name], others[name])]


MIB = 2**20


def add_delta_commands(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command for each of :data:`COMMANDS`."""
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, (run, arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        if name in WITH_CONFIG:
            add_config_arguments(command)
            command.add_argument('--base', help='checkpoint of the base; default: what the config initialises from')
        for argument in arguments:
            command.add_argument(argument)
    commands.choices['extract'].add_argument('--target', default='backbone', help='path of the backbone in the model')
    commands.choices['verify'].add_argument('--checkpoint', help='of the same run, to compare with bit for bit')
    commands.choices['info'].add_argument('--json', action='store_true', help='everything but the numbers, as JSON')


def run_delta_command(args: argparse.Namespace) -> str:
    """Run the command that ``args`` name, and return its report."""
    return COMMANDS[args.command][0](args)


def extract_command(args: argparse.Namespace) -> str:
    """write the delta of a checkpoint"""
    _check_out(args, args.checkpoint)
    delta = extract_from_checkpoint(read_config(args), args.checkpoint, args.base, args.target)
    save_delta(delta, args.out)
    return _written(args.out, f'{len(delta):,} numbers')


def apply_command(args: argparse.Namespace) -> str:
    """write base and delta as a checkpoint, with the names of training"""
    return _write_network(args, trained_state, True)


def merge_command(args: argparse.Namespace) -> str:
    """write base and delta as a checkpoint of the base architecture, which needs no mmgps"""
    return _write_network(args, merged_state, False)


def union_command(args: argparse.Namespace) -> str:
    """write two deltas as one; where both hold a number, the second wins"""
    check_apart(args.out, args.first, args.second)
    first, second = load_delta(args.first), load_delta(args.second)
    save_delta(union(first, second), args.out)
    shared = total('', diff(first, second)[: len({*first.values, *second.values})]).shared
    return _written(args.out, f'{shared:,} connections were in both')


def info_command(args: argparse.Namespace) -> str:
    """list the contents of a delta"""
    delta = load_delta(args.delta)
    facts = delta_facts(delta, Path(args.delta).stat().st_size)
    if args.json:
        return json.dumps({**facts, 'config': dict(delta.origin.config)}, indent=2)
    return '\n'.join(f'{name:<24}{_shown(value)}' for name, value in facts.items())


def diff_command(args: argparse.Namespace) -> str:
    """list the differences between two deltas of one base"""
    return format_diff(load_delta(args.first), load_delta(args.second))


def verify_command(args: argparse.Namespace) -> str:
    """check a delta and its base"""
    return '\n'.join(verify_delta(read_config(args), load_delta(args.delta), args.base, args.checkpoint))


def delta_facts(delta: Delta, size: int) -> dict[str, object]:
    """Describe a delta whose file has ``size`` bytes, as JSON values."""
    head, injected = delta.head(), {delta.prefix + name for name in delta.injected()}
    base = [v for n, v in delta.tensors.items() if n not in head and n not in injected]
    return {
        'bytes': size,
        'bytes of the head': sum(value.nbytes for value in head.values()),
        'method': delta.selection.method,
        'settings': dict(delta.selection.settings),
        'k': delta.k,
        'backbone': delta.target,
        'connections': len(delta.selection),
        'whole tensors of the base': sum(value.numel() for value in base),
        'beside the base': sum(delta.tensors[name].numel() for name in injected),
        'head': sum(value.numel() for value in head.values()),
        'architecture': delta.selection.architecture,
        'metrics': dict(delta.origin.metrics),
        'epoch': delta.origin.epoch,
        'iteration': delta.origin.iteration,
        'classes': list(delta.origin.dataset_meta.get('classes', ())),
    }


COMMANDS: Mapping[str, tuple[Callable[[argparse.Namespace], str], tuple[str, ...]]] = {
    'extract': (extract_command, ('checkpoint', 'out')),
    'apply': (apply_command, ('delta', 'out')),
    'merge': (merge_command, ('delta', 'out')),
    'union': (union_command, ('first', 'second', 'out')),
    'info': (info_command, ('delta',)),
    'diff': (diff_command, ('first', 'second')),
    'verify': (verify_command, ('delta',)),
}
"""Functions of the sub-commands, whose docstrings are the help texts, and their positional arguments."""
WITH_CONFIG = ('extract', 'apply', 'merge', 'verify')


def _write_network(
    args: argparse.Namespace, state_of_run: Callable[..., dict[str, Tensor]], with_selection: bool
) -> str:
    _check_out(args, args.delta)
    delta = load_delta(args.delta)
    state = state_of_run(read_config(args), delta, args.base)
    write_checkpoint(args.out, state, delta, delta.selection if with_selection else None)
    return _written(args.out, f'{len(state)} tensors')


def _check_out(args: argparse.Namespace, source: str) -> None:
    """Check that the command writes to none of the files that it reads: source, config, and files of the base.

    Raises:
        ValueError: Names the file.
    """
    cfg = read_config(args)
    named = _strings([cfg.model.to_dict(), cfg.get('load_from')])
    check_apart(args.out, source, args.config, *filter(None, [args.base]), *filter(os.path.isfile, named))


def _strings(part: object) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping | list | tuple):
        for inner in part.values() if isinstance(part, Mapping) else part:
            yield from _strings(inner)


def _shown(value: object) -> str:
    return f'{value:,}' if isinstance(value, int) else printable(str(value))


def _written(path: str, what: str) -> str:
    return f'{path}: {Path(path).stat().st_size / MIB:.2f} MiB, {what}'
