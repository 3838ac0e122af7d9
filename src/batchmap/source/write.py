"""Calls, names and modules as Python text, formatted as `ruff format` would leave it."""

from __future__ import annotations

import ast
import keyword
import math
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from batchmap.errors import BadValue
from batchmap.mapping.calls import Call, Name
from batchmap.mapping.framework import Framework

WIDTH = 100
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def expression(
    call: Any, framework: Framework, *, indent: int = 0, used: int = 0, after: int = 0, width: int = WIDTH
) -> str:
    """Prints a call, or any value that may stand in one, as Python text in the idiom of a framework.

    indent: columns before the line it begins on. used: columns it already holds after them ("lstm = ").
    after: columns that follow the end (a comma, a bracket). width: a longer line is broken.
    Raises BadValue for a value that has no literal, or a name that is none.

    >>> torch = Framework("torch", "PyTorch", imports={"torch.nn.": ("from torch import nn", "nn.")})
    >>> expression(Call("torch.nn.LSTM", {"input_size": 8, "hidden_size": 64, "bias": False}), torch)
    'nn.LSTM(input_size=8, hidden_size=64, bias=False)'
    """
    return _print(_piece(call, framework), indent, indent + used, after, width)


def targets(*values: Any) -> tuple[str, ...]:
    """The dotted names that calls use, each once: what `imports` needs.

    >>> targets(Call("keras.layers.Bidirectional", {"layer": Call("keras.layers.LSTM", {"units": 4})}))
    ('keras.layers.Bidirectional', 'keras.layers.LSTM')
    """
    return tuple(dict.fromkeys(name for value in values for name in _targets(value)))


def imports(targets: Iterable[str], framework: Framework) -> tuple[str, ...]:
    """The import lines that dotted names need, sorted as isort would.

    >>> torch = Framework("torch", "PyTorch", imports={
    ...     "torch.nn.": ("from torch import nn", "nn."), "torch.": ("import torch", "torch.")})
    >>> imports(["torch.nn.LSTM", "torch.float64"], torch)
    ('import torch', 'from torch import nn')
    """
    lines = {line for target in targets for line, _, _ in [_import(target, framework)] if line}
    return tuple(line for section in _sections(lines) for line in section)


def module(docstring: str, imports: Iterable[str], blocks: Iterable[str]) -> str:
    """Joins the parts of a module with the blank lines that belong between them.

    docstring: its text, without quotes; none when empty. imports: lines in any order; doubles are merged.
    blocks: formatted pieces of code, in order; a class or a function is a block of its own.

    >>> print(module("One layer.", ["from torch import nn"], ["rnn = nn.LSTM(8, 64)", "print(rnn)"]), end="")
    \"\"\"One layer.\"\"\"
    <BLANKLINE>
    from torch import nn
    <BLANKLINE>
    rnn = nn.LSTM(8, 64)
    <BLANKLINE>
    print(rnn)
    """
    text = f"{quoted(docstring)}\n" if docstring else ""
    sections = _sections(imports)
    if sections:
        text += "\n" * bool(text) + "\n\n".join("\n".join(section) for section in sections) + "\n"
    before = ""
    for block in (block.strip("\n") for block in blocks):
        if block:
            text += ("\n\n" if _defines(block) or _defines(before) else "\n") * bool(text) + block + "\n"
            before = block
    return text


def quoted(text: str, indent: int = 0) -> str:
    """Turns a text of one or more lines into a docstring; indent: columns before it.

    >>> print(quoted("Scores tokens.\\n\\ntokens: [cases, time]."))
    \"\"\"Scores tokens.
    <BLANKLINE>
    tokens: [cases, time].
    \"\"\"
    """
    margin = " " * indent
    first, *rest = text.strip().expandtabs(4).split("\n")
    rest = textwrap.dedent("\n".join(rest)).split("\n") if rest else []
    first, *rest = (string(line.rstrip()) for line in (first, *rest))
    if not rest:
        return f'"""{first}"""'
    return "\n".join([f'"""{first}', *(margin + line if line else "" for line in rest), f'{margin}"""'])


def string(text: str) -> str:
    r"""Escapes a text so that it can stand between double quotes, single or tripled, on one line.

    >>> print(f'"{string(chr(34) + "); import os")}"')
    "\"); import os"
    """
    return _escaped(text, '"')


