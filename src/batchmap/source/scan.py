"""Python text to a call: parsed, looked at, never executed."""

from __future__ import annotations

import ast
import operator
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from batchmap.errors import Ambiguous, BadValue, Contradiction, UnknownWord, Unsupported, near
from batchmap.mapping.calls import Call, Name
from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Ignored, Row, Values
from batchmap.source.names import Binding, bindings, dotted

EXAMPLE = 'give a call, for example "LSTM(64)"'
LONGEST = 1_000_000  # characters
MOST_LAYERS = 1_000  # in one text, once comprehensions and names are written out
END = (LONGEST, LONGEST)  # after every line and column
LARGEST = 2**64  # whole number that arithmetic may give

# Methods that put a layer into a model, or return it, without changing it.
ADDING = ("add", "add_module", "append", "register_module")
KEEPING = ("cpu", "cuda", "eval", "train")

LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def scan(text: str, framework: Framework) -> Call:
    """Reads the one layer that Python text constructs.

    text: an expression, an assignment, or a script in which one layer (with what it wraps) is constructed.
    Names come from the imports of the text, or are the framework's own. Constants may be arithmetic, and
    names that the script binds once, before. An argument that says nothing about the numbers may
    hold any name, and is left out where it holds other code.
    Raises UnknownWord for a constructor without a row, Ambiguous when there are several or a name is not set,
    Unsupported for a value that only running the text would give, BadValue for text that is no Python.

    >>> from batchmap.frameworks.torch import FRAMEWORK
    >>> scan("import torch.nn as N; lstm = N.LSTM(8, 2 * 32, bias=False)", FRAMEWORK)
    Call(target='torch.nn.LSTM', arguments={'input_size': 8, 'hidden_size': 64, 'bias': False})
    """
    if not framework.layers:
        raise Unsupported(
            f"{framework.title} has batch words only",
            "batchmap has no layers for it",
            f'give its words as a dict, for example {{"{next(iter(framework.batch)).natives[0]}": 32}}',
            framework=framework.name,
            field="layer",
        )
    try:
        return _Script(_parsed(text), framework).layer()
    except (RecursionError, MemoryError):
        raise BadValue("the text is nested too deeply to be read", field="text", value=_cut(text)) from None


@dataclass(frozen=True)
class _Constructor:
    """What a name in text constructs.

    positions: names of the arguments by position. idle: arguments that do not change the numbers.
    """

    target: str
    positions: tuple[str, ...]
    idle: frozenset[str]


# Functions of the frameworks that turn an axis round.
TURNS = frozenset({"flip", "flipud", "fliplr", "reverse", "reverse_sequence", "reverse_v2"})

# A call, what it constructs, and what stands around it.
_Candidate = tuple[ast.Call, _Constructor, ast.AST | None]


