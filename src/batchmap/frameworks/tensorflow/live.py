"""Live cells of TensorFlow 1, and the modules that batchmap writes: read, built, given weights, run.

TensorFlow is imported inside functions only. Its own cells need tf_keras, and TF_USE_LEGACY_KERAS=1 when they are
first used in a process, which is set here for that moment only; spelled-out cells and `dynamic_rnn` need neither.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchmap.errors import MissingLibrary, Unsupported
from batchmap.frameworks.tensorflow.layers import CELLS, LAYERS
from batchmap.frameworks.tensorflow.source import inside
from batchmap.frameworks.tensorflow.spelling import WAYS
from batchmap.mapping.arrays import pack, unpack
from batchmap.mapping.calls import Call, Name
from batchmap.mapping.conversion import choose, lift
from batchmap.source.execution import execute
from batchmap.source.model import turned
from batchmap.source.write import class_name
from batchmap.spec.layers import LSTM, Layer, Recurrent, unstack
from batchmap.spec.parameters import Key
from batchmap.spec.results import Result, merge

Arrays = dict[str, Any]
ASKING = "TF_USE_LEGACY_KERAS"  # environment variable
CELL_NAMES = tuple(entry.target.removeprefix(f"{CELLS}.") for entry in LAYERS if entry.target.startswith(CELLS))
ATTRIBUTES = {  # argument of a constructor to the attribute that keeps it
    "num_units": "_num_units",
    "forget_bias": "_forget_bias",
    "use_peepholes": "_use_peepholes",
    "cell_clip": "_cell_clip",
    "num_proj": "_num_proj",
    "proj_clip": "_proj_clip",
}


def owns(thing: Any) -> bool:
    """Whether an object is a cell, or a `tf.Module` that is no Keras layer; told without TensorFlow."""
    if _cell_name(thing) or (isinstance(thing, tuple) and len(thing) == 2 and all(map(_cell_name, thing))):
        return True
    roots = {kind.__module__.partition(".")[0] for kind in type(thing).__mro__}
    return "tensorflow" in roots and not roots & {"keras", "tf_keras"}


def read_layer(thing: Any) -> tuple[Layer, Arrays | None]:
    """Reads a live cell as the layer that `dynamic_rnn` makes of it, with its arrays once it is built.

    A pair of cells is what `bidirectional_dynamic_rnn` runs: both directions, apart.
    """
    if isinstance(thing, tuple):
        return _read_pair(*thing)
    from batchmap.frameworks.tensorflow import FRAMEWORK

    call = peek(thing)
    known, options = {}, {}
    first = next(iter(getattr(thing, "_cells", (thing,))))
    for variable in first.variables[:1]:  # the kernel: rows for the features, then for the state
        known["features"] = variable.shape[0] - (getattr(first, "_num_proj", None) or first._num_units)
        options["dtype"] = Name(f"tf.{variable.dtype.name}")
    layer = lift(Call("tf.compat.v1.nn.dynamic_rnn", {"cell": call, **options}), FRAMEWORK, known=known)
    counterpart, _ = choose(layer, FRAMEWORK)
    arrays = _arrays(thing, _scope(counterpart.target))
    return layer, unpack(counterpart, layer, arrays) if arrays else None


def _read_pair(forward: Any, backward: Any) -> tuple[Layer, Arrays | None]:
    (layer, ahead), (other, back) = read_layer(forward), read_layer(backward)
    if layer != other or not isinstance(layer, Recurrent):
        raise Unsupported(
            "the two cells differ", "one layer runs the same cell both ways", framework="tensorflow", field="direction"
        )
    layer = layer.replace(direction="both", merge="separate")
    if ahead is None or back is None:
        return layer, None
    return layer, ahead | {name.replace("forward", "backward", 1): array for name, array in back.items()}


def read_model(thing: Any) -> Any:
    """Refused: a graph or a `tf.Module` does not say which of its operations are layers."""
    raise Unsupported(
        f"a live {type(thing).__name__} of TensorFlow cannot be read as a model",
        "its graph does not say which operations make a layer",
        "read its cells one by one, or port from its checkpoint or its Keras model",
        framework="tensorflow",
        field="model",
    )


def peek(cell: Any) -> Call:
    """Reads a live cell of TensorFlow's own as a call."""
    name = _cell_name(cell)
    if name == "MultiRNNCell":
        return Call(f"{CELLS}.MultiRNNCell", {"cells": tuple(peek(entry) for entry in cell._cells)})
    if name not in CELL_NAMES:
        raise Unsupported(
            f"{type(cell).__name__} is no cell that batchmap knows in TensorFlow",
            instead=f"one of {', '.join(CELL_NAMES)}",
            framework="tensorflow",
            field="layer",
        )
    arguments = {
        argument: getattr(cell, attribute)
        for argument, attribute in ATTRIBUTES.items()
        if getattr(cell, attribute, None) is not None
    }
    function = getattr(cell._activation, "__name__", "")
    if function != "tanh":
        arguments["activation"] = Name(f"tf.nn.{function}")
    return Call(f"{CELLS}.{name}", arguments)


