"""Mutate selection and delta files: their raw bytes, or their content under a new, valid digest.

PYTHONPATH=tests/support python tools/dev/mutations.py --count 2000

For each kind of file it prints how many mutations were refused, how many had no effect, every other outcome by name,
and the additional memory of the process.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import resource
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from shifted import Small, picture, trained
from torch import Tensor, nn

from mmgps.delta import AppliedDelta, DeltaFileError, DeltaMismatchError, load_delta, save_delta
from mmgps.selection import SelectionFileError, SelectionMismatchError, load_selection, save_selection
from mmgps.selection.checked_safetensors import add_digest
from mmgps.tuning import LoRA

MIB = 2**20


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        write: Writes an intact file.
        use: Reads a file, applies it to its network, and returns the resulting bits.
        errors: Errors that an invalid file may raise.
        key: Key of the envelope within the metadata.
    """

    write: Callable[[Path], None]
    use: Callable[[Path], Any]
    errors: tuple[type[Exception], ...]
    key: str


def selections() -> Kind:
    model = Small()
    chosen = trained(model=model)[1].selection

    def use(path: Path) -> Any:
        read = load_selection(path)
        found = [(p.name, item.positions.tolist()) for p, item in read.resolve(model.backbone)]
        return found, sorted(read.whole)

    errors = (SelectionFileError, SelectionMismatchError)
    return Kind(lambda path: save_selection(chosen, path), use, errors, 'mmgps.selection')


def deltas(method: Any, model: nn.Module) -> Kind:
    delta = trained(method=method, model=model)[1]

    def use(path: Path) -> Any:
        applied = AppliedDelta(network := copy.deepcopy(model), load_delta(path))
        found = {name: value.clone() for name, value in network.state_dict().items()}
        found['output'] = network.eval()(picture()).detach()
        network.train()
        applied.remove()
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in network.state_dict().items())
        return found

    return Kind(lambda path: save_delta(delta, path), use, (DeltaFileError, DeltaMismatchError), 'mmgps.delta')


def kinds() -> dict[str, Kind]:
    plain = Small()
    return {
        'selections': selections(),
        'GPS deltas': deltas(None, plain),
        'LoRA deltas': deltas(LoRA(2), plain),
    }


def mutate_raw(data: bytes, rng: random.Random) -> bytes:
    """Cut, overwrite, remove, repeat or flip bytes, half of the time in the header."""
    header = 8 + int.from_bytes(data[:8], 'little')
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        end = min(len(found), header if rng.random() < 0.5 else len(found)) or 1
        at, length = rng.randrange(end), rng.choice((1, 1, 2, 8, 64))
        how = rng.randrange(6)
        if how == 0:
            del found[at:]
        elif how == 1:
            found[at : at + length] = rng.randbytes(length)
        elif how == 2:
            del found[at : at + length]
        elif how == 3:
            found[at:at] = found[at : at + length]
        elif how == 4 and found:
            found[at % len(found)] ^= 1 << rng.randrange(8)
        else:
            found[at : at + length] = bytes(rng.choice(b'0123456789[]{},:"-') for _ in range(length))
    return bytes(found)


def mutate_sealed(path: Path, key: str, rng: random.Random) -> None:
    """Change the description or the tensors of the file at ``path``, and give it a valid digest."""
    with safe_open(str(path), framework='pt') as file:
        envelope = json.loads(file.metadata()[key])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = json.loads(envelope['content'])
    if rng.random() < 0.6:
        text = _raw_description(content, rng) or json.dumps(_changed(content, rng, ()), sort_keys=True)
        envelope = _sealed_text(text, tensors)
    else:
        # With an adapted description, a file with fewer tensors or connections would be valid; leave the old one then.
        names, numbers = set(tensors), _numbers(tensors)
        _change_tensor(tensors, rng)
        said = 'shapes' if 'target' in content else 'positions'
        if names <= set(tensors) and _numbers(tensors) >= numbers and rng.random() < 0.8:
            content[said] = {name: list(value.shape) for name, value in tensors.items()}
        envelope = add_digest(content, tensors)
    save_file(tensors, str(path), {key: envelope})


def _numbers(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in tensors.values())


def _sealed_text(text: str, tensors: Mapping[str, Tensor]) -> str:
    from mmgps.selection.checked_safetensors import _digest

    return json.dumps({'content': text, 'sha256': _digest(text, tensors)})


def _raw_description(content: Any, rng: random.Random) -> str | None:
    """Return None or, now and then, a description with excessive nesting or without an object."""
    depth = rng.choice((50, 200, 5_000, 100_000))
    nested = '[' * depth + ']' * depth
    return rng.choice(
        [None] * 12
        + [nested, '{"a":' * depth + '1' + '}' * depth, '[]', '1', 'null', '"text"', '{}']
        + [json.dumps({**content, rng.choice(list(content)): 'HERE'}).replace('"HERE"', nested)]
    )


ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 7, 2**31, 500_000_000, 2**63, 10**400, 1.5, 1e308, '', 'x', '0.weight', '\x1b[31m', '$x$',
    [], {}, [[]], [1, 2, 3], [10**9, 10**9], {'a': 1}, 'float32[4,8] 0123456789abcdef',
    'float32[500000000] ' + '0' * 16,
)  # fmt: skip