def literal(text: str) -> str:
    """A text as a Python string with its quotes: double ones, unless the text would need more escapes so.

    >>> print(literal("tanh"), literal('a "b"'))
    "tanh" 'a "b"'
    """
    quote = "'" if text.count('"') > text.count("'") else '"'
    return f"{quote}{_escaped(text, quote)}{quote}"


def identifier(name: str, fallback: str = "layer") -> str:
    """Turns the name of a layer into a Python identifier of plain letters.

    fallback: what stands for a name without letters, and before one that begins with a digit.

    >>> [identifier(name) for name in ("encoder/lstm-1", "class", "3rd", "__init__", "é")]
    ['encoder_lstm_1', 'class_', 'layer_3rd', 'init', 'e']
    """
    plain = "_".join(_words(name))
    if not plain or plain[0].isdigit():
        plain = f"{fallback}_{plain}".rstrip("_")
    return f"{plain}_" if keyword.iskeyword(plain) else plain


def identifiers(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Turns the names of layers into identifiers, apart from each other and from those that are taken.

    >>> identifiers(["rnn/1", "rnn-1", "forward"], taken=["forward"])
    {'rnn/1': 'rnn_1', 'rnn-1': 'rnn_1_2', 'forward': 'forward_2'}
    """
    names = list(dict.fromkeys(names))
    used = set(taken)
    found = {}
    # A name that is an identifier as it stands keeps it, whatever stands before.
    for name in sorted(names, key=lambda name: identifier(name) != name):
        plain = text = identifier(name)
        count = 1
        while text in used:
            count += 1
            text = f"{plain.rstrip('_')}_{count}"
        used.add(text)
        found[name] = text
    return {name: found[name] for name in names}


def class_name(name: str, fallback: str = "Model") -> str:
    """Turns the name of a model into the name of a class.

    >>> class_name("my model"), class_name("LSTM_tagger"), class_name("2 layers"), class_name("none")
    ('MyModel', 'LSTMTagger', 'Model2Layers', 'NoneModel')
    """
    plain = "".join(word[0].upper() + word[1:] for word in _words(name))
    if not plain or plain[0].isdigit():
        return fallback + plain
    return plain + fallback if keyword.iskeyword(plain) else plain


# A piece of text: as it stands, or an opening, (what precedes it, piece) for each part, a closing.
_Piece = str | tuple[str, list[tuple[str, Any]], str]


def _piece(value: Any, framework: Framework) -> _Piece:
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value).replace("e+", "e") if math.isfinite(value) else f'float("{float(value)}")'
    if isinstance(value, Name):
        return _short(value.text, framework)
    if isinstance(value, Call):
        return _short(value.target, framework) + "(", list(_arguments(value, framework)), ")"
    if isinstance(value, (list, tuple)):
        parts = [("", _piece(entry, framework)) for entry in value]
        if isinstance(value, list) or any(isinstance(entry, Call) for entry in value):
            return "[", parts, "]"
        return "(", parts, ")"
    raise BadValue(f"{value!r} has no Python literal", field="value", value=value)


def _arguments(call: Call, framework: Framework) -> Iterator[tuple[str, _Piece]]:
    leading = _leading(call.target, framework)
    if list(call.arguments)[: len(leading)] != list(leading):
        leading = ()
    for name, value in call.arguments.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise BadValue(f"{name!r} is no name for an argument of {call.target}", field="arguments", value=name)
        yield "" if name in leading else f"{name}=", _piece(value, framework)


def _leading(target: str, framework: Framework) -> tuple[str, ...]:
    """The arguments that are written by position."""
    for counterpart in framework.layers:
        for row in (*counterpart.wraps, counterpart.repeat):
            if row and row.target == target:
                return (row.argument,)
        if counterpart.target == target:
            return counterpart.signature[: counterpart.positional] if counterpart.positional else ()
    return ()


def _print(piece: _Piece, indent: int, column: int, after: int, width: int) -> str:
    """Lays a piece out: on one line, else the arguments of a call on a second one, else each on its own."""
    flat = _flat(piece)
    if isinstance(piece, str) or not piece[1] or column + _columns(flat) + after <= width:
        return flat
    opening, parts, closing = piece
    inner = indent + 4
    margin, called = "\n" + " " * inner, len(opening) > 1
    body = flat[len(opening) : -len(closing)]
    if called and inner + _columns(body) <= width:
        return f"{opening}{margin}{body}\n{' ' * indent}{closing}"
    # A part that stands alone carries no comma, except in a tuple.
    comma = "" if len(parts) == 1 and opening != "(" else ","
    lines = [
        f"{margin}{before}{_print(part, inner, inner + len(before), len(comma), width)}{comma}"
        for before, part in parts
    ]
    return f"{opening}{''.join(lines)}\n{' ' * indent}{closing}"


def _columns(text: str) -> int:
    """The width of a text on the screen, where some letters take two columns."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def _flat(piece: _Piece) -> str:
    if isinstance(piece, str):
        return piece
    opening, parts, closing = piece
    comma = "," if opening == "(" and len(parts) == 1 else ""
    return opening + ", ".join(before + _flat(part) for before, part in parts) + comma + closing


def _import(name: str, framework: Framework) -> tuple[str, str, str]:
    """The import line for a dotted name, the prefix it stands for, and the short one."""
    fitting = [prefix for prefix in framework.imports if name.startswith(prefix)]
    if not fitting:
        return "", "", ""
    prefix = max(fitting, key=len)
    line, short = framework.imports[prefix]
    return line, prefix, short


def _short(name: str, framework: Framework) -> str:
    if not DOTTED.fullmatch(name):
        raise BadValue(f"{name!r} is no dotted name", field="target", value=name)
    _, prefix, short = _import(name, framework)
    return short + name[len(prefix) :]


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, Name):
        yield value.text
    elif isinstance(value, Call):
        yield value.target
        for entry in value.arguments.values():
            yield from _targets(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _targets(entry)


def _sections(lines: Iterable[str]) -> list[list[str]]:
    """Import lines by origin (the language, its library, others, the package), sorted, doubles merged."""
    plain: dict[tuple[int, str, str], str] = {}
    members: dict[tuple[int, str, str], set[str]] = {}
    for line in lines:
        for node in ast.parse(line).body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    plain[_origin(alias.name), alias.name, alias.asname or ""] = f"import {_named(alias)}"
            elif isinstance(node, ast.ImportFrom):
                source = "." * node.level + (node.module or "")
                for alias in node.names:
                    alone = _named(alias) if alias.asname else ""
                    members.setdefault((_origin(source), source, alone), set()).add(_named(alias))
            else:
                raise BadValue(f"{line!r} is no import", field="imports", value=line)
    sections: dict[int, list[str]] = {}
    for (origin, _, _), text in sorted(plain.items(), key=lambda item: (_natural(item[0][1]), item[0][2])):
        sections.setdefault(origin, []).append(text)
    for (origin, source, _), names in sorted(members.items(), key=lambda item: (_natural(item[0][1]), item[0][2])):
        ordered = sorted(names, key=lambda name: (_kind(name), _natural(name)))
        text = f"from {source} import {', '.join(ordered)}"
        if len(text) > WIDTH:
            text = f"from {source} import (\n" + "".join(f"    {name},\n" for name in ordered) + ")"
        sections.setdefault(origin, []).append(text)
    return [sections[origin] for origin in sorted(sections)]


def _named(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _origin(source: str) -> int:
    root = source.partition(".")[0]
    if root == "__future__":
        return 0
    if not root:
        return 3
    return 1 if root in sys.stdlib_module_names else 2


def _kind(name: str) -> int:
    """isort's order of members: CONSTANTS, Classes, functions."""
    name = name.partition(" ")[0]
    return 0 if len(name) > 1 and name.isupper() else 1 if name[0].isupper() else 2


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts without regard to case, and digits by their number."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts], name


def _defines(block: str) -> bool:
    return bool(re.search(r"\A(?:#.*\n)*(?:@|class\s|def\s|async def\s)", block))


def _escaped(text: str, quote: str) -> str:
    # repr() escapes whatever cannot be printed; the appended quote makes it choose single quotes.
    inner = repr(str(text) + '"')[1:-2]
    if quote == "'":
        return inner
    return re.sub(r"\\.|\"", lambda found: {"\\'": "'", '"': '\\"'}.get(found[0], found[0]), inner)


def _words(name: str) -> list[str]:
    """The runs of plain letters and digits, accents taken off."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return re.findall(r"[A-Za-z0-9]+", plain)
