"""What gets imported: by whom, in the text of every module, and when, in a process of its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
FILES = sorted(path.relative_to(SRC) for path in SRC.rglob("*.py"))

# ---- when: nothing heavy is loaded before it is used

FRAMEWORKS = {  # library: the one folder (or file) of frameworks/ that may import it
    "flax": "flax",
    "jax": "flax",
    "keras": "keras",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "tensorflow": "tensorflow",
    "tf_keras": "keras",
    "torch": "torch",
}
HEAVY = {*FRAMEWORKS, "einops", "h5py", "numpy", "rich", "safetensors"}

FREE_OF_FRAMEWORKS = {
    "explain": "str(bm.explain('batch_size'))",
    "write": "[bm.write(bm.LSTM(features=8, units=64), name) for name in ('torch', 'keras', 'tensorflow')]",
    "arguments": "bm.arguments(bm.GRU(features=8, units=64), 'torch', bm.Batch(cases=32))",
    "shapes": "str(bm.shapes(bm.LSTM(features=8, units=6), bm.Batch(cases=3, sequence_length=7), 'torch'))",
    "read": "bm.read('LSTM(64, return_sequences=True)', 'keras')",
    "translate": "str(bm.translate('LSTM(64, return_sequences=True)', 'keras', 'torch', features=8))",
    "frameworks": "str(bm.frameworks())",
    "command line": "from batchmap.cli import main; main(['explain', 'batch_size'])",
}


def loaded(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running `code`."""
    code += "\nimport sys\nprint('\\n', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("\n ")[2].split())


def test_import_is_light() -> None:
    assert not loaded("import batchmap") & HEAVY


@pytest.mark.parametrize("verb", FREE_OF_FRAMEWORKS)
def test_verbs_load_no_framework(verb: str) -> None:
    assert not loaded(f"import batchmap as bm\n{FREE_OF_FRAMEWORKS[verb]}") & set(FRAMEWORKS)


def test_public_names_are_never_modules() -> None:
    """`bm.port` is the verb, even after the module of that name has been imported."""
    code = """
import batchmap, pkgutil, types
from importlib import import_module
for module in pkgutil.walk_packages(batchmap.__path__, "batchmap."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
for name in batchmap.__all__:
    assert not isinstance(getattr(batchmap, name), types.ModuleType), name
"""
    assert not loaded(code) & set(FRAMEWORKS)


@pytest.mark.needs
@pytest.mark.parametrize("library", ["numpy", "onnx"])
def test_loaded_can_see(library: str) -> None:
    """Without this, the tests above could pass because they see nothing."""
    assert loaded(f"import batchmap, {library}") & HEAVY >= {library}


# ---- by whom: imports run one way

ROOMS = {  # room: the rooms it sees, besides itself; every other module of batchmap sees all of them
    "errors": set(),
    "spec": {"errors"},
    "mapping": {"errors", "spec"},
    "source": {"errors", "spec", "mapping"},
    "frameworks": {"errors", "spec", "mapping", "source"},
    "numbers": {"errors", "spec", "mapping"},
    "files": {"errors"},
}
PARENTS: dict[str, str] = {}  # framework: the one sibling it builds on
SPOKES = {path.stem for path in (SRC / "batchmap/frameworks").iterdir() if not path.name.startswith("_")}


