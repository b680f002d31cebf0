"""Read from the source of a module's methods how it uses its parameters.

The code of a class without a rule shows the roles of its parameters: it multiplies by a gain, adds a bias, expands a
token to the batch, and divides by a statistic of its input if it normalises. Attributes of ``self`` are followed within
one method, through views, elementwise functions and local names. A class without source has no uses.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from types import FunctionType
from typing import Any

from torch import nn


class Use(StrEnum):
    """A way in which code uses a parameter."""

    MULTIPLIED = 'multiplied'
    ADDED = 'added'
    EXPANDED = 'expanded'
    """Expanded to the size of the batch."""
    TOKEN = 'token'
    """Joined to a sequence or written into it, after a dimension was added."""
    GATHERED = 'gathered'
    """Indexed by a tensor."""
    WEIGHT = 'weight'
    """The weight of a linear map or convolution."""


# Statistics by which a normalisation divides, as functions and methods of torch.
STATISTICS = {
    *('rsqrt', 'var', 'std', 'var_mean', 'std_mean', 'norm', 'vector_norm', 'normalize'),
    *('rms_norm', 'layer_norm', 'group_norm', 'batch_norm', 'instance_norm'),
}
ROOTS = {'sqrt', 'pow'}  # of a mean: the root mean square
_EXPAND = {'expand', 'expand_as', 'repeat', 'tile', 'repeat_interleave', 'broadcast_to'}
_JOIN = {'cat', 'concat', 'concatenate', 'stack', 'hstack', 'vstack'}
_ZEROS = {'zeros', 'zeros_like', 'new_zeros'}
_FACTS = {'dtype', 'device', 'shape', 'size', 'ndim', 'dim', 'numel', 'is_cuda', 'requires_grad'}
# Functions of one tensor that keep its meaning; every other method of a tensor is taken to keep it too.
_ELEMENTWISE = {
    *('exp', 'sigmoid', 'softmax', 'tanh', 'softplus', 'clamp', 'relu', 'abs', 'sqrt', 'square', 'softsign'),
    *('unsqueeze', 'squeeze', 'reshape', 'permute', 'transpose', 'flatten', 'view', 'to', 'cast', 'tensor'),
}
_MAPS = {'linear', 'conv1d', 'conv2d', 'conv3d'}
_ADD, _ADD_TO, _MULTIPLY = {'add'}, {'addmm', 'addbmm', 'baddbmm', 'addcmul'}, {'mul', 'multiply'}


def uses(owner: nn.Module) -> dict[str, frozenset[Use]]:
    """Uses of each attribute of ``owner`` in the methods of its class and bases, except constructors."""
    return _uses(_class_of(owner))


def normalises(owner: nn.Module) -> bool:
    """True if methods of ``owner``, or functions that they call, compute a statistic that a norm divides by."""
    return _normalises(_class_of(owner))


def statistic_dims(owner: nn.Module) -> frozenset[int]:
    """Dimensions over which the methods of ``owner`` compute statistics, as far as they are literal numbers."""
    return _statistic_dims(_class_of(owner))


def reads_weights(owner: nn.Module) -> dict[str, bool]:
    """Map children whose ``weight`` the forward of ``owner`` reads to whether the code also calls the child.

    A child that is called is included only if its weight serves a linear map with another bias.
    """
    return _reads_weights(_class_of(owner))


def _class_of(owner: nn.Module) -> type:
    return type(owner)


@cache
def _uses(kind: type) -> dict[str, frozenset[Use]]:
    found: dict[str, set[Use]] = {}
    for method in methods(kind):
        reader = _Reader(method)
        for node in ast.walk(method):
            if isinstance(node, ast.Attribute) and is_self(node.value) and isinstance(node.ctx, ast.Load):
                reader.seen.clear()
                found.setdefault(node.attr, set()).update(reader.follow(node))
    return {name: frozenset(kinds) for name, kinds in found.items()}


@cache
def _normalises(kind: type) -> bool:
    names = [_called(function, depth=3) for function in functions(kind)]
    gains = any(Use.MULTIPLIED in done for done in _uses(kind).values())
    return any(found & STATISTICS or (gains and 'mean' in found and found & ROOTS) for found in names)


@cache
def _statistic_dims(kind: type) -> frozenset[int]:
    calls = [node for method in methods(kind) for node in ast.walk(method) if isinstance(node, ast.Call)]
    found: list[ast.AST] = []
    for call in (call for call in calls if name_of(call.func) in {'mean', *STATISTICS}):
        found += [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == 'dim')]
    return frozenset(int(text) for text in map(ast.unparse, found) if text.lstrip('-').isdigit())


@cache
def _reads_weights(kind: type) -> dict[str, bool]:
    read, mapped, called = set(), set(), set()
    for method in reached(kind, 'forward', set()):
        above = parents(method)
        for node in ast.walk(method):
            if isinstance(node, ast.Call) and is_attribute(node.func):
                called.add(name_of(node.func))
            elif isinstance(node, ast.Attribute) and node.attr == 'weight' and is_attribute(node.value):
                if not isinstance(fact := above[node], ast.Attribute) or fact.attr not in _FACTS:
                    read.add(name_of(node.value))
                if _maps_with_other_bias(node, above):
                    mapped.add(name_of(node.value))
    return {child: child in called for child in sorted(mapped | (read - called))}


def _maps_with_other_bias(weight: ast.Attribute, above: dict[ast.AST, ast.AST]) -> bool:
    """True if ``self.child.weight`` goes into ``linear`` with a bias that is not ``self.child.bias``."""
    call = above[weight]
    call = above[call] if isinstance(call, ast.keyword) else call
    if not isinstance(call, ast.Call) or name_of(call.func) != 'linear':
        return False
    biases = [*call.args[2:], *(keyword.value for keyword in call.keywords if keyword.arg == 'bias')]
    own = ast.unparse(weight.value) + '.bias'
    return any(ast.unparse(bias) not in (own, 'None') for bias in biases)


class _Reader:
    """Follows values through one method."""

    def __init__(self, method: ast.AST) -> None:
        self._parents = parents(method)
        self._loads: dict[str, list[ast.AST]] = {}
        for node in ast.walk(method):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                self._loads.setdefault(node.id, []).append(node)
        self.seen: set[tuple[ast.AST, bool, bool]] = set()

    def follow(self, node: ast.AST, expanded: bool = False, gathered: bool = False) -> Iterator[Use]:
        """The uses of the value of ``node``.

        Args:
            node: An expression.
            expanded: Whether the value has gained a dimension before.
            gathered: Whether it was indexed by a tensor before.
        """
        if (node, expanded, gathered) in self.seen:
            return
        self.seen.add((node, expanded, gathered))
        above = self._parents.get(node)
        if isinstance(above, ast.BinOp):
            yield from self._operand(node, above, expanded, gathered)
        elif isinstance(above, ast.AugAssign) and above.value is node:
            yield from _operation(above.op)
        elif isinstance(above, ast.Attribute) and above.attr not in _FACTS:
            call = self._parents.get(above)
            if isinstance(call, ast.Call) and call.func is above:
                if above.attr.rstrip('_') in _ADD | _MULTIPLY:
                    yield Use.ADDED if above.attr.rstrip('_') in _ADD else Use.MULTIPLIED
                elif above.attr in _EXPAND:
                    yield from self._expanded(call, gathered)
                else:
                    yield from self.follow(call, expanded or above.attr == 'unsqueeze', gathered)
        elif isinstance(above, ast.Subscript) and above.value is node:
            plain = _is_view(above.slice)
            yield from self.follow(above, expanded or _adds_dimension(above.slice), gathered or not plain)
            if not plain:
                yield Use.GATHERED
        elif isinstance(above, ast.keyword):
            call = self._parents.get(above)
            if above.arg == 'bias':
                yield Use.ADDED
            elif above.arg == 'weight' and isinstance(call, ast.Call) and name_of(call.func) in _MAPS and not gathered:
                yield Use.WEIGHT
        elif isinstance(above, ast.Call):
            yield from self._argument(node, above, expanded, gathered)
        elif isinstance(above, ast.List | ast.Tuple):
            joint = self._parents.get(above)
            if isinstance(joint, ast.Call) and name_of(joint.func) in _JOIN:
                yield from [Use.TOKEN] if expanded else self.follow(joint, expanded, gathered)
            elif isinstance(joint, ast.Assign) and isinstance(joint.targets[0], ast.Tuple):
                yield from self._bound(joint.targets[0].elts[above.elts.index(node)], expanded, gathered)  # type: ignore[arg-type]
        elif isinstance(above, ast.IfExp | ast.UnaryOp) and not (isinstance(above, ast.IfExp) and above.test is node):
            yield from self.follow(above, expanded, gathered)
        elif isinstance(above, ast.Assign):
            for target in above.targets:
                yield from self._bound(target, expanded, gathered)

    def _operand(self, node: ast.AST, above: ast.BinOp, expanded: bool, gathered: bool) -> Iterator[Use]:
        other = above.left if above.right is node else above.right
        if isinstance(other, ast.Constant) or is_attribute(other):
            yield from self.follow(above, expanded, gathered)
        elif isinstance(above.op, ast.Add) and isinstance(other, ast.Call) and name_of(other.func) in _ZEROS:
            yield Use.TOKEN
        else:
            yield from _operation(above.op)

    def _expanded(self, call: ast.Call, gathered: bool) -> Iterator[Use]:
        """The uses of an expanded value, or of the operation that it directly enters."""
        above = self._parents.get(call)
        if isinstance(above, ast.BinOp):
            yield from self._operand(call, above, True, gathered)
        else:
            yield from [*self.follow(call, True, gathered)] or [Use.EXPANDED]

    def _argument(self, node: ast.AST, call: ast.Call, expanded: bool, gathered: bool) -> Iterator[Use]:
        name, place = name_of(call.func), call.args.index(node) if node in call.args else -1
        if name in _ADD or (name in _ADD_TO and place == 0) or (name in _MAPS and place == 2):
            yield Use.ADDED
        elif name in _MULTIPLY:
            yield Use.MULTIPLIED
        elif name in _MAPS and place == 1 and not gathered:
            yield Use.WEIGHT
        elif name == 'where' and place > 0:
            yield Use.TOKEN
        elif name in _EXPAND:
            yield from self._expanded(call, gathered)
        elif name in _ELEMENTWISE and place == 0:
            yield from self.follow(call, expanded or name == 'unsqueeze', gathered)

    def _bound(self, target: ast.AST, expanded: bool, gathered: bool) -> Iterator[Use]:
        if isinstance(target, ast.Subscript):
            yield Use.TOKEN
        elif isinstance(target, ast.Name):
            for load in self._loads.get(target.id, []):
                yield from self.follow(load, expanded, gathered)


def _operation(operator: ast.operator) -> list[Use]:
    if isinstance(operator, ast.Add | ast.Sub):
        return [Use.ADDED]
    return [Use.MULTIPLIED] if isinstance(operator, ast.Mult | ast.Div) else []


def _is_view(index: ast.AST) -> bool:
    """True if an index consists of slices, ``None``, ``...`` and constants."""
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    return all(isinstance(part, ast.Slice | ast.Constant | ast.UnaryOp) for part in parts)


def _adds_dimension(index: ast.AST) -> bool:
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    return any(isinstance(part, ast.Constant) and part.value is None for part in parts)


def _called(function: FunctionType, depth: int) -> set[str]:
    """Names of globals and attributes that ``function`` reads, and functions outside torch that it calls."""
    names = set(function.__code__.co_names)
    inner = [function.__globals__.get(name) for name in names] if depth else []
    own = [value for value in inner if isinstance(value, FunctionType) and not value.__module__.startswith('torch')]
    return names.union(*(_called(value, depth - 1) for value in own))


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == 'self'


def is_attribute(node: ast.AST) -> bool:
    """True if ``node`` is an attribute of ``self``."""
    return isinstance(node, ast.Attribute) and is_self(node.value)


def name_of(function: ast.AST) -> str:
    """The last part of the name of a called function, or ''."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, 'id', '')


