"""Spec, text and arguments of one framework into those of another; nothing here needs a framework installed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from batchmap.errors import Ambiguous, BadValue, Unsupported, unknown
from batchmap.frameworks import get
from batchmap.mapping.calls import Call
from batchmap.mapping.conversion import choose, lift, lower, lower_batch, scatter
from batchmap.mapping.framework import Framework
from batchmap.mapping.rows import Site
from batchmap.source.scan import scan
from batchmap.source.write import class_name, expression
from batchmap.spec.batch import Batch
from batchmap.spec.layers import Layer, Recurrent, unstack
from batchmap.spec.model import Model
from batchmap.spec.shapes import Axis, Shape, Shapes, layer_shapes
from batchmap.spec.terms import Term

LITTLE = (None, 1)  # values that a batch word has when nobody speaks of it


@dataclass(frozen=True)
class Spec:
    """What was read where both a layer and a batch were described."""

    layer: Layer
    batch: Batch


@dataclass(frozen=True)
class Translation:
    """A spec in the words of one framework; prints as text to copy, then what changed meaning.

    parts: place ("layer", "DataLoader", "fit", …) to its text. arguments: place to native arguments.
    notes: sentences on what changed meaning. left_out: canonical words that the framework leaves to its caller;
    giving them back when reading the text restores the spec.
    """

    spec: Layer | Batch | Spec
    framework: str
    parts: Mapping[str, str]
    arguments: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The translation alone, without the notes."""
        return ", ".join(self.parts.values())

    def __str__(self) -> str:
        return "\n".join([self.text, *(f"  {_sentence(note)}" for note in self.notes)])

    __repr__ = __str__

    def json(self) -> dict[str, Any]:
        """The translation as plain data."""
        return {
            "framework": self.framework,
            "spec": repr(self.spec),
            "parts": dict(self.parts),
            "notes": list(self.notes),
            "left_out": dict(self.left_out),
        }


def read(source: Any, framework: str, *, version: str = "", **known: Any) -> Layer | Batch | Spec | Model:
    """Reads what another framework says as a spec: source text, words, a configuration, or a live object.

    source: text with one layer in it, a dict of words ({"batch_size": 20, "num_steps": 35}), a Keras
    configuration, or a live layer or model. Text is parsed and never executed.
    version: of the framework, where meanings changed ("2.11" for Keras 2). known: words that the text leaves out,
    for example features=8.
    Raises UnknownWord for a word without a row, Ambiguous where more has to be said.

    >>> read("LSTM(64, return_sequences=True)", "keras", features=8)
    LSTM(features=8, units=64)
    >>> read({"train_batch_size": 512, "gradient_accumulation_steps": 4}, "deepspeed", replicas=8).cases_per_replica
    16
    """
    target = get(framework)
    if isinstance(source, str):
        return lift(scan(source, target), target, version, known)
    if isinstance(source, Call):
        return lift(source, target, version, known)
    if isinstance(source, Mapping):
        return _read_words(source, target, version, known)
    if target.package and target.module("live").owns(source):
        return _read_live(source, target)
    raise BadValue(
        f"{target.title} cannot read {type(source).__name__}",
        instead="give source text, a dict of words, a configuration, or a live layer or model of that framework",
        field="source",
        value=source,
    )


def translate(source: Any, origin: str, framework: str, *, version: str = "", **known: Any) -> Translation:
    """Says in one framework what was said in another.

    source, version, known: as for `read`. cases_first=True or False asks for that order of the data, whatever it
    was. Raises Unsupported where the other framework has no exact counterpart.

    >>> print(translate("LSTM(64, return_sequences=True)", "keras", "torch", features=8))
    nn.LSTM(8, 64, batch_first=True)
    """
    order = known.pop("cases_first", None)
    spec = read(source, origin, version=version, **known)
    if isinstance(spec, Model):
        raise Ambiguous(
            "this is a model of several layers",
            instead="bm.port(model, framework) carries models over",
            field="source",
        )
    turned = False
    if isinstance(spec, Recurrent) and order not in (None, spec.cases_first):
        spec, turned = spec.replace(cases_first=order), True
    said = _say_without_states(spec, framework) if "returned_state" not in known else say(spec, framework)
    if turned:
        axes = "[cases, time, features]" if order else "[time, cases, features]"
        said = replace(said, notes=(f"the data are {axes} here: transpose them", *said.notes))
    if isinstance(source, Mapping):
        said = replace(said, notes=(*_meanings(source, get(origin), get(framework)), *said.notes))
    return said