class _Script:
    def __init__(self, tree: ast.Module, framework: Framework) -> None:
        self.tree = tree
        self.framework = framework
        self.names: dict[str, list[Binding]] = {}
        self.values: dict[str, tuple[Any, int]] = {}  # what a name stands for, and how many layers that is
        self.layers = 0
        for name, binding in bindings(tree):
            self.names.setdefault(name, []).append(binding)

    def layer(self) -> Call:
        found = self.apart(list(self.candidates(self.tree, None)))
        if len(found) == 1:
            [(node, constructor, around)] = found
            if isinstance(around, ast.Call):
                raise self.unknown(dotted(around.func) or _show(around.func), around)
            if around is not None:
                raise Ambiguous(
                    f"{_show(node)} (line {node.lineno}) is constructed over and over in a loop",
                    instead="give the text of the layer alone, or of the model as a list of layers",
                    field="text",
                )
            self.check_time(node)
            return self.call(node, constructor)
        if found:
            seen = tuple(f"line {node.lineno}: {_show(node)}" for node, *_ in found)
            raise Ambiguous(
                f"the text constructs {len(found)} layers ({'; '.join(seen[:8])}{'; ...' * (len(seen) > 8)})",
                instead="give the text of one of them",
                field="text",
                candidates=seen,
            )
        called = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call) and dotted(node.func)]
        if not called:
            raise BadValue(
                f"the text constructs no layer of {self.framework.title}",
                instead=EXAMPLE,
                field="text",
                value=_show(self.tree),
            )
        names = [dotted(node.func) for node in called]
        known = self.known()
        closest = next((name for name in names if near(name.rpartition(".")[2], known)), names[0])
        raise self.unknown(closest)

    def check_time(self, layer: ast.Call) -> None:
        """Refuses a script that turns time round: what it computes is another layer than the one it constructs."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and node is not layer and dotted(node.func).rpartition(".")[2] in TURNS:
                raise Ambiguous(
                    f"{_show(node)} (line {node.lineno}) turns data round, so the layer does not say all",
                    "a script is read for the layer that it constructs, not for what is done around it",
                    "give the text of the layer alone",
                    field="text",
                    candidates=(_show(node),),
                )

    def apart(self, found: list[_Candidate]) -> list[_Candidate]:
        """The constructors whose layers no other one takes by name."""
        if len(found) < 2:
            return found
        taken = {part.id for node, *_ in found for part in ast.walk(node) if isinstance(part, ast.Name)}
        values = (self.names[name][0].value for name in taken if len(self.names.get(name, ())) == 1)
        within = {id(part) for value in values if value for part in ast.walk(value)}
        return [candidate for candidate in found if id(candidate[0]) not in within]

    def candidates(self, node: ast.AST, around: ast.AST | None) -> Iterator[_Candidate]:
        """The outermost constructors; around: what would make something else of them, a call or a loop."""
        if isinstance(node, ast.Call):
            constructor = self.constructor(node.func)
            if constructor:
                yield node, constructor, around
                return
            match node.func:
                case ast.Attribute(value=ast.Call() as layer, attr=method) if method not in KEEPING:
                    if self.constructor(layer.func):
                        raise self.refused(node, f"{method} may change the layer", "give the text of the layer alone")
            # A layer that is called with data, layer(...)(x), is not handed on.
            yield from self.candidates(node.func, None if isinstance(around, ast.Call) else around)
            added = isinstance(node.func, ast.Attribute) and node.func.attr in ADDING
            for child in (*node.args, *node.keywords):
                yield from self.candidates(child, around if added else node)
            return
        if isinstance(node, LOOPS):
            around = node
        for child in ast.iter_child_nodes(node):
            yield from self.candidates(child, around)

    def count(self, layers: int) -> None:
        """Adds to the layers that the text makes: names and comprehensions make many of few characters."""
        self.layers += layers
        if self.layers > MOST_LAYERS:
            raise BadValue(f"the text constructs more than {MOST_LAYERS} layers", field="text", value=self.layers)

    def call(self, node: ast.Call, constructor: _Constructor) -> Call:
        self.count(1)
        arguments: dict[str, Any] = {}
        positions, line = constructor.positions, node.lineno
        if any(isinstance(entry, ast.Starred) for entry in node.args) or any(not entry.arg for entry in node.keywords):
            raise Unsupported(
                f"{_show(node)} (line {line}) hides arguments behind a star",
                "what they are is known only when the text runs",
                "write them out",
                framework=self.framework.name,
                field="arguments",
                value=_show(node),
            )
        if len(node.args) > len(positions):
            takes = f"{len(positions)} of them ({', '.join(positions)})" if positions else "none"
            raise BadValue(
                f"{constructor.target} is given {len(node.args)} arguments by position on line {line}, "
                f"and batchmap reads {takes}",
                instead="give the others by name",
                field="arguments",
                value=_show(node),
            )
        given = [
            *zip(positions, node.args, strict=False),
            *((entry.arg or "", entry.value) for entry in node.keywords),
        ]
        for name, value in given:
            if name in arguments:
                raise Contradiction(f"{constructor.target} is given {name} twice on line {line}", field=name)
            try:
                arguments[name] = self.value(value)
            except (Ambiguous, Unsupported, UnknownWord):
                if name not in constructor.idle:
                    raise
                if written := dotted(value):
                    arguments[name] = Name(written)
        return Call(constructor.target, arguments)

    def value(self, node: ast.expr) -> Any:
        """What an expression stands for: a constant, a layer, a name of the framework, or a list of those."""
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                number = self.number(operand)
                return -number if isinstance(node.op, ast.USub) else number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return self.arithmetic(node, op, self.number(left), self.number(right))
            case ast.List() | ast.Tuple():
                return self.sequence(node)
            case ast.ListComp():
                return self.repeated(node)
            case ast.Name() | ast.Attribute():
                return self.named(node)
            case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str() as word)], keywords=[]):
                if word in ("inf", "-inf", "nan"):
                    return float(word)
            case ast.Call() if constructor := self.constructor(node.func):
                return self.call(node, constructor)
            case ast.Call() if name := dotted(node.func):
                raise self.unknown(name, node)
        raise self.refused(node)

    def number(self, node: ast.expr) -> int | float:
        value = self.value(node)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refused(node, "only numbers are reckoned with")
        return value

    def arithmetic(self, node: ast.expr, op: ast.operator, left: int | float, right: int | float) -> int | float:
        if isinstance(op, ast.Pow) and not (abs(left) <= 2**16 and abs(right) <= 64):
            raise self.refused(node, "the power may be too large")
        try:
            value = ARITHMETIC[type(op)](left, right)
        except ArithmeticError as error:
            raise self.refused(node, str(error)) from None
        if not isinstance(value, (int, float)) or (isinstance(value, int) and abs(value) > LARGEST):
            raise self.refused(node, "the result is no ordinary number")
        return value

    def sequence(self, node: ast.List | ast.Tuple) -> Any:
        entries = []
        for entry in node.elts:
            value = self.value(entry)
            if isinstance(entry, ast.Name) and isinstance(value, (list, tuple)):
                raise self.refused(entry, "it is a sequence within a sequence")
            entries.append(value)
        layers = any(isinstance(entry, Call) for entry in entries)
        return tuple(entries) if layers or isinstance(node, ast.Tuple) else entries

    def repeated(self, node: ast.ListComp) -> tuple[Call, ...]:
        """`[Cell(64) for _ in range(2)]`, as equal calls."""
        match node:
            case ast.ListComp(
                elt=ast.Call() as layer,
                generators=[
                    ast.comprehension(
                        target=ast.Name(id=counter),
                        iter=ast.Call(func=ast.Name(id="range"), args=[count], keywords=[]),
                        ifs=[],
                        is_async=0,
                    )
                ],
            ) if "range" not in self.names and self.constructor(layer.func):
                times, before = self.value(count), self.layers
                if any(isinstance(part, ast.Name) and part.id == counter for part in ast.walk(layer)):
                    raise self.refused(node, f"the layers differ by {counter}")
                if isinstance(times, bool) or not isinstance(times, int) or times < 1:
                    raise self.refused(node, "it must make at least one layer")
                call = self.value(layer)
                self.count((self.layers - before) * (times - 1))
                return (call,) * times
        raise self.refused(node, "only [Layer(...) for _ in range(n)] is read")

    def named(self, node: ast.Name | ast.Attribute) -> Any:
        """The constant that the script binds a name to, or the name itself where it is the framework's."""
        name = dotted(node)
        if not name:
            raise self.refused(node)
        if name in self.values:
            value, layers = self.values[name]
            self.count(layers)
            return value
        root, _, rest = name.partition(".")
        bindings = self.names.get(root, [])
        if all(binding.value is None and not binding.origin for binding in bindings) and self.own(Name(name)):
            return Name(name)
        if not bindings:
            full = self.canonical(name)
            if rest and any(full.startswith(prefix) for prefix in self.framework.imports):
                return Name(full)
            if rest:
                raise self.refused(node)
            raise Ambiguous(
                f"{name} (line {node.lineno}) is not set in the text", instead="write its value", field="text"
            )
        origins = set(self.origins(name))
        if len(origins) == 1 and (origin := origins.pop()):
            return Name(origin)
        [binding, *others] = bindings
        if others:
            lines = ", ".join(str(binding.end[0]) for binding in bindings)
            raise Ambiguous(
                f"{name} (line {node.lineno}) is bound more than once, on lines {lines}",
                instead="write its value",
                field="text",
            )
        if rest or binding.value is None or binding.end > (node.lineno, node.col_offset):
            raise self.refused(node)
        before = self.layers
        value = self.value(binding.value)
        self.values[name] = value, self.layers - before
        return value

    def own(self, name: Name) -> bool:
        """Whether the framework's rows write a name bare: that of a function that stands beside the layer."""
        rows = (row for counterpart in self.framework.layers for row in counterpart.rows)
        return any(isinstance(row, Values) and name in row.pairs.values() for row in rows)

    def constructor(self, node: ast.expr) -> _Constructor | None:
        """What a call of this expression constructs; None where batchmap knows nothing of the kind."""
        name = dotted(node)
        if not name:
            return None
        if name.partition(".")[0] not in self.names:
            return _constructor(self.canonical(name), self.framework, whole=False)
        found = {_constructor(origin, self.framework, whole=True) if origin else None for origin in self.origins(name)}
        if len(found) > 1:
            raise Ambiguous(
                f"{name} (line {node.lineno}) is bound more than once, and not always to the same",
                instead="give the text of the one call",
                field="text",
            )
        return found.pop()

    def origins(self, name: str, before: tuple[int, int] = END) -> Iterator[str]:
        """The full names that imports and assignments give a dotted one; "" for a binding that gives none."""
        root, dot, rest = name.partition(".")
        for binding in self.names.get(root, ()):
            followed = binding.value is not None and dotted(binding.value)
            if binding.origin:
                yield self.canonical(binding.origin + dot + rest)
            elif followed and binding.end < before:
                inner = followed.partition(".")[0]
                if inner in self.names:
                    yield from self.origins(followed + dot + rest, binding.end)
                else:
                    full = self.canonical(followed + dot + rest)
                    yield full if any(full.startswith(prefix) for prefix in self.framework.imports) else ""
            else:
                yield ""

    def canonical(self, name: str) -> str:
        """A dotted name as the framework's tables spell it."""
        for prefix, (line, short) in sorted(self.framework.imports.items(), key=lambda item: -len(item[0])):
            for real in _meant(line, short):
                if name.startswith(real):
                    return prefix + name[len(real) :]
        return name

    def known(self) -> tuple[str, ...]:
        rows = [row for c in self.framework.layers for row in (c, *c.wraps, c.repeat) if row]
        return tuple(dict.fromkeys(row.target.rpartition(".")[2] for row in rows))

    def unknown(self, name: str, node: ast.expr | None = None) -> UnknownWord:
        """The error for a constructor without a row."""
        name = next(iter(self.origins(name)), "") or name
        last, known = name.rpartition(".")[2], self.known()
        where = f" (line {node.lineno})" if node else ""
        what = f'"{name}"{where} is no layer that batchmap knows in {self.framework.title}'
        if last in known:
            instead = f"name the framework that it belongs to, or use the {last} of {self.framework.title}"
            return UnknownWord(what, instead=instead, word=name, near=(last,))
        close = near(last, known)
        what += f". Did you mean {' or '.join(close)}?" if close else ""
        return UnknownWord(what, instead=f"one of {', '.join(known)}", word=name, near=close)

    def refused(
        self,
        node: ast.AST,
        because: str = "only running the text would tell",
        instead: str = "write a constant",
    ) -> Unsupported:
        return Unsupported(
            f"{_show(node)} (line {getattr(node, 'lineno', 1)}) cannot be read",
            because,
            instead,
            framework=self.framework.name,
            field="text",
            value=_show(node),
        )