def imports(tree: ast.AST, late: bool = False, typing: bool = False) -> Iterator[tuple[str, bool, bool]]:
    """Every imported name, whether inside a function, and whether for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import():
                yield from ((alias.name, late, typing) for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield from ((f"{module}.{alias.name}", late, typing) for alias in node.names)
            case ast.ImportFrom():
                raise AssertionError(f"line {node.lineno}: a relative import")
            case ast.Call(func=ast.Name("import_module" | "__import__"), args=[ast.Constant(str(name)), *_]):
                yield name, late, typing
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from imports(node, True, typing)
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                yield from imports(node, late, True)
            case _:
                yield from imports(node, late, typing)


def test_no_two_modules_need_each_other() -> None:
    """Not even for type checkers: what stands in a circle can only be understood all at once."""
    paths = {".".join(path.relative_to(SRC).with_suffix("").parts): path for path in SRC.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    sees: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = [name for name, late, _ in imports(ast.parse(path.read_text())) if not late]
        found = {part for name in names for part in (name, name.rpartition(".")[0]) if part in modules}
        sees[module] = found - {module, "batchmap"}
    assert len(sees) > 90 and sum(map(len, sees.values())) > 300
    TopologicalSorter(sees).prepare()  # raises where there is a circle, and names it


def wrong(path: Path, text: str) -> list[str]:
    """What the text of a module, at `path` under src/, imports against the rules."""
    _, room, *rest = (*path.parts[:-1], path.stem)
    spoke = rest[0] if room == "frameworks" and rest else ""
    found = []
    for name, late, typing in imports(ast.parse(text)):
        top, *inner = name.split(".")
        if top == "batchmap":
            target = inner[0] if inner else ""
            if room in ROOMS and target not in ROOMS[room] | {room}:
                found.append(f"{path}: {room} does not see {name}")
            sibling = inner[1] if target == "frameworks" and len(inner) > 1 else ""
            if spoke in SPOKES and sibling in SPOKES and sibling not in (spoke, PARENTS.get(spoke)):
                found.append(f"{path}: {spoke} does not see its sibling {sibling}")
        elif top in FRAMEWORKS:
            if spoke != FRAMEWORKS[top]:
                found.append(f"{path}: only frameworks/{FRAMEWORKS[top]} imports {top}")
            elif not late and not typing:
                found.append(f"{path}: {top} is imported before it is used")
        elif top == "safetensors" and inner[0] in ("flax", "mlx", "paddle", "tensorflow", "torch"):
            found.append(f"{path}: {name} loads a framework; safetensors.numpy does not")
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_one_way(path: Path) -> None:
    assert not wrong(path, (SRC / path).read_text())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("errors.py", "from batchmap.spec import layers"),
        ("spec/layers.py", "from batchmap.mapping.rows import Arg"),
        ("spec/layers.py", "def f():\n    import batchmap"),
        ("mapping/rows.py", "import batchmap.frameworks.torch"),
        ("source/write.py", "from batchmap import frameworks"),
        ("numbers/verify.py", "from batchmap.files import safetensors"),
        ("files/keras_h5.py", "from batchmap.spec.model import Model"),
        ("frameworks/torch/live.py", "from batchmap.port import port"),
        ("frameworks/torch/live.py", "from batchmap.frameworks.keras import layers"),
        ("frameworks/torch/live.py", "def f():\n    from batchmap.frameworks import keras"),
        ("frameworks/torch/live.py", "import torch"),
        ("frameworks/torch/live.py", "try:\n    import torch\nexcept ImportError:\n    pass"),
        ("frameworks/torch/live.py", "class A:\n    import torch.nn as nn"),
        ("frameworks/torch/live.py", "def f():\n    import keras"),
        ("frameworks/torch/live.py", "from importlib import import_module\ntorch = import_module('torch')"),
        ("port.py", "def f():\n    import torch"),
        ("files/safetensors.py", "from safetensors.torch import load_file"),
    ],
)
def test_wrong_can_see(path: str, text: str) -> None:
    assert len(wrong(Path("batchmap") / path, text)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("frameworks/torch/live.py", "def f():\n    import torch"),
        ("frameworks/torch/live.py", "if TYPE_CHECKING:\n    from torch import nn"),
        ("frameworks/torch/live.py", "from batchmap.frameworks.torch.layers import LAYERS"),
        ("frameworks/torch/__init__.py", "from batchmap.mapping.framework import Framework"),
        ("port.py", "from batchmap.numbers.verify import verify"),
    ],
)
def test_wrong_lets_pass(path: str, text: str) -> None:
    assert not wrong(Path("batchmap") / path, text)
