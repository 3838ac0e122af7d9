"""The names in Python text: where it binds them, and to what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Binding:
    """One place where a script binds a name.

    end: line and column where the binding ends. value: what to, if that can be followed. origin: the import.
    """

    end: tuple[int, int]
    value: ast.expr | None = None
    origin: str = ""


def bindings(tree: ast.Module) -> Iterator[tuple[str, Binding]]:
    """The names that a text binds, wherever and however it does."""
    followed: set[int] = set()
    for statement in tree.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name() as target], value=value)
                | ast.AnnAssign(target=ast.Name() as target, value=ast.expr() as value)
            ):
                followed.add(id(target))
                yield target.id, Binding(_end(statement), value)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    root = alias.name.partition(".")[0]
                    yield (
                        alias.asname or root,
                        Binding(_end(node), origin=alias.name if alias.asname else root),
                    )
            case ast.ImportFrom(module=source, names=names, level=level):
                for alias in names:
                    origin = f"{'.' * level}{source or ''}.{alias.name}"
                    yield alias.asname or alias.name, Binding(_end(node), origin=origin)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) if id(node) not in followed:
                yield name, Binding(_end(node))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, Binding(_end(node))
            case ast.arg(arg=name):
                yield name, Binding(_end(node))
            case ast.ExceptHandler(name=str() as name):
                yield name, Binding(_end(node))
            case (
                ast.MatchAs(name=str() as name)
                | ast.MatchStar(name=str() as name)
                | ast.MatchMapping(rest=str() as name)
            ):
                yield name, Binding(_end(node))


def _end(node: ast.stmt | ast.expr | ast.arg | ast.excepthandler | ast.pattern) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or node.col_offset


def dotted(node: ast.expr) -> str:
    """A name with its dots; nothing for any other expression."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])