def _parsed(text: str) -> ast.Module:
    if not isinstance(text, str):
        raise BadValue(f"source text must be a string, not {type(text).__name__}", field="text", value=text)
    if len(text) > LONGEST:
        raise BadValue(f"the text has {len(text)} characters, and {LONGEST} are read", field="text", value=_cut(text))
    if not text.strip():
        raise BadValue("the text is empty", instead=EXAMPLE, field="text", value=text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return ast.parse(textwrap.dedent(text).rstrip())
    except SyntaxError as error:
        line = f" (line {error.lineno})" if error.lineno else ""
        what = f"the text is no Python: {error.msg}{line}"
        raise BadValue(what, instead=EXAMPLE, field="text", value=_cut(text)) from None
    except ValueError as error:
        raise BadValue(f"the text is no Python: {error}", "", EXAMPLE, field="text", value=_cut(text)) from None


def _constructor(name: str, framework: Framework, whole: bool) -> _Constructor | None:
    """Finds a constructor by its dotted name; whole: the end of the name is not enough."""
    partly: _Constructor | None = None
    for counterpart in framework.layers:
        packages = ["", *_packages(counterpart.target, counterpart.aliases)]
        for row in (*counterpart.wraps, counterpart.repeat, counterpart):
            if not row:
                continue
            spelled = [
                package + target for target in (row.target, *getattr(row, "aliases", ())) for package in packages
            ]
            if name in spelled:
                return _described(row)
            if not whole and not partly and any(full.endswith("." + name) for full in spelled):
                partly = _described(row)
    return partly


def _packages(target: str, aliases: Sequence[str]) -> Iterator[str]:
    """What stands before the whole target in other names of it: "tf." in tf.keras.layers.LSTM."""
    return (alias.removesuffix(target) for alias in aliases if alias.endswith("." + target))


def _described(row: Any) -> _Constructor:
    argument = getattr(row, "argument", None)
    rows: tuple[Row, ...] = getattr(row, "rows", ())
    idle = frozenset(name for row in rows if isinstance(row, Ignored) for name in row.names)
    leading = () if argument is None else (argument,)
    return _Constructor(row.target, (*leading, *_positions(rows)), idle)


def _positions(rows: Sequence[Row]) -> tuple[str, ...]:
    """The arguments in the order of the signature, up to the first row of several: it promises no order."""
    positions: list[str] = []
    for row in rows:
        if row.in_version("") and row.natives:
            if len(row.natives) > 1:
                break
            positions += row.natives
    return tuple(dict.fromkeys(positions))


@cache
def _meant(line: str, short: str) -> tuple[str, ...]:
    """The prefixes that stand for a short one: itself, and what the import line makes it.

    >>> _meant("import tensorflow as tf", "tf."), _meant("from torch import nn", "nn.")
    (('tensorflow.', 'tf.'), ('torch.nn.', 'nn.'))
    """
    for name, binding in bindings(ast.parse(line)):
        if (short + ".").startswith(name + "."):
            real = binding.origin + short[len(name) :]
            return (real, short) if real != short else (short,)
    return (short,) if short else ()


def _show(node: ast.AST) -> str:
    return _cut(ast.unparse(node))


def _cut(text: str) -> str:
    line = re.sub(r"\s+", " ", text[:1000]).strip()
    return line if len(line) <= 60 else line[:57] + "..."