def build(layer: Layer) -> Any:
    """Builds the cell that TensorFlow's driver runs for a layer, or a pair of them for both directions.

    A cell has no arrays before it is run, or before its `build([None, features])`. Raises Unsupported where
    TensorFlow has no cell for the layer, MissingLibrary where the cells cannot be had.
    """
    from batchmap.frameworks.tensorflow import FRAMEWORK

    _, lowered = choose(layer, FRAMEWORK)
    dtype = getattr(layer, "dtype", "float32")
    names = ("cell_fw", "cell_bw") if getattr(layer, "direction", "") == "both" else ("cell",)
    if not isinstance(layer, Recurrent):
        return _made(lowered.call, dtype)
    cells = tuple(_made(lowered.call[name], dtype) for name in names)
    return cells if len(cells) > 1 else cells[0]


def make(text: str, name: str) -> Any:
    """Makes a live model from source that batchmap wrote, with random weights; name: of the model."""
    _ready(text)
    with _legacy(), _without_advice():
        return getattr(execute(text), class_name(name))()


def restore(text: str, arrays: Mapping[str, Any], name: str) -> Any:
    """Makes a live model from source that batchmap wrote, and sets its arrays.

    text: a module as `source.write_model` writes it. arrays: name of a variable to array. name: of the model.
    """
    model = make(text, name)
    for variable in model.variables:
        variable.assign(arrays[variable.name.removesuffix(":0")])
    return model


def load(folder: Path) -> Any:
    """Runs the model.py of a folder that `bm.port` wrote, and returns what its load() gives."""
    path = folder / "model.py"
    text = path.read_text()
    _ready(text)
    with _legacy(), _without_advice():
        return execute(text, str(path)).load()


def _ready(text: str) -> None:
    """Raises MissingLibrary where the source cannot run here."""
    if "tf1.nn.rnn_cell" in text:
        _cells()
    else:
        _tensorflow()


def dtype(model: Any) -> str:
    """The type of a model's variables."""
    return next((variable.dtype.name for variable in model.variables), "float32")


def run(model: Any, inputs: Sequence[Any]) -> list[Any]:
    """Runs a model; arrays in, arrays out."""
    tf = _tensorflow()
    with _without_advice():
        return [_numpy(leaf) for leaf in tf.nest.flatten(model(*_tensors(model, inputs)))]


