"""Live Keras layers and models: read, built, given weights, run. Keras is imported inside functions only.

Works on every backend of Keras 3; layers and models of tf_keras (Keras 2) can be read and run, not built.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from batchmap.errors import BatchmapError, MissingLibrary
from batchmap.frameworks.keras import FRAMEWORK, config, layer_config, source
from batchmap.frameworks.keras.layers import SPELLED_NAMES
from batchmap.mapping.arrays import pack
from batchmap.mapping.calls import Call, Name
from batchmap.mapping.conversion import choose
from batchmap.source.execution import execute
from batchmap.spec.layers import Dense, Embedding, Layer, Recurrent, TimeDistributed, unstack
from batchmap.spec.model import Input, Model, sequential
from batchmap.spec.parameters import Key
from batchmap.spec.results import Result

Arrays = dict[str, Any]
AFTER = ("Flip", "Elu", "LeakyRelu")


def owns(thing: Any) -> bool:
    """Whether an object is a layer or a model of Keras 3 or tf_keras, told without importing either.

    >>> owns("keras")
    False
    """
    return _root(thing) is not None


def read_layer(thing: Any) -> tuple[Layer, Arrays | None]:
    """Reads a live layer, and its canonical arrays; None instead of them while it is not built."""
    return layer_config.read_layer(_described(thing), _arrays(thing) if thing.built else None, _version(thing))


def read_model(thing: Any) -> tuple[Model, dict[str, Arrays]]:
    """Reads a live Sequential or functional model, or a lone layer, as a model, and its canonical arrays.

    Raises Unsupported for a model whose `call` is Python code.
    """
    if not hasattr(thing, "layers") or _is_wrapper(thing):
        layer, arrays = read_layer(thing)
        axes = ("cases", "time") if isinstance(layer, Embedding) else ("cases", "time", "features")
        entry = Input("x", axes, (None,) * len(axes), "int64" if isinstance(layer, Embedding) else "float32")
        return sequential(thing.name, entry, (thing.name, layer)), {thing.name: arrays} if arrays else {}
    kind = "Sequential" if any(base.__name__ == "Sequential" for base in type(thing).__mro__) else "Functional"
    try:
        description = {"class_name": kind, "config": thing.get_config()}
    except NotImplementedError:
        description = {"class_name": type(thing).__name__, "config": {}}
    if "layers" not in description["config"]:
        description["class_name"] = type(thing).__name__
    weights = {part.name: arrays for part in thing.layers if part.weights and (arrays := _arrays(part))}
    return config.read_model(description, weights, _version(thing))


def build(layer: Layer) -> Any:
    """Builds Keras's own layer; its weights are made when it first sees data.

    Raises Unsupported, with the field and the way out, when Keras has no such layer.
    """
    return _made(source.layer_call(layer))


def make(text: str, name: str) -> Any:
    """Makes a live model from source that batchmap wrote, with random weights; name: of the model."""
    _keras()
    return getattr(execute(text, f"<batchmap {name}>"), source.function_name(name))()


def restore(text: str, arrays: Mapping[str, Any], name: str) -> Any:
    """Makes a live model from source that batchmap wrote, and sets its arrays.

    text: a module as `source.write_model` writes it. arrays: path of a variable to array. name: of the model.
    """
    model = make(text, name)
    for variable in model.weights:
        variable.assign(arrays[variable.path])
    return model


def load(folder: Path) -> Any:
    """Runs the model.py of a folder that `bm.port` wrote, and returns what its load() gives."""
    _keras()
    path = folder / "model.py"
    return execute(path.read_text(), str(path)).load()


def dtype(thing: Any) -> str:
    """The type that a layer or a model computes in."""
    first = next(iter(thing.weights), None)
    if first is None or (_root(thing) == "keras" and _keras().backend.backend() != "tensorflow"):
        return "float32"  # the other backends compute recurrent layers in float32, whatever their weights
    return str(getattr(first.dtype, "name", first.dtype))


def run(thing: Any, inputs: Sequence[Any]) -> list[Any]:
    """Runs a layer or a model as in inference; arrays in, arrays out.

    Layers that carry their state from call to call start from zeros, and get their state back afterwards.
    """
    with _fresh(thing):
        output = thing(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
        return [_numpy(tensor) for tensor in _leaves(output)]


def trace(thing: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    """Runs a model as in inference and keeps what every layer gave, by its name.

    What batchmap writes right after a layer (a sequence turned round, an activation) counts as part of it.
    """
    parts = [part for part in thing.layers if type(part).__name__ != "InputLayer"]
    if not getattr(thing, "inputs", None):
        return _watched(thing, parts, inputs)
    after = {id(step.input): step.output for step in _steps(thing) if type(step).__name__ in AFTER}
    outputs = [_leaves(part.output)[0] for part in parts]
    outputs = [after.get(id(output), output) for output in outputs]
    observed = sys.modules[_root(thing) or "keras"].Model(thing.inputs, outputs)
    with _fresh(thing):
        values = _leaves(observed(list(inputs), training=False))
    return {part.name: _numpy(value) for part, value in zip(parts, values, strict=True)}


def run_layer(
    layer: Recurrent,
    weights: Mapping[str, Any],
    x: Any,
    *,
    lengths: Sequence[int] | None = None,
    mask: Any = None,
    initial: Mapping[str, Any] | None = None,
) -> Result:
    """Runs Keras's own layer with canonical arrays.

    x: [cases, time, features]. lengths: [cases]. mask: bool [cases, time], holes and all.
    initial: canonical state names ("0.forward.h") to [cases, units], zero where left out.
    Returns output and final states in canonical form. A stack runs layer by layer.
    """
    import numpy as np

    data = np.asarray(x, layer.dtype)
    valid = None if mask is None else np.asarray(mask, bool)
    if lengths is not None:
        within = np.arange(data.shape[1]) < np.asarray(lengths)[:, None]
        valid = within if valid is None else valid & within
    states: Arrays = {}
    output: Any = data
    for index, single in enumerate(unstack(layer)):
        arrays = {
            str(key._replace(layer=0)): array
            for text, array in weights.items()
            if (key := Key.parse(text)).layer == index
        }
        first = {
            str(key._replace(layer=0)): array
            for text, array in (initial or {}).items()
            if (key := Key.parse(text)).layer == index
        }
        output, final = _run_single(single, arrays, output, valid, first)
        states |= {str(Key.parse(text)._replace(layer=index)): array for text, array in final.items()}
    return Result(output, states)


def layers(thing: Any) -> list[tuple[str, Layer, Any]]:
    """The recurrent, embedding and dense layers of a model that batchmap can read, in order."""
    found = []
    for part in thing.layers if hasattr(thing, "layers") and not _is_wrapper(thing) else [thing]:
        try:
            layer, _ = read_layer(part)
        except BatchmapError:
            continue
        plain = layer.layer if isinstance(layer, TimeDistributed) else layer
        if isinstance(plain, (Recurrent, Embedding, Dense)):
            found.append((part.name, layer, part))
    return found


def assign(part: Any, layer: Layer, arrays: Mapping[str, Any]) -> None:
    """Copies canonical arrays into a live layer; one that is not built yet is built."""
    plain = layer.layer if isinstance(layer, TimeDistributed) else layer
    if not part.built:
        features = getattr(plain, "features", None)
        part.build((None, None) if isinstance(plain, Embedding) else (None, None, features))
    counterpart, _ = choose(source.inside(plain, masked=True), FRAMEWORK)
    native = pack(counterpart, plain, arrays)
    for name, variable in _variables(part):
        variable.assign(native[name])


def snapshot(thing: Any) -> Any:
    """A copy of all weights, to go back to."""
    return thing.get_weights()


def rewind(thing: Any, kept: Any) -> None:
    """Puts back what `snapshot` kept."""
    thing.set_weights(kept)


def _run_single(
    layer: Recurrent, weights: Mapping[str, Any], x: Any, mask: Any, initial: Mapping[str, Any]
) -> tuple[Any, Arrays]:
    import numpy as np

    keras = _keras()
    call = source.layer_call(_with_states(layer), turned=True)
    native = _made(call)
    native.build(x.shape)
    assign(native, layer, weights)
    names = [str(Key(0, direction, state)) for direction in layer.directions for state in layer.states]
    start = None
    if initial:
        sizes = [layer.units if name.endswith("c") else layer.state_size for name in names]
        start = [
            keras.ops.convert_to_tensor(np.asarray(initial.get(name, np.zeros((len(x), size))), layer.dtype))
            for name, size in zip(names, sizes, strict=True)
        ]
    options = {} if start is None else {"initial_state": start}
    if mask is not None:
        options["mask"] = keras.ops.convert_to_tensor(mask)
    found = [_numpy(tensor) for tensor in _leaves(native(keras.ops.convert_to_tensor(x), **options))]
    outputs, finals = found[: -len(names)], found[-len(names) :]
    if source.turned(layer):
        outputs = [output[:, ::-1] for output in outputs]
    return outputs[0] if len(outputs) == 1 else tuple(outputs), dict(zip(names, finals, strict=True))


def _with_states(layer: Recurrent) -> Recurrent:
    from dataclasses import replace

    return replace(layer, returned_state=True, carried_state=False)


def _made(value: Any) -> Any:
    """A live object from a call."""
    keras = _keras()
    if isinstance(value, Name):
        return _function(value.text)
    if isinstance(value, (tuple, list)):
        return [_made(entry) for entry in value]
    if not isinstance(value, Call):
        return value
    kind: Any = keras
    for step in value.target.split(".")[1:]:
        kind = getattr(kind, step)
    return kind(**{name: _made(entry) for name, entry in value.arguments.items()})


def _function(name: str) -> Any:
    """One of the functions that batchmap writes beside a model, made once and registered with Keras."""
    keras = _keras()
    registered = next(key for key, known in SPELLED_NAMES.items() if known == name)
    found = keras.saving.get_registered_object(registered)
    if found is None:
        text = f"from typing import Any\n\nimport keras\nfrom keras import ops\n\n{source.FUNCTIONS[name]}"
        found = getattr(execute(text, f"<batchmap {name}>"), name)
    return found


def _described(thing: Any) -> dict[str, Any]:
    """The class and configuration of a layer."""
    kind = type(thing)
    owned = kind.__module__.partition(".")[0] in ("keras", "tf_keras")
    return {
        "class_name": kind.__name__,
        "config": thing.get_config(),
        "registered_name": None if owned else f"{kind.__module__}>{kind.__name__}",
    }


def _arrays(thing: Any) -> Arrays:
    return {name: _numpy(variable) for name, variable in _variables(thing)}


def _variables(thing: Any) -> Iterator[tuple[str, Any]]:
    """The variables of a layer under the short names of `layers`: "kernel", "forward/kernel"."""
    if hasattr(thing, "forward_layer"):
        for side in ("forward", "backward"):
            for name, variable in _variables(getattr(thing, f"{side}_layer")):
                yield f"{side}/{name}", variable
        return
    for variable in thing.weights:
        yield variable.name.rpartition("/")[2].partition(":")[0], variable


def _is_wrapper(thing: Any) -> bool:
    return hasattr(thing, "layer") or hasattr(thing, "forward_layer")


def _root(thing: Any) -> str | None:
    roots = {kind.__module__.partition(".")[0] for kind in type(thing).__mro__}
    return next((root for root in ("keras", "tf_keras") if root in roots), None)


def _version(thing: Any) -> str:
    return str(sys.modules[_root(thing) or "keras"].__version__)


def _watched(thing: Any, parts: Sequence[Any], inputs: Sequence[Any]) -> dict[str, Any]:
    """Traces a model whose `call` is Python code, by listening at the `call` of its layers."""
    seen: dict[str, Any] = {}

    def listening(part: Any) -> Any:
        call = part.call

        @wraps(call)
        def keep(*given: Any, **options: Any) -> Any:
            output = call(*given, **options)
            seen[part.name] = _numpy(_leaves(output)[0])
            return output

        return keep

    for part in parts:
        part.call = listening(part)
    try:
        run(thing, inputs)
    finally:
        for part in parts:
            del part.call
    return seen


@contextmanager
def _fresh(thing: Any) -> Iterator[None]:
    """Sets carried states to zero, and puts back what they were."""
    parts = thing.layers if hasattr(thing, "layers") and not _is_wrapper(thing) else [thing]
    parts = [side for part in parts for side in _sides(part) if getattr(side, "stateful", False)]
    states = [state for part in parts for state in part.states or () if state is not None]
    kept = [_numpy(state) for state in states]
    for state, array in zip(states, kept, strict=True):
        state.assign(array * 0)
    try:
        yield
    finally:
        for state, array in zip(states, kept, strict=True):
            state.assign(array)


def _sides(part: Any) -> list[Any]:
    return [part.forward_layer, part.backward_layer] if hasattr(part, "forward_layer") else [part]


def _steps(thing: Any) -> list[Any]:
    """The functions of keras.ops that a functional model of Keras 3 calls between its layers."""
    return [step for step in getattr(thing, "operations", ()) if not hasattr(step, "weights")]


def _leaves(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return [leaf for part in output for leaf in _leaves(part)]
    return [output]


def _numpy(tensor: Any) -> Any:
    """Any tensor or variable of any backend as a NumPy array."""
    if "tensorflow" in sys.modules and hasattr(tensor, "numpy") and not hasattr(tensor, "detach"):
        return tensor.numpy()
    return _keras().ops.convert_to_numpy(tensor)


def _keras() -> Any:
    try:
        import keras
    except ImportError as error:
        raise MissingLibrary(
            "Keras is not installed", instead="pip install 'batchmap[keras,tensorflow]'", library="keras"
        ) from error
    return keras