def _say_without_states(spec: Layer | Batch | Spec, framework: str) -> Translation:
    """What `say` gives; final states that nobody has asked for are left out where there is no place for them."""
    try:
        return say(spec, framework)
    except Unsupported as error:
        layer = spec.layer if isinstance(spec, Spec) else spec
        if error.fields.get("field") != "returned_state" or not isinstance(layer, Recurrent):
            raise
        bare = layer.replace(returned_state=False)
        said = say(replace(spec, layer=bare) if isinstance(spec, Spec) else bare, framework)
        note = f"The final states are left out: {error.fields['target']} {error.because.removeprefix('it ')}."
        return replace(said, spec=spec, notes=(note, *said.notes))


def say(spec: Layer | Batch | Spec, framework: str) -> Translation:
    """Puts a spec into the words of a framework."""
    target = get(framework)
    layer = spec.layer if isinstance(spec, Spec) else spec if isinstance(spec, Layer) else None
    batch = spec.batch if isinstance(spec, Spec) else spec if isinstance(spec, Batch) else None
    parts: dict[str, str] = {}
    notes: list[str] = []
    left_out: dict[str, Any] = {}
    places: dict[str, Mapping[str, Any]] = {}
    if batch is not None:
        native, site = _lower_batch(batch, target)
        notes += site.notes
        silent = {word: value for word, value in site.left_out.items() if value not in LITTLE}
        left_out |= silent
        lost = [f"{word}={value!r}" for word, value in silent.items() if not any(word in note for note in site.notes)]
        if lost and layer is None:
            notes.append(f"{target.title} has no word for {', '.join(lost)}")
        for place, arguments in native.items():
            if place == "input":
                continue
            places[place] = arguments
            inside = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            parts[place] = f"{place}({inside})" if place.isidentifier() or "." in place else inside
    if layer is not None:
        lowered = lower(layer, target)
        places["layer"] = lowered.call.arguments
        parts["layer"] = expression(lowered.call, target)
        notes += lowered.notes
        left_out |= lowered.left_out
        if batch is not None and isinstance(layer, Recurrent):
            x = layer_shapes(layer, batch)["x"]
            places["input"] = dict(x.axes)
            parts["input"] = f"x: [{', '.join('?' if size is None else str(size) for size in x.sizes)}]"
    if not parts:
        raise Unsupported(
            f"{target.title} has no word for {batch!r}",
            "; ".join(notes),
            framework=framework,
            field="batch",
            value=batch,
        )
    return Translation(spec, framework, parts, places, tuple(dict.fromkeys(notes)), left_out)


def arguments(layer: Layer, framework: str, batch: Batch | None = None) -> dict[str, dict[str, Any]]:
    """The native arguments of a layer and a batch, by the place they go to.

    Returns "layer" (constructor), "input" and "state" (axes and sizes), and the places of batch words.

    >>> from batchmap.spec.layers import LSTM
    >>> arguments(LSTM(features=8, units=64), "torch", Batch(cases=32, sequence_length=20))["layer"]
    {'input_size': 8, 'hidden_size': 64, 'batch_first': True}
    """
    target = get(framework)
    places: dict[str, dict[str, Any]] = {"layer": dict(lower(layer, target).call.arguments)}
    if isinstance(layer, Recurrent):
        found = shapes(layer, batch, framework)
        places["input"] = dict(found["x"].axes)
        places["state"] = {name: dict(found[name].axes) for name in layer.states}
    if batch is not None:
        native, _ = _lower_batch(batch, target)
        for place, values in native.items():
            places.setdefault(place, {}).update(values)
    return places


