"""Where models come from: live objects, files, ports already written; and how each is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from batchmap import files
from batchmap.errors import Ambiguous, BadFile, BadValue, Unsupported, unknown
from batchmap.frameworks import get
from batchmap.mapping.arrays import check
from batchmap.mapping.framework import Framework
from batchmap.numbers.verify import Side, reference
from batchmap.source.write import identifier
from batchmap.spec.layers import Layer, Recurrent, TimeDistributed
from batchmap.spec.model import Input, Model, Node, framed
from batchmap.spec.parameters import parameters
from batchmap.spec.shapes import model_shapes

SPOKES = ("keras", "tensorflow", "torch")
Weights = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Source:
    """A model that was read, wherever it came from.

    title: as people call what it came from ("Keras 2.0.8", "PyTorch 2.15.0"). framework: name of its spoke.
    live: the live object, where there is one. other_frame: the model has the axes of cases and time in the other
    order than the live object.
    """

    name: str
    title: str
    framework: str
    model: Model
    weights: Weights
    live: Any = None
    other_frame: bool = False

    @property
    def version(self) -> str:
        """Of the framework it came from; nothing for a spec."""
        return self.title.partition(" ")[2]

    @property
    def side(self) -> Side:
        """The source as one side of a comparison: the live object, else the float64 reference."""
        if self.live is None:
            return replace(reference(self.model, self.weights), name=self.name)
        side = live_side(self.live, self.framework, self.name, self.model, self.weights)
        return _transposed(side, self.model) if self.other_frame else side


def in_frame(source: Source, cases_first: bool) -> Source:
    """A source whose model reads [cases, time, ...], or [time, cases, ...], whichever its live object does."""
    model = framed(source.model, cases_first)
    changed = model != source.model
    return replace(source, model=model, other_frame=changed) if changed else source


def read_source(source: Any, *, weights: str | Path | Mapping[str, Any] | None = None, name: str = "") -> Source:
    """Reads whatever `port` takes as a model with its weights; every number of them is finite."""
    found = source if isinstance(source, Source) else _read(source, weights, name)
    for node in found.model:
        layer = node.layer.layer if isinstance(node.layer, TimeDistributed) else node.layer
        if getattr(layer, "features", 0) is None or (parameters(layer) and node.name not in found.weights):
            raise Ambiguous(
                f'layer "{node.name}" of {found.name} has no weights yet',
                instead="build the model first, by calling it once on data",
                field="weights",
            )
    check_finite(found.name, found.weights)
    return found


def check_finite(name: str, weights: Weights) -> None:
    """Raises BadValue for a number that is not finite: with it, nothing could be compared."""
    for node, arrays in weights.items():
        for key, array in arrays.items():
            if not np.isfinite(array).all():
                raise BadValue(
                    f'array {key} of layer "{node}" of {name} holds numbers that are not finite',
                    "nothing that is computed with it could be checked",
                    "go back to a checkpoint from before its training went wrong",
                    field=key,
                )


def _read(source: Any, weights: str | Path | Mapping[str, Any] | None, name: str) -> Source:
    if isinstance(source, Model):
        if not isinstance(weights, Mapping):
            raise Ambiguous(
                f'model "{source.name}" comes without its arrays',
                instead="give weights={layer: {name: array}}",
                field="weights",
            )
        return Source(source.name, "batchmap", "keras", source, _checked(source, weights))
    if isinstance(source, (str, Path)):
        return _read_file(Path(source), weights, name)
    framework = owner(source)
    live = framework.module("live")
    alone = lone(source)
    if alone is not None:
        layer, arrays, _ = alone
        model, stored = as_model(layer, arrays or {}, name or type(source).__name__.lower())
    else:
        model, stored = live.read_model(source)
    model = replace(model, name=name or _model_name(model.name, "model"))
    return Source(model.name, f"{framework.title} {framework.version}", framework.name, model, stored, source)


def _checked(model: Model, weights: Weights) -> Weights:
    """The arrays that were given for a model: those of every layer, of the right sizes, and no others."""
    names = [node.name for node in model]
    for name in weights:
        if name not in names:
            raise unknown(name, f'layer of model "{model.name}"', names, f"one of {', '.join(names)}")
    checked = {}
    for node in model:
        arrays = {key: np.asarray(array) for key, array in weights.get(node.name, {}).items()}
        try:
            check(node.layer, arrays)
        except BadValue as error:
            raise BadValue(f'layer "{node.name}": {error.what}', error.because, error.instead, **error.fields) from None
        if arrays:
            checked[node.name] = arrays
    return checked


def _read_file(path: Path, weights: str | Path | Mapping[str, Any] | None, name: str) -> Source:
    from batchmap.frameworks.keras import config as keras

    if path.is_dir() and (path / "report.json").is_file():
        raise BadValue(
            f"{path} is a port, and a port is not read back",
            instead="port the file it came from; bm.verify(file, folder) compares the two",
            field="source",
            value=str(path),
        )
    config = None
    if weights is not None:
        if isinstance(weights, Mapping):
            raise BadValue(
                f"the weights of {path.name} must be in a file too, not in a dict",
                instead="give the path of the weights",
                field="weights",
            )
        config = files.read_config(path)
        archive = files.read(weights, config)
    else:
        archive = files.read(path)
    if archive.config is None and config is None:
        raise BadFile(
            f"{path}: it holds weights only",
            instead="give the architecture first: bm.port('architecture.json', framework, weights='weights.h5')",
            path=str(path),
        )
    architecture = config if archive.config is None else archive.config
    try:
        model, stored = keras.read_model(dict(architecture or {}), archive.weights, archive.made_by.partition(" ")[2])
    except BadValue as error:
        raise BadFile(f"{path}: {error.what}", error.because, error.instead, path=str(path)) from error
    model = replace(model, name=name or _model_name(model.name, path.stem.split(".")[0]))
    return Source(path.name, archive.made_by, "keras", model, stored)


def _model_name(name: str, other: str) -> str:
    """The model's own name, or another where Keras made it up."""
    plain = name.rstrip("0123456789_")
    return identifier(other, "model") if plain in ("sequential", "functional", "model", "") else name


