"""Calls to Python text and back: the inverse property, the formatting, and text that must be refused."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchmap.errors import Ambiguous, BadValue, BatchmapError, Contradiction, UnknownWord, Unsupported
from batchmap.frameworks import get
from batchmap.mapping.calls import Call, Name
from batchmap.mapping.conversion import choose, lift, lower
from batchmap.mapping.framework import Framework
from batchmap.source import write
from batchmap.source.scan import scan
from batchmap.source.write import (
    class_name,
    expression,
    identifier,
    identifiers,
    imports,
    module,
    quoted,
    targets,
)
from batchmap.spec.layers import LSTM, RNN, Layer
from strategies import DENSES, EMBEDDINGS, GRUS, LSTMS, RNNS, layers

SPOKEN = [name for name in ("keras", "torch", "tensorflow") if find_spec(f"batchmap.frameworks.{name}.layers")]
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))
KERAS, TORCH = get("keras"), get("torch")


def k(**words: Any) -> Call:
    return Call("keras.layers.LSTM", words)


def t(**words: Any) -> Call:
    return Call("torch.nn.LSTM", words)


# ---- there and back


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "Embedding", "Dense"])
@pytest.mark.parametrize("name", SPOKEN)
def test_text_of_a_layer_reads_back_as_the_layer(name: str, kind: str) -> None:
    framework = get(name)
    strategy = {"LSTM": LSTMS, "GRU": GRUS, "RNN": RNNS, "Embedding": EMBEDDINGS, "Dense": DENSES}[kind]
    held: Counter[bool] = Counter()

    @settings(QUIET, max_examples=150, derandomize=True, database=None)
    @given(strategy)
    def there_and_back(layer: Layer) -> None:
        try:
            counterpart, lowered = choose(layer, framework)
        except Unsupported:
            held[False] += 1
            return
        held[True] += 1
        text = expression(lowered.call, framework)
        assert repr(scan(text, framework)) == repr(lowered.call)
        assert repr(scan(f"layer = {text}", framework)) == repr(lowered.call)
        folded = replace(layer, **{fold.word: 0.0 for fold in counterpart.folds})  # type: ignore[type-var]
        assert lift(scan(text, framework), framework, known=lowered.left_out) == folded

    there_and_back()
    if any(kind == counterpart.kind.__name__ for counterpart in framework.layers):
        assert held[True] > 0.02 * held.total(), "nearly every generated layer was refused"


# Nobody agrees on how wide the rarer letters are.
LETTERS = st.characters(max_codepoint=0x17F) | st.sampled_from("語ー\u0301\u2028")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(LETTERS, max_size=30)
    | st.sampled_from([Name("torch.float64"), Name("torch.nn.functional.relu")]),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=8,
)
CALLS = st.recursive(
    st.builds(
        lambda target, words: Call(target, words),
        st.sampled_from(["torch.nn.LSTM", "torch.nn.Linear", "torch.nn.Embedding"]),
        st.dictionaries(st.sampled_from(["input_size", "hidden_size", "num_layers", "a", "match", "x" * 40]), VALUES),
    ),
    lambda inner: st.builds(
        lambda entries, words: Call("torch.nn.LSTM", {**words, "layers": tuple(entries)}),
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b" * 30]), VALUES | inner, max_size=3),
    ),
    max_leaves=5,
)


@QUIET
@given(CALLS)
def test_any_call_reads_back(call: Call) -> None:
    assert repr(scan(expression(call, TORCH, indent=8), TORCH)) == repr(call)


# ---- formatting


def formatted(text: str) -> str:
    run = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--isolated",
        "--line-length=100",
        "--target-version=py311",
        "-",
    ]
    return subprocess.run(run, input=text, capture_output=True, text=True, check=True).stdout


def sorted_imports(text: str) -> str:
    run = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--line-length=100",
        "--select=I,RUF022",
        "--fix",
        "-",
    ]
    return subprocess.run(run, input=text, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", SPOKEN)
def test_expressions_stand_as_ruff_would_set_them(name: str) -> None:
    framework = get(name)
    collected: list[Call] = []

    @settings(QUIET, max_examples=150, derandomize=True, database=None)
    @given(st.one_of(layers(), RNNS, LSTMS, GRUS))
    def collect(layer: Layer) -> None:
        with suppress(Unsupported):
            collected.append(lower(layer, framework).call)

    collect()
    same_when_formatted(collected, framework)


def test_any_expression_stands_as_ruff_would_set_it() -> None:
    collected: list[Call] = []

    @settings(QUIET, max_examples=150, derandomize=True, database=None)
    @given(CALLS)
    def collect(call: Call) -> None:
        collected.append(call)

    collect()
    same_when_formatted(collected, TORCH)


def same_when_formatted(calls: list[Call], framework: Framework) -> None:
    """Compares in one run of ruff, at several depths; the flat text must become ours too."""
    ours, flat = [], []
    for number, call in enumerate(calls):
        depth, name = number % 4, "x" * (1 + number % 17)
        head = "".join(f"{'    ' * level}if {name}:\n" for level in range(depth)) + "    " * depth + f"{name} = "
        ours.append(head + expression(call, framework, indent=4 * depth, used=len(name) + 3))
        flat.append(head + expression(call, framework, width=10**9))
    assert any("\n    " in text for text in ours)
    text = "\n".join(ours) + "\n"
    assert formatted(text) == text
    assert formatted("\n".join(flat) + "\n") == text


def test_modules_stand_as_ruff_would_set_them() -> None:
    lines = [
        "from torch import nn",
        "import torch",
        "from torch import Tensor",
        "from pathlib import Path",
        "import torch.nn.functional as F",
        "from safetensors.torch import load_file",
        "import torch",
        "from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence",
        "from torch.nn.utils.rnn import unpad_sequence, PackedSequence",
        "from . import cells",
        "from __future__ import annotations",
        "import os",
        "from os import path as p, PathLike, O_RDONLY",
    ]
    blocks = [
        "HERE = Path(__file__).parent",
        f"class Net(nn.Module):\n    {quoted('Reads words.', 4)}",
        "@torch.no_grad()\ndef load() -> Net:\n    return Net()\n",
        "net = load()",
        "print(net)",
    ]
    for title in ("One line.", 'Two "lines".\n\n  of them \\ """.', 'ends with "'):
        for some in (lines, lines[:2], []):
            for start in (0, 1, len(blocks) - 1):
                text = module(title, some, blocks[start:])
                assert formatted(text) == text
                assert sorted_imports(text) == text
                ast.parse(text)
    assert module("", [], ["a = 1", "", "b = 2"]) == "a = 1\n\nb = 2\n"


