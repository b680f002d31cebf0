"""Commands of ``tools/delta.py``: their arguments, and the text that they print."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mmgps.delta import Delta, diff, format_diff, load_delta, save_delta, union
from mmgps.delta.diff import total
from mmgps.utils.atomic_file import check_apart
from mmgps.utils.text import printable

from ..configs.command_line import add_config_arguments, read_config
from .delta_checkpoints import extract_from_checkpoint, merged_state, trained_state, verify_delta, write_checkpoint

MIB = 2**20


def add_delta_commands(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command for each of :data:`COMMANDS`."""
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, run in COMMANDS.items():
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        if name in WITH_CONFIG:
            add_config_arguments(command)
            command.add_argument('--base', help='checkpoint of the base; default: what the config initialises from')
        for argument in ARGUMENTS[name]:
            command.add_argument(argument)
    commands.choices['extract'].add_argument('--target', default='backbone', help='path of the backbone in the model')
    commands.choices['verify'].add_argument('--checkpoint', help='of the same run, to compare with bit for bit')
    commands.choices['info'].add_argument('--json', action='store_true', help='everything but the numbers, as JSON')


def run_delta_command(args: argparse.Namespace) -> str:
    """Run the command that ``args`` name, and return its report."""
    return COMMANDS[args.command](args)


def extract_command(args: argparse.Namespace) -> str:
    """write the delta of a checkpoint"""
    _check_out(args, args.checkpoint)
    delta = extract_from_checkpoint(read_config(args), args.checkpoint, args.base, args.target)
    save_delta(delta, args.out)
    return _written(args.out, f'{len(delta):,} numbers')


def apply_command(args: argparse.Namespace) -> str:
    """write base and delta as a checkpoint, with the names of training"""
    _check_out(args, args.delta)
    delta = load_delta(args.delta)
    state = trained_state(read_config(args), delta, args.base)
    write_checkpoint(args.out, state, delta, delta.selection)
    return _written(args.out, f'{len(state)} tensors')


def merge_command(args: argparse.Namespace) -> str:
    """write base and delta as a checkpoint of the base architecture, which needs no mmgps"""
    _check_out(args, args.delta)
    delta = load_delta(args.delta)
    state = merged_state(read_config(args), delta, args.base)
    write_checkpoint(args.out, state, delta)
    return _written(args.out, f'{len(state)} tensors')


def union_command(args: argparse.Namespace) -> str:
    """write two deltas as one; where both hold a number, the second wins"""
    check_apart(args.out, args.first, args.second)
    first, second = load_delta(args.first), load_delta(args.second)
    save_delta(union(first, second), args.out)
    shared = total('', diff(first, second)[: len({*first.values, *second.values})]).shared
    return _written(args.out, f'{shared:,} connections were in both')


def info_command(args: argparse.Namespace) -> str:
    """say what a delta holds"""
    delta = load_delta(args.delta)
    facts = delta_facts(delta, Path(args.delta).stat().st_size)
    if args.json:
        return json.dumps({**facts, 'config': dict(delta.origin.config)}, indent=2)
    return '\n'.join(f'{name:<24}{_shown(value)}' for name, value in facts.items())


def diff_command(args: argparse.Namespace) -> str:
    """say in what two deltas of one base differ"""
    return format_diff(load_delta(args.first), load_delta(args.second))


def verify_command(args: argparse.Namespace) -> str:
    """check a delta and its base"""
    return '\n'.join(verify_delta(read_config(args), load_delta(args.delta), args.base, args.checkpoint))


def delta_facts(delta: Delta, size: int) -> dict[str, object]:
    """Facts on a delta whose file has ``size`` bytes, as JSON values."""
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


COMMANDS: Mapping[str, Callable[[argparse.Namespace], str]] = {
    'extract': extract_command,
    'apply': apply_command,
    'merge': merge_command,
    'union': union_command,
    'info': info_command,
    'diff': diff_command,
    'verify': verify_command,
}
WITH_CONFIG = ('extract', 'apply', 'merge', 'verify')
ARGUMENTS = {
    'extract': ('checkpoint', 'out'),
    'apply': ('delta', 'out'),
    'merge': ('delta', 'out'),
    'union': ('first', 'second', 'out'),
    'info': ('delta',),
    'diff': ('first', 'second'),
    'verify': ('delta',),
}


def _check_out(args: argparse.Namespace, source: str) -> None:
    """Check that the output is none of the files that are read: source, config, and files of the base.

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
