"""The real frameworks, each behind the same few calls: Keras and PyTorch here, TensorFlow in a process of its own.

A runner says which shapes its framework takes, returns and holds, runs a native layer with canonical arrays, and
runs a script that batchmap wrote with given arrays and data.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

import batchmap as bm
from batchmap.frameworks import get
from batchmap.mapping import plan
from batchmap.mapping.arrays import pack
from batchmap.mapping.conversion import choose
from batchmap.source.write import class_name
from batchmap.spec.cells import packed
from batchmap.spec.layers import Recurrent, unstack
from batchmap.spec.model import Model
from batchmap.spec.parameters import Key, parameters
from batchmap.spec.results import Result, merge

ZEROS = re.compile(r"^(inputs|x) = .*zeros\(.*$", re.MULTILINE)


class Runner:
    """One framework that is run in this process."""

    name: str

    @property
    def live(self) -> ModuleType:
        return get(self.name).module("live")

    def run_layer(self, *given: Any, **options: Any) -> Result:
        """The native layer with canonical arrays; as `numbers.reference.run_layer`."""
        return self.live.run_layer(*given, **options)

    def run_model(
        self, model: Model, arrays: Mapping[str, Mapping[str, Any]], x: Any, allow: Sequence[str] = ()
    ) -> list[Any]:
        """The outputs of a model, as its written source computes them with these canonical arrays."""
        found: list[Any] = self.live.run(bm.port(model, self.name, weights=arrays, allow=allow), [x])
        return found

    def shapes(self, layer: Recurrent, x: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """What the native layer returns for input of shape x, and the arrays it holds, as `bm.shapes` names them."""
        raise NotImplementedError

    def script(self, text: str, layer: Recurrent, arrays: Mapping[str, Any], x: Any) -> Result:
        """What a script of `bm.write` computes, with these canonical arrays in its layer and x for its zeros."""
        raise NotImplementedError


class Torch(Runner):
    """PyTorch."""

    name = "torch"

    def shapes(self, layer: Recurrent, x: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        import torch

        module = self.live.build(layer)
        output, final = module(torch.zeros(x, dtype=getattr(torch, layer.dtype)))
        finals = dict(zip(layer.states, final if isinstance(final, tuple) else (final,), strict=True))
        if layer.output == "last":
            output = torch.cat(tuple(finals["h"][-len(layer.directions) :]), dim=-1)
        found = {"x": torch.zeros(x), "y": output, **finals, **module.state_dict()}
        return {name: tuple(tensor.shape) for name, tensor in found.items()}

    def script(self, text: str, layer: Recurrent, arrays: Mapping[str, Any], x: Any) -> Result:
        import torch

        define, run = split(text)
        space: dict[str, Any] = {"__name__": "script"}
        exec(compile(define, "<script>", "exec"), space)
        for name, module in space.items():
            if not isinstance(module, torch.nn.Module):
                continue
            if self.live.counterpart_of(module):
                held = layer.replace(direction="both" if layer.direction == "both" else "forward", order="time")
                self.live.assign(module, held, dict(zip(parameters(held), arrays.values(), strict=True)))
            else:
                direction = name.partition("_")[2] or layer.direction
                cell = packed(layer, single(arrays, direction=direction))
                module.load_state_dict({key: torch.as_tensor(array) for key, array in cell.items()})
            module.eval()
        space["given"] = torch.as_tensor(x)
        with torch.no_grad():
            exec(compile(run, "<script>", "exec"), space)
        return bound(space, layer, lambda tensor: tensor.numpy())


class Keras(Runner):
    """Keras 3."""

    name = "keras"

    def shapes(self, layer: Recurrent, x: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        native = self.live.build(layer)
        given = np.zeros(x, layer.dtype)
        outputs = listed(native(given))
        found = {"x": x, "y": tuple(outputs[0].shape)}
        for part in unstack(layer):  # a Sequential returns no states: its layers do, one by one
            alone = self.live.build(part.replace(returned_state=True))
            given, *states = listed(alone(given))
            for name, state in zip(part.states * len(part.directions), states, strict=True):
                assert found.setdefault(name, tuple(state.shape)) == tuple(state.shape)
        for index, part in enumerate(parts_of(native)):
            label = f"{index}/" if layer.layers > 1 else ""
            found |= {label + name: tuple(array.shape) for name, array in self.live._variables(part)}
        return found

    def script(self, text: str, layer: Recurrent, arrays: Mapping[str, Any], x: Any) -> Result:
        import keras

        define, run = split(text)
        space: dict[str, Any] = {"__name__": "script"}
        with keras.saving.custom_object_scope({}):
            exec(compile(define, "<script>", "exec"), space)
        native = space[layer.kind.lower()]
        native.build(x.shape)
        for index, (part, alone) in enumerate(zip(parts_of(native), unstack(layer), strict=True)):
            for name, variable in self.live._variables(part):
                side, _, short = name.rpartition("/")
                direction = side or layer.directions[0]
                variable.assign(cell_arrays("keras", alone, single(arrays, index, direction))[short])
        space["given"] = keras.ops.convert_to_tensor(x)
        exec(compile(run, "<script>", "exec"), space)
        return bound(space, layer, np.asarray)


class TensorFlow(Runner):
    """TensorFlow 1 cells, in the process that has them."""

    name = "tensorflow"

    def __init__(self, process: Any) -> None:
        self.process = process

    def run_layer(self, *given: Any, **options: Any) -> Result:
        return self.process.run_layer(*given, **options)

    def run_model(
        self, model: Model, arrays: Mapping[str, Mapping[str, Any]], x: Any, allow: Sequence[str] = ()
    ) -> list[Any]:
        target = get("tensorflow")
        found, stored = plan.split(model, arrays, target)
        planned = plan.plan(found, target, allow=allow)
        source = target.module("source")
        text = source.write_model(planned, title=model.name, weights=None)
        return self.process.restore(text, source.native_arrays(planned, stored), class_name(model.name), x)

    def shapes(self, layer: Recurrent, x: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        text = f"import runners\nfound = runners.tensorflow_shapes({layer!r}, {x!r})"
        text = "from batchmap import *\nimport json\n" + text + "\nfound = json.dumps(found)"
        import json

        found = json.loads(str(self.process.script(text, ["found"])["found"]))
        return {name: tuple(shape) for name, shape in found.items()}

    def script(self, text: str, layer: Recurrent, arrays: Mapping[str, Any], x: Any) -> Result:
        names = list(arrays)
        asked = (
            "from batchmap import *\nimport runners\n"
            f"def run(x, *arrays):\n    arrays = dict(zip({names!r}, arrays))\n"
            f"    return runners.tensorflow_script({text!r}, {layer!r}, arrays, x)"
        )
        found = self.process.call(asked, "run", x, *arrays.values())
        states = {"forward": "h"} if layer.direction == "forward" else {}
        return Result(found[0], dict(zip(states, found[1:], strict=False)))


def tensorflow_shapes(layer: Recurrent, x: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """`Runner.shapes`, to be called in the TensorFlow process."""
    import tensorflow as tf

    live = get("tensorflow").module("live")
    cells = live.build(layer)
    data = tf.zeros(x, layer.dtype)
    options = {"dtype": layer.dtype, "time_major": not layer.cases_first}
    found: dict[str, tuple[int, ...]] = {"x": tuple(data.shape)}
    with recorded() as variables:
        if layer.direction == "both":
            outputs, finals = tf.compat.v1.nn.bidirectional_dynamic_rnn(*cells, data, **options)
        else:
            output, final = tf.compat.v1.nn.dynamic_rnn(cells, data, **options)
            outputs, finals = (output,), (final,)
    for final in finals:
        for state in final if layer.layers > 1 else (final,):
            for name in layer.states:
                shape = tuple((getattr(state, name) if len(layer.states) > 1 else state).shape)
                assert found.setdefault(name, shape) == shape
    if layer.output == "last":
        tops = [final[-1] if layer.layers > 1 else final for final in finals]
        outputs = [top.h if len(layer.states) > 1 else top for top in tops]
    ways = dict(zip(layer.directions, (np.asarray(output) for output in outputs), strict=True))
    found["y"] = merge(layer, ways).shape
    return found | {name: tuple(variable.shape) for name, variable in variables.items()}


def tensorflow_script(text: str, layer: Recurrent, arrays: Mapping[str, Any], x: Any) -> list[Any]:
    """`Runner.script`, to be called in the TensorFlow process."""
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    space: dict[str, Any] = {"__name__": "script", "given": x}

    def value(name: str) -> Any:
        index = next((int(found) for found in re.findall(r"(?:cell|layer)_(\d+)/", name)), 0)
        direction = "backward" if "/bw/" in name else layer.directions[0]
        found = cell_arrays("tensorflow", unstack(layer)[index], single(arrays, index, direction))
        return found[max((key for key in found if name.endswith(f"/{key}")), key=len)]

    with recorded(value), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(ZEROS.sub(r"\1 = given", text), "<script>", "exec"), space)
    return [space["output" if layer.output == "last" else "outputs"]]


class recorded:
    """Collects the variables that TensorFlow makes, by name; `value` gives each of them its array."""

    def __init__(self, value: Any = None) -> None:
        import tensorflow as tf

        self.value = value
        self.found: dict[str, Any] = {}
        self.scope = tf.variable_creator_scope(self.create)

    def create(self, create: Any, **options: Any) -> Any:
        if self.value is not None:
            options["initial_value"] = self.value(options["name"])
        variable = create(**options)
        self.found[variable.name.removesuffix(":0")] = variable
        return variable

    def __enter__(self) -> dict[str, Any]:
        self.scope.__enter__()
        return self.found

    def __exit__(self, *error: Any) -> None:
        self.scope.__exit__(*error)


def split(text: str) -> tuple[str, str]:
    """A script up to its data, and from there on with `given` in their place."""
    place = ZEROS.search(text)
    assert place, text
    return text[: place.start()], ZEROS.sub(r"\1 = given", text[place.start() :])


def single(arrays: Mapping[str, Any], index: int = 0, direction: str = "") -> dict[str, Any]:
    """The arrays of one direction of one layer of a stack: canonical parameter to array."""
    keys = {text: Key.parse(text) for text in arrays}
    return {
        key.parameter: arrays[text]
        for text, key in keys.items()
        if key.layer == index and direction in ("", key.direction)
    }


def cell_arrays(framework: str, layer: Recurrent, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What a framework's cell holds, native or spelled out, by the last part of its names."""
    plain = layer.replace(direction="forward", merge="concat", order="time", returned_state=False)
    try:
        counterpart, _ = choose(plain.replace(output="last"), get(framework))
    except Exception:
        return packed(plain, arrays)
    native = pack(counterpart, plain, {f"0.forward.{name}": array for name, array in arrays.items()})
    return {name.partition("cell/")[2] or name: array for name, array in native.items()}


def parts_of(native: Any) -> list[Any]:
    """The layers of a Keras stack that hold arrays."""
    return [part for part in getattr(native, "layers", [native]) if part.weights]


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def bound(space: Mapping[str, Any], layer: Recurrent, back: Any) -> Result:
    """What a script has bound: its output, and the states of a lone layer that returns them."""
    states = layer.states if layer.returned_state else ()
    found = {f"0.forward.{name}": back(space[name]) for name in states}
    return Result(back(space["output"]), {key: state.reshape(state.shape[-2:]) for key, state in found.items()})