def test_long_calls_are_broken_like_this() -> None:
    call = lower(LSTM(features=3, units=4, layers=2, direction="both", recurrent_dropout=0.25), KERAS).call
    assert f"model = {expression(call, KERAS, used=8)}" == (
        "model = keras.Sequential(\n"
        "    [\n"
        "        layers.Bidirectional(layers.LSTM(4, recurrent_dropout=0.25, return_sequences=True)),\n"
        "        layers.Bidirectional(layers.LSTM(4, recurrent_dropout=0.25, return_sequences=True)),\n"
        "    ]\n"
        ")"
    )
    words = {"input_size": 8, "hidden_size": 64, **{f"option_{n}": 0.25 for n in range(6)}}
    assert expression(t(**words), TORCH).count("\n") == 2
    assert expression(t(**words), TORCH, width=60).endswith("    option_5=0.25,\n)")


def test_imports_are_those_that_a_call_needs() -> None:
    call = lower(LSTM(features=3, units=4, dtype="float64"), TORCH).call
    assert targets(call) == ("torch.nn.LSTM", "torch.float64")
    assert imports(targets(call), TORCH) == ("import torch", "from torch import nn")
    stack = lower(RNN(features=3, units=4, layers=2), KERAS).call
    assert imports(targets(stack), KERAS) == ("import keras", "from keras import layers")