def trace(model: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    """Runs a model that batchmap wrote and keeps what each recurrent layer gave: name of its cell to array.

    Both directions of a layer come under the name of the layer, forward first.
    """
    tf = _tensorflow()
    names = {id(part): name for name, part in vars(model).items()}
    seen: dict[str, Any] = {}
    drivers: dict[str, Callable[..., Any]] = {}

    def watched(driver: str) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            outputs, state = drivers[driver](*given, **options)
            name = names.get(id(given[0]), "")
            both = driver.startswith("bidirectional")
            seen[name.removesuffix("_fw") if both else name] = _numpy(tf.concat(outputs, -1) if both else outputs)
            return outputs, state

        return call

    nn = sys.modules["tensorflow.compat.v1"].nn
    for driver in ("dynamic_rnn", "bidirectional_dynamic_rnn"):
        drivers[driver] = getattr(nn, driver)
        setattr(nn, driver, watched(driver))
    try:
        run(model, inputs)
    finally:
        for driver, plain in drivers.items():
            setattr(nn, driver, plain)
    return seen


def run_layer(
    layer: Recurrent,
    weights: Mapping[str, Any],
    x: Any,
    *,
    lengths: Sequence[int] | None = None,
    initial: Mapping[str, Any] | None = None,
) -> Result:
    """Runs TensorFlow's own cells and driver with canonical arrays.

    x: [cases, time, features], or [time, cases, features] as the layer says. lengths: [cases].
    initial: canonical state names ("0.forward.h") to [cases, units].
    Returns output and final states in canonical form, in the dtype of the layer. A stack whose directions
    meet between its layers is run layer by layer. Raises Unsupported where TensorFlow has no cell for it.
    """
    tf = _tensorflow()
    if layer.layers > 1 and layer.direction == "both" and layer.merge != "separate":
        return _run_stack(layer, weights, x, lengths, initial)
    held = inside(layer, lengths is not None)
    assert isinstance(held, Recurrent)
    if lengths is not None:
        held = replace(held, padded=layer.padded)
    cells = build(held)
    assign(cells, held, turned(held, weights))
    starts = turned(held, initial or {})
    data = tf.constant(x, held.dtype)
    time = 1 if held.cases_first else 0
    cases = data.shape[1 - time]
    counts = None if lengths is None else tf.constant(list(lengths), tf.int32)

    def turn(value: Any) -> Any:
        if counts is None:
            return tf.reverse(value, [time])
        return tf.reverse_sequence(value, counts, seq_axis=time, batch_axis=1 - time)

    options = {"sequence_length": counts, "dtype": held.dtype, "time_major": not held.cases_first}
    nn = tf.compat.v1.nn
    if held.direction == "both":
        outputs, finals = nn.bidirectional_dynamic_rnn(
            *cells,
            data,
            initial_state_fw=_start(held, starts, "forward", cases),
            initial_state_bw=_start(held, starts, "backward", cases),
            **options,
        )
    else:
        backward = layer.direction == "backward"
        output, final = nn.dynamic_rnn(
            cells,
            turn(data) if backward else data,
            initial_state=_start(held, starts, "forward", cases),
            **options,
        )
        outputs, finals = (turn(output) if backward else output,), (final,)
    states: Arrays = {}
    for direction, final in zip(layer.directions, finals, strict=True):
        for index, state in enumerate(final if held.layers > 1 else (final,)):
            parts = {"c": state[0], "h": state[1]} if isinstance(held, LSTM) else {"h": state}
            for name in held.states:
                states[f"{index}.{direction}.{name}"] = _numpy(parts[name])
    if layer.output == "last":
        top = {way: states[f"{layer.layers - 1}.{way}.h"] for way in layer.directions}
        if counts is not None:  # a case without a time step has no last output, though it has a state
            top = {way: h * _numpy(counts > 0)[:, None] for way, h in top.items()}
        return Result(merge(layer, top), states)
    found = {way: _numpy(output) for way, output in zip(layer.directions, outputs, strict=True)}
    if layer.order == "processing":
        found = {way: output[:, ::-1] if layer.cases_first else output[::-1] for way, output in found.items()}
    return Result(merge(layer, found), states)


def layers(model: Any) -> list[tuple[str, Layer, Any]]:
    """The recurrent layers of a model, in the order they were made: name, layer, cell or pair of cells."""
    found: list[tuple[str, Layer, Any]] = []
    parts = {name: part for name, part in vars(model).items() if _cell_name(part)}
    for name, part in parts.items():
        stem = name[:-3]
        if name.endswith("_bw") and f"{stem}_fw" in parts:
            continue
        layer, _ = read_layer(part)
        if name.endswith("_fw") and f"{stem}_bw" in parts and isinstance(layer, Recurrent):
            found.append((stem, replace(layer, direction="both"), (part, parts[f"{stem}_bw"])))
        else:
            found.append((name, layer, part))
    return found


def assign(cells: Any, layer: Layer, arrays: Mapping[str, Any]) -> None:
    """Copies canonical arrays into a live cell, or a pair of them; one that is not built yet is built.

    arrays: canonical key to array.
    """
    from batchmap.frameworks.tensorflow import FRAMEWORK

    if not isinstance(layer, Recurrent):
        raise Unsupported(f"{layer!r} has no cell in TensorFlow", framework="tensorflow", field="layer")
    tf1 = _tensorflow().compat.v1
    counterpart, _ = choose(replace(layer, merge="separate") if layer.direction == "both" else layer, FRAMEWORK)
    native = pack(counterpart, layer, arrays)
    pair = cells if isinstance(cells, tuple) else (cells,)
    for direction, cell in zip(layer.directions, pair, strict=True):
        outer = f"bidirectional_rnn/{WAYS[direction]}" if layer.direction == "both" else "rnn"
        for index, single in enumerate(getattr(cell, "_cells", (cell,))):
            scope = f"{outer}/multi_rnn_cell/cell_{index}" if layer.layers > 1 else outer
            if not single.built:
                with tf1.variable_scope(scope):
                    single.build([None, layer.input_size(index)])
            scope += f"/{_scope(counterpart.target)}/"
            for variable in single.variables:
                variable.assign(native[scope + _short(variable.name)])


def snapshot(model: Any) -> Any:
    """A copy of all variables, to go back to."""
    return [(variable, variable.numpy()) for variable in model.variables]


def rewind(model: Any, kept: Any) -> None:
    """Puts back what `snapshot` kept."""
    for variable, was in kept:
        variable.assign(was)


def _run_stack(
    layer: Recurrent, weights: Mapping[str, Any], x: Any, lengths: Any, initial: Mapping[str, Any] | None
) -> Result:
    states: Arrays = {}
    output = x
    for index, single in enumerate(unstack(layer)):
        mine, starts = (
            {str(Key.parse(key)._replace(layer=0)): given[key] for key in given if Key.parse(key).layer == index}
            for given in (weights, initial or {})
        )
        result = run_layer(single, mine, output, lengths=lengths, initial=starts)
        states |= {str(Key.parse(key)._replace(layer=index)): state for key, state in result.states.items()}
        output = result.output
    return Result(output, states)


def _start(layer: Recurrent, given: Mapping[str, Any], direction: str, cases: int) -> Any:
    """The initial state as the cells take it: (c, h) or h, one of them a layer in a stack."""
    tf = _tensorflow()
    tuples = _cells().LSTMStateTuple if isinstance(layer, LSTM) else None
    states = []
    for index in range(layer.layers):
        parts = {}
        for name in layer.states:
            size = layer.units if name == "c" else layer.state_size
            array = given.get(f"{index}.{direction}.{name}")
            parts[name] = tf.zeros([cases, size], layer.dtype) if array is None else tf.constant(array, layer.dtype)
        states.append(tuples(parts["c"], parts["h"]) if tuples else parts["h"])
    return tuple(states) if layer.layers > 1 else states[0]


def _made(call: Call, dtype: str) -> Any:
    """Carries out the call of a cell."""
    tf = _tensorflow()
    kind = getattr(_cells(), call.last_name) if call.target.startswith(CELLS) else tf
    if kind is tf:
        for part in call.target.split(".")[1:]:
            kind = getattr(kind, part)
    if call.last_name == "MultiRNNCell":
        return kind([_made(entry, dtype) for entry in call["cells"]])
    arguments = {name: _value(tf, value) for name, value in call.arguments.items()}
    return kind(**arguments, **({"dtype": dtype} if dtype != "float32" else {}))


def _value(tf: Any, value: Any) -> Any:
    if isinstance(value, Name):
        found = tf
        for part in value.text.split(".")[1:]:
            found = getattr(found, part)
        return found
    return value


def _arrays(cell: Any, name: str) -> Arrays:
    """The arrays of a live cell as `dynamic_rnn` names them; none before it is built. name: of the cell."""
    singles = getattr(cell, "_cells", (cell,))
    found: Arrays = {}
    for index, single in enumerate(singles):
        scope = f"rnn/multi_rnn_cell/cell_{index}" if len(singles) > 1 else "rnn"
        for variable in single.variables:
            found[f"{scope}/{name}/{_short(variable.name)}"] = _numpy(variable)
    return found


def _short(name: str) -> str:
    """The name of a variable within its cell: "gates/kernel", "w_i_diag"."""
    parts = name.removesuffix(":0").split("/")
    count = 2 if len(parts) > 1 and parts[-2] in ("gates", "candidate", "projection") else 1
    return "/".join(parts[-count:])


def _scope(cell: str) -> str:
    """The variable scope of a cell, from the name of its class.

    >>> _scope("BasicLSTMCell"), _scope("GRUCell")
    ('basic_lstm_cell', 'gru_cell')
    """
    name = cell.rpartition(".")[2].removesuffix("Cell")
    return ("basic_" if name.startswith("Basic") else "") + name.removeprefix("Basic").lower() + "_cell"


def _cell_name(thing: Any) -> str:
    """The class of TensorFlow's own cells that an object is, or nothing."""
    kind = type(thing)
    known = kind.__module__.endswith(("legacy_cells", "rnn_cell_impl"))
    return kind.__name__ if known and kind.__name__ in (*CELL_NAMES, "MultiRNNCell") else ""


def _tensors(model: Any, inputs: Sequence[Any]) -> list[Any]:
    import numpy as np

    tf = _tensorflow()
    dtype = next((variable.dtype for variable in model.variables), tf.float32)
    arrays = [np.asarray(array) for array in inputs]
    return [tf.constant(array, dtype if array.dtype.kind == "f" else tf.int64) for array in arrays]


def _numpy(tensor: Any) -> Any:
    return tensor.numpy()


def _tensorflow() -> Any:
    try:
        import tensorflow
    except ImportError as error:
        raise MissingLibrary(
            "TensorFlow is not installed", instead="pip install 'batchmap[tensorflow]'", library="tensorflow"
        ) from error
    return tensorflow


def _cells() -> Any:
    """The module of TensorFlow's own cells."""
    cells = _tensorflow().compat.v1.nn.rnn_cell
    try:
        with _legacy():
            assert cells.BasicLSTMCell and cells.LSTMStateTuple
    except (AttributeError, ImportError, RecursionError) as error:
        raise MissingLibrary(
            "the cells of TensorFlow 1 are not available",
            "since TensorFlow 2.16 they are in tf_keras, and have to be asked for before they are first used",
            "pip install tf_keras, and set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported",
            library="tf_keras",
        ) from error
    return cells


@contextmanager
def _legacy() -> Iterator[None]:
    """Lets TensorFlow look for its cells in tf_keras; the environment is left as it was."""
    was = os.environ.get(ASKING)
    os.environ[ASKING] = "1"
    try:
        yield
    finally:
        os.environ.pop(ASKING)
        if was is not None:
            os.environ[ASKING] = was


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps back TensorFlow's advice to leave its cells for Keras: whoever asks for them knows."""
    log = logging.getLogger("tensorflow")
    was = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`tf\.nn\.rnn_cell\.\w+` is deprecated", UserWarning)
            yield
    finally:
        log.setLevel(was)