def shapes(layer: Recurrent, batch: Batch | None = None, framework: str | None = None) -> Shapes:
    """Predicts the shape of input, output, states and weights by named axes.

    framework: gives that framework's axis order and array names; canonical ones when left out.

    >>> from batchmap.spec.layers import LSTM
    >>> shapes(LSTM(features=3, units=5, layers=2), Batch(cases=4, sequence_length=7), "torch")["h"].sizes
    (2, 4, 5)
    """
    if not isinstance(layer, Recurrent):
        raise BadValue(
            f"shapes are those of a recurrent layer, not of {layer!r}",
            instead="give a bm.LSTM, bm.GRU or bm.RNN",
            field="layer",
            value=layer,
        )
    canonical = layer_shapes(layer, batch)
    if framework is None:
        return canonical
    target = get(framework)
    choose(layer, target)
    cases = canonical["h"].axes[2]
    tensors = {name: shape for name, shape in canonical.items() if name == "x" or name.startswith("y")}
    joined = "(" in target.states
    for state in layer.states:
        units = canonical[state].axes[-1]
        count = layer.layers * len(layer.directions)
        if joined:
            stack: Axis = ("layers . directions", count)
            tensors[state] = Shape((stack, cases, units), "cases are not first here" if layer.cases_first else "")
        else:
            note = f"one for each of {count} layers and directions" if count > 1 else ""
            tensors[state] = Shape((cases, units), note)
    if layer.features is not None:
        tensors |= _native_weights(layer, target)
    return Shapes(tensors)


def write(layer: Layer | Model, framework: str, batch: Batch | None = None, *, allow: Sequence[str] = ()) -> str:
    """Writes runnable source, in the idiom of a framework, that does not import batchmap.

    layer: a recurrent layer, or a model. batch: gives the sizes of the input that the source makes.
    allow: fields that a model may lose, as for `port`; of a layer alone, a comment says what is left out.

    >>> from batchmap.spec.layers import GRU
    >>> print(write(GRU(features=8, units=64, layers=2), "torch"), end="")
    from torch import nn
    <BLANKLINE>
    gru = nn.GRU(8, 64, num_layers=2, batch_first=True)
    """
    target = get(framework)
    _check_package(target)
    if isinstance(layer, Model):
        from batchmap.mapping.plan import plan, split

        model, _ = split(layer, {}, target)
        planned = plan(model, target, allow=allow)
        whole: str = target.module("source").write_model(planned, title=f"{class_name(model.name)}.", weights=None)
        return whole
    if not isinstance(layer, Recurrent):
        call = lower(layer, target).call
        from batchmap.source.write import imports, module, targets

        name = type(layer).__name__.lower()
        return module("", imports(targets(call), target), [f"{name} = {expression(call, target, used=len(name) + 3)}"])
    text: str = target.module("source").write_layer(layer, batch)
    lost = _undropped(layer, target)
    return f"# Without {lost}, which acts in training only.\n{text}" if lost else text


def build(layer: Layer | Model, framework: str, *, allow: Sequence[str] = ()) -> Any:
    """Builds the live object; its weights are the framework's own random ones.

    allow: fields that a model may lose, as for `port`. What acts in training only and has no place in the
    framework's own layer is left out of a layer alone.
    Raises MissingLibrary where the framework is not installed.
    """
    target = get(framework)
    _check_package(target)
    live = target.module("live")
    return (
        live.make(write(layer, framework, allow=allow), layer.name) if isinstance(layer, Model) else live.build(layer)
    )


def _undropped(layer: Recurrent, target: Framework) -> str:
    """The kinds of dropout of a lone layer that its source has no place for."""
    rates = {
        word: rate for word in ("dropout", "recurrent_dropout", "dropout_between") if (rate := getattr(layer, word))
    }
    if not rates:
        return ""
    held = target.module("source").inside(layer, False).replace(**rates)
    left_out: Mapping[str, Any] = rates
    with suppress(Unsupported):  # else it is spelled out, without any of them
        left_out = lower(held, target).left_out
    return " and ".join(f"{word}={rate}" for word, rate in rates.items() if word in left_out)


def _meanings(words: Mapping[str, Any], origin: Framework, target: Framework) -> tuple[str, ...]:
    """A sentence on each word that means something else, or nothing, where it goes."""
    places = Counter(term.of for term in origin.terms if term.native in words)
    notes = []
    for word in words:
        terms = [term for term in origin.terms if term.native == word]
        if not terms:
            continue
        term = max(terms, key=lambda term: places[term.of])
        there = [other for other in target.terms if other.native == word]
        if any(other.canonical == term.canonical for other in there):
            continue
        note = f'"{word}" means {_meaning(term, origin)}'
        if there:
            note += f"; but {_meaning(there[0], target)}"
        notes.append(note)
    if origin.script_note and any(word in origin.script_words for word in words):
        notes.append(origin.script_note)
    return tuple(notes)