def side_of(other: Any) -> Side:
    """The other side of a comparison."""
    if isinstance(other, (str, Path)):
        path = Path(other)
        if not path.is_dir():
            return read_source(path).side
        live, origin = _load_port(path)
        return live_side(live, origin, path.name)
    framework = owner(other)
    return live_side(other, framework.name, type(other).__name__)


def _load_port(path: Path) -> tuple[Any, str]:
    """Runs the model.py of a port and loads its weights."""
    for name in ("model.py", "report.json"):
        if not (path / name).is_file():
            raise BadFile(
                f"{path}: there is no {name}, so this is no port",
                instead="give a folder that batchmap port wrote",
                path=str(path),
            )
    try:
        report = json.loads((path / "report.json").read_text())
        framework = spoke(report["target"]["framework"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path}/report.json: it is damaged", instead="port the file again", path=str(path)) from error
    live = framework.module("live").load(path)
    return live, framework.name


def live_side(live: Any, framework: str, name: str, model: Model | None = None, weights: Weights | None = None) -> Side:
    """A live model as one side of a comparison; of a lone recurrent layer, its output without the states."""
    spoke = get(framework).module("live")
    alone = lone(live)
    count = alone and (2 if getattr(alone[0], "merge", "") == "separate" else 1)

    def run(inputs: Mapping[str, Any]) -> list[Any]:
        found: list[Any] = spoke.run(live, list(inputs.values()))
        return found[:count]

    def trace(inputs: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = spoke.trace(live, list(inputs.values()))
        return found

    return Side(name=name, run=run, trace=trace, model=model, weights=weights, dtype=spoke.dtype(live))


def _transposed(side: Side, model: Model) -> Side:
    """A side that is fed, and asked, in the other order of cases and time; it shows nothing of its layers."""
    shapes = model_shapes(model)
    frames = (("cases", "time"), ("time", "cases"))

    def turn(name: str, array: Any) -> Any:
        return np.swapaxes(array, 0, 1) if shapes[name].names[:2] in frames else array

    def run(inputs: Mapping[str, Any]) -> list[Any]:
        outputs = side.run({name: turn(name, array) for name, array in inputs.items()})
        return [turn(name, output) for name, output in zip(model.outputs, outputs, strict=True)]

    return replace(side, run=run, trace=None)


def spoke(framework: str) -> Framework:
    """The framework of a name, if it has layers; Unsupported for a tool with batch words only."""
    target = get(framework)
    if not target.package:
        raise Unsupported(
            f"{target.title} has batch words only",
            "batchmap has no layers for it",
            f"one of {', '.join(SPOKES)}",
            framework=framework,
            field="framework",
        )
    return target


def owner(thing: Any) -> Framework:
    """The framework that a live object belongs to; BadValue when there is none."""
    for name in SPOKES:
        framework = get(name)
        if framework.module("live").owns(thing):
            return framework
    if isinstance(thing, type):
        raise BadValue(
            f"{thing.__name__} is a class, and no model",
            instead=f"give an object of it, {thing.__name__}(...)",
            field="source",
            value=thing,
        )
    raise BadValue(
        f"{type(thing).__name__} is no model that batchmap can read",
        instead="give a live Keras, PyTorch or TensorFlow model, or the path of a Keras file",
        field="source",
        value=thing,
    )


def lone(source: Any) -> tuple[Layer, Any, Any] | None:
    """A live recurrent layer that stands alone: its layer, its arrays (None before it is built), itself."""
    if isinstance(source, (str, Path, Model, Source)):
        return None
    live = owner(source).module("live")
    try:
        layer, arrays = live.read_layer(source)
    except (Unsupported, LookupError, Ambiguous):
        return None
    return (layer, arrays, source) if isinstance(layer, Recurrent) else None


def as_model(layer: Layer, arrays: Mapping[str, Any], name: str) -> tuple[Model, dict[str, Any]]:
    """A lone recurrent layer as a model of one node, with its arrays."""
    assert isinstance(layer, Recurrent)
    frame = ("cases", "time") if layer.cases_first else ("time", "cases")
    entry = Input("x", (*frame, "features"), (None, None, layer.features), layer.dtype)
    node = Node("layer", replace(layer, returned_state=False), ("x",))
    return Model(name, (entry,), (node,), ("layer",)), {"layer": arrays}