# ---- names and strings that nothing breaks out of

HOSTILE = [
    'x"); import os',
    "a\nb",
    "\\",
    '"""',
    '\\"""',
    "'",
    "\x00\u2028\ud800",
    "{x}",
    "é\r\n\t",
    'ends with "',
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_strings_hold_what_they_are_given(text: str) -> None:
    assert ast.literal_eval(f'"{write.string(text)}"') == text
    assert ast.literal_eval(f'"""{write.string(text)}"""') == text
    assert ast.literal_eval(write.literal(text)) == text
    tree = ast.parse(f"def f():\n    {quoted(text, 4)}\n")
    [statement] = tree.body
    assert isinstance(statement, ast.FunctionDef) and len(statement.body) == 1
    assert ast.get_docstring(statement) is not None
    assert scan(expression(t(input_size=text), TORCH), TORCH) == t(input_size=text)


@QUIET
@given(st.text())
def test_any_name_becomes_an_identifier(text: str) -> None:
    for name in (identifier(text), class_name(text)):
        assert name.isidentifier() and name.isascii()
        ast.parse(f"{name} = 1")
    assert ast.literal_eval(f'"{write.string(text)}"') == text


@QUIET
@given(st.lists(st.text(alphabet="aB_1-/é ", max_size=4)), st.lists(st.sampled_from(["a", "a_2", "layer", "B"])))
def test_identifiers_are_distinct(names: list[str], taken: list[str]) -> None:
    found = identifiers(names, taken)
    assert set(found) == set(names)
    assert len(set(found.values())) == len(found)
    assert not set(found.values()) & set(taken)
    assert all(found[name] == name for name in names if identifier(name) == name and name not in taken)


@pytest.mark.parametrize(
    "call",
    [
        Call("nn.LSTM(); import os", {}),
        Call("torch.nn.LSTM", {"x=1); import os; y": 2}),
        Call("torch.nn.LSTM", {"class": 2}),
        Call("torch.nn.LSTM", {"dtype": Name("__import__('os')")}),
        Call("torch.nn.LSTM", {"x": object()}),
        Call("torch.nn.LSTM", {"x": b"bytes"}),
    ],
)
def test_what_is_no_name_or_literal_is_not_written(call: Call) -> None:
    with pytest.raises(BadValue):
        expression(call, TORCH)


# ---- text that is read


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("LSTM(64, return_sequences=True)", k(units=64, return_sequences=True)),
        ("  layers.LSTM(64)\n", k(units=64)),
        ("keras.layers.LSTM(units=64)", k(units=64)),
        ("tf.keras.layers.LSTM(64)", k(units=64)),
        ("import tensorflow as tf\ntf.keras.layers.LSTM(64)", k(units=64)),
        ("from tensorflow.keras.layers import LSTM\nLSTM(64)", k(units=64)),
        ("from tensorflow import keras as K\nx = K.layers.LSTM(64)", k(units=64)),
        ("import keras.layers\nx = keras.layers.LSTM(64)", k(units=64)),
        ("from keras.layers import LSTM as L\nL(64)", k(units=64)),
        ("from keras.layers import *\nLSTM(64)", k(units=64)),
        ("try:\n    from keras import layers\nexcept ImportError:\n    from tensorflow.keras import layers\n"
         "x = layers.LSTM(64)", k(units=64)),
        ('LSTM(64, "tanh", "sigmoid", False)', k(units=64, activation="tanh", recurrent_activation="sigmoid",
                                               use_bias=False)),
        ("LSTM(64, dropout=1/6)", k(units=64, dropout=1 / 6)),
        ("LSTM(2 ** 5 + 3 * 4 - 7 // 2 % 2)", k(units=43)),
        ("LSTM(-1, +2, a=-1.5e-3)", k(units=-1, activation=2, a=-1.5e-3)),
        ("LSTM(64, a=None, b=(1, 2), c=[1, 'x'], d=float('inf'))",
         k(units=64, a=None, b=(1, 2), c=[1, "x"], d=float("inf"))),
        ("UNITS: int = 32\nboth = 2 * UNITS\nlstm = LSTM(both)", k(units=64)),
        ("LSTM(64, kernel_regularizer=l2(0.01), seed=seeds[0])", k(units=64)),
        ("LSTM(64)(x)", k(units=64)),
        ("model = make()\nmodel.add(LSTM(64))", k(units=64)),
        ("import tensorflow as tf\nLSTM(64, activation=tf.nn.tanh)",
         Call("keras.layers.LSTM", {"units": 64, "activation": Name("tf.nn.tanh")})),
        ('keras.layers.Bidirectional(layers.LSTM(6), merge_mode="sum")',
         Call("keras.layers.Bidirectional", {"layer": k(units=6), "merge_mode": "sum"})),
        ("Bidirectional(LSTM(6), None)",
         Call("keras.layers.Bidirectional", {"layer": k(units=6), "merge_mode": None})),
        ("cell = layers.LSTM(6)\nboth = layers.Bidirectional(cell)",
         Call("keras.layers.Bidirectional", {"layer": k(units=6)})),
        ("cells = [LSTM(3) for _ in range(2)]\nmodel = Sequential(cells)",
         Call("keras.Sequential", {"layers": (k(units=3), k(units=3))})),
        ("TimeDistributed(Dense(3))",
         Call("keras.layers.TimeDistributed", {"layer": Call("keras.layers.Dense", {"units": 3})})),
        ("from keras.models import Sequential\nfrom keras.layers import LSTM\nSequential([LSTM(3), LSTM(3)])",
         Call("keras.Sequential", {"layers": (k(units=3), k(units=3))})),
        ("N = 2\nSequential([LSTM(3) for _ in range(N)])",
         Call("keras.Sequential", {"layers": (k(units=3),) * 2})),
    ],
)  # fmt: skip
def test_keras_text_is_read(text: str, call: Call) -> None:
    assert repr(scan(text, KERAS)) == repr(call)


