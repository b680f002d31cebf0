"""The source of a class: its methods, parsed."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from types import FunctionType
from typing import Any


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == 'self'


def is_attribute(node: ast.AST) -> bool:
    """Whether ``node`` is an attribute of ``self``."""
    return isinstance(node, ast.Attribute) and is_self(node.value)


def name_of(function: ast.AST) -> str:
    """The last part of the name of what is called, empty if it has none."""
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, 'id', '')


def functions(kind: type) -> Iterator[FunctionType]:
    """Functions of ``kind`` and its bases below torch, but for constructors and what a subclass replaced altogether."""
    replaced = {'__init__'}
    for base in kind.__mro__:
        if base is object or base.__module__.startswith('torch.'):
            continue
        own = {name: inspect.unwrap(value) for name, value in vars(base).items() if callable(value)}
        found = {name: value for name, value in own.items() if isinstance(value, FunctionType) and name not in replaced}
        yield from found.values()
        replaced |= {name for name, value in found.items() if 'super' not in value.__code__.co_names}


def methods(kind: type) -> Iterator[ast.AST]:
    """:func:`functions` as trees, as far as they have a source."""
    return (tree for function in functions(kind) if (tree := _tree(function)) is not None)


def reached(kind: type, name: str, seen: set[str]) -> Iterator[ast.AST]:
    """The method of ``kind`` called ``name`` and those that it calls."""
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
    """Node to the node around it."""
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