def _meaning(term: Term, framework: Framework) -> str:
    place = f"{framework.title} {term.of}".rstrip()
    return f"{term.canonical.replace('_', ' ')} in {place} ({term.sense})"


def _check_package(target: Framework) -> None:
    if not target.package:
        raise Unsupported(
            f"{target.title} has batch words only",
            "batchmap has no layers for it",
            framework=target.name,
            field="layer",
        )


def _lower_batch(batch: Batch, target: Framework) -> tuple[dict[str, dict[str, Any]], Site]:
    """Native batch arguments by the place they belong to."""
    if not target.batch:
        raise Unsupported(f"{target.title} has no batch words", framework=target.name, field="batch")
    arguments, site = lower_batch(batch, target)
    places = {name: getattr(row, "of", "") for row in target.batch for name in row.natives}
    words = {name: row.words[0] for row in target.batch if row.words for name in row.natives}
    native: dict[str, dict[str, Any]] = {}
    for name, value in arguments.items():
        if value is not None and not (value == 1 and words[name] in ("accumulation", "replicas")):
            native.setdefault(places[name], {})[name] = value
    return native, site


def _read_words(
    source: Mapping[str, Any], target: Framework, version: str, known: Mapping[str, Any]
) -> Layer | Batch | Spec | Model:
    if "class_name" in source and find_spec(f"{target.package or 'batchmap'}.config"):
        return _read_config(source, target, version, known)
    words = dict(source)
    script = {name: words.pop(name) for name in list(words) if name in target.script_words}
    layer = target.script(script) if script and target.script else None
    natives = {name for row in target.batch for name in row.natives}
    strange = [name for name in words if name not in natives]
    if strange:
        raise unknown(strange[0], f"batch word of {target.title}", [*natives, *target.script_words])
    for word in known:
        if word not in Batch.__dataclass_fields__:
            raise unknown(word, "word of a Batch", Batch.__dataclass_fields__)
    batch = None
    if words or layer is None:
        site = Site(target.name, target.title, known=known)
        lifted = scatter(target.batch, words, site, version)
        given = {word: value for word, value in lifted.items() if value is not None}
        for word, value in known.items():
            if given.get(word, value) != value and given[word] not in LITTLE:
                raise Ambiguous(f"{word}={value!r} was given, and {target.title} says {given[word]!r}", field=word)
        batch = Batch(**{**given, **known})
    if layer is None:
        assert batch is not None
        return batch
    return layer if batch is None else Spec(layer, batch)


def _read_config(source: Mapping[str, Any], target: Framework, version: str, known: Mapping[str, Any]) -> Layer | Model:
    """Reads a configuration of Keras: a layer's, or a model's."""
    config = target.module("config")
    if source["class_name"] in ("Sequential", "Functional", "Model"):
        model: Model = config.read_model(dict(source), None, version)[0]
        return model
    layer: Layer = config.read_layer(dict(source), None, version, known.get("features"))[0]
    return layer


def _read_live(source: Any, target: Framework) -> Layer | Model:
    live = target.module("live")
    found: Layer | Model
    try:
        found, _ = live.read_layer(source)
    except (Unsupported, LookupError):
        found, _ = live.read_model(source)
    return found


def _native_weights(layer: Recurrent, target: Framework) -> dict[str, Shape]:
    """Shapes of the native arrays; those of a stack that is a list of layers are numbered."""
    from batchmap.mapping.arrays import layout

    counterpart, _ = choose(layer, target)
    if layer.layers == 1 or counterpart.repeat is None or counterpart.repeat.scope:
        return {name: Shape(axes) for name, axes in layout(counterpart, layer).items()}
    return {
        f"{index}/{name}": Shape(axes)
        for index, part in enumerate(unstack(layer))
        for name, axes in layout(counterpart, part).items()
    }


def _sentence(note: str) -> str:
    first = note.partition(" ")[0]
    note = note[:1].upper() + note[1:] if first.isalpha() else note
    return note if note.endswith((".", "?", "!")) else note + "."