def functions(kind: type) -> Iterator[FunctionType]:
    """Functions of ``kind`` and its bases outside torch, without constructors and methods that a subclass replaced."""
    replaced = {'__init__'}
    for base in kind.__mro__:
        if base is object or base.__module__.startswith('torch.'):
            continue
        own = {name: inspect.unwrap(value) for name, value in vars(base).items() if callable(value)}
        found = {name: value for name, value in own.items() if isinstance(value, FunctionType) and name not in replaced}
        yield from found.values()
        replaced |= {name for name, value in found.items() if 'super' not in value.__code__.co_names}


def methods(kind: type) -> Iterator[ast.AST]:
    """Syntax trees of :func:`functions`, as far as they have a source."""
    return (tree for function in functions(kind) if (tree := _tree(function)) is not None)


def reached(kind: type, name: str, seen: set[str]) -> Iterator[ast.AST]:
    """Syntax trees of the method ``name`` of ``kind`` and of the methods that it calls."""
    function = getattr(kind, name, None)
    if name in seen or not isinstance(function, FunctionType) or function.__module__.startswith('torch.'):
        return
    seen.add(name)
    tree = _tree(inspect.unwrap(function))
    if tree is not None:
        yield tree
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_self(node.value):
                yield from reached(kind, node.attr, seen)


@cache
def _tree(function: Any) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None


def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """Map each node to its parent."""
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