NET = '''
"""A module."""

import torch as th
from torch import nn as N

HIDDEN = 64


class Net(N.Module):
    """One layer and what it is called with."""

    def __init__(self, features=8):
        super().__init__()
        self.lstm = N.LSTM(8, HIDDEN, 2, dtype=th.float64)

    def forward(self, x):
        out, (h, c) = self.lstm(x)
        return th.relu(out[:, -1])


if __name__ == "__main__":
    print(Net())
'''


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("nn.LSTM(8, 64)", t(input_size=8, hidden_size=64)),
        ("import torch.nn as N\nlstm = N.LSTM(8, 64)", t(input_size=8, hidden_size=64)),
        ("import torch\nM = torch.nn\nL = M.LSTM\nx = L(8, 64)", t(input_size=8, hidden_size=64)),
        ("nn.LSTM(8, 64, device=torch.device('cpu'))", t(input_size=8, hidden_size=64)),
        ("nn.LSTM(8, 64, device=cpu)", t(input_size=8, hidden_size=64, device=Name("cpu"))),
        ("nn.LSTM(8, 64).eval()", t(input_size=8, hidden_size=64)),
        ("out, _ = nn.LSTM(8, 64)(torch.zeros(3, 4, 8))", t(input_size=8, hidden_size=64)),
        ("from torch import float64 as d\nnn.LSTM(8, 64, dtype=d)",
         t(input_size=8, hidden_size=64, dtype=Name("torch.float64"))),
        (NET, t(input_size=8, hidden_size=64, num_layers=2, dtype=Name("torch.float64"))),
    ],
)  # fmt: skip
def test_torch_text_is_read(text: str, call: Call) -> None:
    assert repr(scan(text, TORCH)) == repr(call)