def _changed(part: Any, rng: random.Random, path: tuple[Any, ...]) -> Any:
    """Return ``part`` with one change somewhere inside."""
    inner = list(part) if isinstance(part, dict) else list(range(len(part))) if isinstance(part, list) else []
    if not inner or (path and rng.random() < 0.25):
        # An empty `whole` makes another valid selection, and another alpha another valid delta.
        valid = {('whole',): lambda odd: odd == [], ('settings', 'alpha'): lambda odd: isinstance(odd, int | float)}
        return rng.choice([odd for odd in ODD if not valid.get(path, lambda odd: False)(odd)]) if path else part
    key, how = rng.choice(inner), rng.random()
    found = copy.copy(part)
    if isinstance(part, dict):
        if how < 0.1:
            del found[key]
        elif how < 0.2:
            found[rng.choice(('x', '', key + 'x'))] = found.pop(key)
        elif how < 0.25:
            found['another'] = rng.choice(ODD)
        else:
            found[key] = _changed(part[key], rng, (*path, key))
    elif how < 0.1 and path != ('whole',):
        del found[key]
    elif how < 0.2:
        found.append(part[key])
    else:
        found[key] = _changed(part[key], rng, (*path, key))
    return found


def _change_tensor(tensors: dict[str, Tensor], rng: random.Random) -> None:
    """Give one tensor a content that no selection or delta of this network has."""
    name = rng.choice(list(tensors))
    value = tensors[name]
    integers = not value.is_floating_point()
    how = rng.randrange(9)
    if how == 0:
        del tensors[name]
    elif how == 1:
        tensors[rng.choice(('x', 'tensors/x', 'connections/x/values', name + 'x'))] = tensors.pop(name)
    elif how == 2:
        tensors[name] = value.to(
            rng.choice([t for t in (torch.float16, torch.float64, torch.bool) if t != value.dtype])
        )
    elif how == 3:
        tensors[name] = value.reshape(rng.choice(((1, -1), (-1, 1, 1), (-1, 1))) if value.dim() < 2 else (-1,)).clone()
    elif how == 4:
        tensors[name] = torch.cat([value.flatten(), value.flatten()[:1]])
    elif how == 5:
        tensors[name] = value.flatten()[:-1].clone()
    elif how == 6:
        tensors[name] = torch.empty(
            rng.choice(((500_000_000, 0), (0,), (0, 2**40), (2_000_000, 0, 3))), dtype=value.dtype
        )
    elif integers and value.numel() > 1:
        flat = value.flatten().clone()
        at = rng.randrange(len(flat))
        flat[at] = rng.choice((-1, -(2**15), 2**15 - 1, int(flat[at - 1]) if value.dim() == 1 else 2**14))
        tensors[name] = flat.view(value.shape)
    else:
        tensors[rng.choice(('extra', 'tensors/backbone.extra'))] = torch.zeros(3)


def run(kind: Kind, count: int, resealed: bool, seed: int, folder: Path) -> Counter[str]:
    """Count the outcomes of ``count`` mutations: ``refused``, ``equal``, ``different``, or another error by name."""
    intact, path = folder / 'intact', folder / 'mutated'
    kind.write(intact)
    expected, found = kind.use(intact), Counter[str]()
    for trial in range(count):
        rng = random.Random(f'{seed} {trial}')
        path.write_bytes(intact.read_bytes())
        if resealed:
            mutate_sealed(path, kind.key, rng)
        else:
            path.write_bytes(mutate_raw(path.read_bytes(), rng))
        found[outcome(kind, path, expected)] += 1
    return found


def outcome(kind: Kind, path: Path, expected: Any) -> str:
    try:
        used = kind.use(path)
    except kind.errors:
        return 'refused'
    except Exception as error:  # counts as a fault, under its name
        return f'{type(error).__name__}: {str(error)[:200]}'
    return 'equal' if _same(used, expected) else 'different'


def _same(some: Any, other: Any) -> bool:
    if isinstance(some, dict):
        return some.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in some.items())
    return bool(some == other)


def peak_mib() -> float:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', type=int, default=2000)
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    for name, kind in kinds().items():
        for resealed in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                kind.write(Path(folder) / 'first')
                kind.use(Path(folder) / 'first')
                before = peak_mib()
                found = run(kind, args.count, resealed, args.seed, Path(folder))
            how = 'with a valid digest' if resealed else 'raw'
            print(f'{args.count} {name}, {how}: {dict(found)}; {peak_mib() - before:.0f} MiB more than before')


if __name__ == '__main__':
    main()