# ---- text that is refused


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", BadValue, "empty"),
        (" \n ", BadValue, "empty"),
        ("64", BadValue, "constructs no layer"),
        ("units=64, a=2", BadValue, "no Python"),
        ("LSTM(64", BadValue, "line 1"),
        ("x\0", BadValue, "null bytes"),
        ("LTSM(64)", UnknownWord, "Did you mean LSTM"),
        ("nn.LSTM(8, 64)", UnknownWord, "nn.LSTM"),
        ("import torch.nn as keras\nkeras.LSTM(8, 64)", UnknownWord, "torch.nn.LSTM"),
        ("class LSTM: ...\nLSTM(64)", UnknownWord, "LSTM"),
        ("import tensorflow as tf\ntf.compat.v1.keras.layers.LSTM(64)", UnknownWord, "tf.compat.v1"),
        ("tf.compat.v1.keras.layers.LSTM(64)", UnknownWord, "tf.compat.v1"),
        ("from keras.layers import LSTM\ndef LSTM(n): ...\nLSTM(64)", Ambiguous, "more than once"),
        ("Bidirectinal(LSTM(5))", UnknownWord, "Did you mean Bidirectional"),
        ("wrap()(LSTM(5))", UnknownWord, "wrap()"),
        ("LSTM(64).build(x)", Unsupported, "build may change"),
        ("LSTM(64)\n\nGRU(3)", Ambiguous, "line 1: LSTM(64); line 3: GRU(3)"),
        ("for n in range(3):\n    model.add(LSTM(64))", Ambiguous, "in a loop"),
        ("for n in range(3):\n    x = LSTM(64)(x)", Ambiguous, "in a loop"),
        ("[LSTM(64) for _ in range(3)]", Ambiguous, "in a loop"),
        ("LSTM(64, **words)", Unsupported, "star"),
        ("LSTM(*words)", Unsupported, "star"),
        ("LSTM(64, units=3)", Contradiction, "units twice"),
        ("LSTM(units=64, units=3)", Contradiction, "units twice"),
        ("LSTM(1, 2, 3, True, 5)", BadValue, "units, activation, recurrent_activation, use_bias"),
        ("LSTM(units)", Ambiguous, "units (line 1) is not set"),
        ("x = 1\nLSTM(\n  hp.units)", Unsupported, "hp.units (line 3)"),
        ("LSTM(self.units)", Unsupported, "self.units"),
        ("LSTM(f'{1}')", Unsupported, "f'{1}'"),
        ("LSTM(lambda: 3)", Unsupported, "lambda: 3"),
        ("LSTM(int('3'))", UnknownWord, "int"),
        ("LSTM(sizes[0])", Unsupported, "sizes[0]"),
        ("LSTM({'a': 1})", Unsupported, "{'a': 1}"),
        ("LSTM(b'x')", Unsupported, "b'x'"),
        ("LSTM(1j)", Unsupported, "1j"),
        ("LSTM(3 if x else 4)", Unsupported, "3 if x else 4"),
        ("LSTM(not True)", Unsupported, "not True"),
        ("LSTM(True + 1)", Unsupported, "only numbers"),
        ("LSTM('a' * 10 ** 9)", Unsupported, "only numbers"),
        ("LSTM(1 / 0)", Unsupported, "division by zero"),
        ("LSTM(10 ** 10 ** 10)", Unsupported, "too large"),
        ("LSTM(2 ** 60 * 2 ** 60)", Unsupported, "no ordinary number"),
        ("LSTM((-8) ** 0.5)", Unsupported, "no ordinary number"),
        ("LSTM(n)\nn = 64", Unsupported, "n (line 1)"),
        ("n = n\nLSTM(n)", Unsupported, "n (line 1)"),
        ("a = b\nb = a\nLSTM(b)", Unsupported, "b (line 1)"),
        ("n = 1\nn = 2\nLSTM(n)", Ambiguous, "lines 1, 2"),
        ("n = 1\nfor n in x: ...\nLSTM(n)", Ambiguous, "more than once"),
        ("n = 1\ndef f(n):\n    return LSTM(n)", Ambiguous, "more than once"),
        ("if gpu:\n    n = 1\nLSTM(n)", Unsupported, "n (line 3)"),
        ("Sequential([LSTM(n) for n in range(3)])", Unsupported, "differ by n"),
        ("Sequential([LSTM(3) for n in sizes])", Unsupported, "for _ in range(n)"),
        ("Sequential([LSTM(3) for n in range(10 ** 9)])", BadValue, "1000 layers"),
        ("Sequential([Sequential([LSTM(3) for n in range(99)]) for m in range(99)])", BadValue, "1000"),
        ("a = (1, 2)\nb = (a, a)\nLSTM(b)", Unsupported, "sequence within"),
        ("a = LSTM(3)\n" + "".join(f"{y} = Sequential([{x}, {x}])\n" for x, y in pairwise("abcdefghijklmn")),
         BadValue, "1000 layers"),
        ("cell = LSTM(3)\ncell = Bidirectional(cell)", Ambiguous, "constructs 2 layers"),
        ("cell = LSTM(3)\nDense(3)(cell(x))", Ambiguous, "constructs 2 layers"),
        ("LSTM(" * 250 + "3" + ")" * 250, BadValue, "nested"),
        ("LSTM(" + "-" * 100_000 + "1)", BadValue, "deeply"),
        ("LSTM(" + "1+" * 100_000 + "1)", BadValue, "deeply"),
        ("LSTM(a" + ".a" * 100_000 + ")", BadValue, "deeply"),
        ("#" * 1_000_001, BadValue, "1000001 characters"),
        (64, BadValue, "int"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_other_text_is_refused(text: Any, error: type[BatchmapError], says: str) -> None:
    with pytest.raises(error) as caught:
        scan(text, KERAS)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 700


@QUIET
@given(st.text(alphabet="LSTM(64)[]=,.*'\"\n _forinange+-/", max_size=40))
def test_no_text_gives_another_error(text: str) -> None:
    with suppress(BatchmapError):
        scan(text, KERAS)


def test_nothing_is_executed(tmp_path: Path) -> None:
    made = tmp_path / "made"
    text = f"open({str(made)!r}, 'w')\nraise SystemExit\nimport no_such_module\nx = LSTM(64)"
    assert scan(text, KERAS) == k(units=64)
    with pytest.raises(UnknownWord):
        scan(f"LSTM(open({str(made)!r}, 'w'))", KERAS)
    assert not made.exists()


# ---- positions


@pytest.mark.needs
@pytest.mark.parametrize("name", ["keras", "torch"])
def test_positions_mean_what_they_mean_in_the_framework(name: str) -> None:
    library = import_module(name)
    constructors = library.layers if name == "keras" else library.nn
    framework = get(name)
    for counterpart in framework.layers:
        last = counterpart.target.rpartition(".")[2]
        kind = getattr(constructors, last)
        if name == "torch" and issubclass(kind, library.nn.RNNBase):
            real = [*inspect.signature(library.nn.RNNBase).parameters][1:]
            if last == "RNN":  # which takes one more, in the fourth place, and no proj_size
                real.insert(3, "nonlinearity")
            if last != "LSTM":
                real.remove("proj_size")
        else:
            parameters = inspect.signature(kind).parameters.values()
            real = [entry.name for entry in parameters if entry.kind is entry.POSITIONAL_OR_KEYWORD]
        read = 0
        for count in range(1, len(real) + 1):
            values = ["Dense(3)" if name in ("layer",) else "1" for name in real[:count]]
            try:
                call = scan(f"{last}({', '.join(values)})", framework)
            except BadValue:
                break
            assert list(call.arguments) == real[:count], last
            read = count
        assert read >= min(counterpart.positional, len(real)), last
