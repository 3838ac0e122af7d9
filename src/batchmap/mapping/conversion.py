"""Spec to `Call` and back, by reading the rows of a framework one way or the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from batchmap.errors import Ambiguous, BadValue, BatchmapError, Contradiction, Unsupported, unknown
from batchmap.mapping.calls import Call, Lowered
from batchmap.mapping.framework import Counterpart, Framework
from batchmap.mapping.rows import Driver, Repeat, Row, Same, Site, Wrap, show
from batchmap.spec.batch import Batch
from batchmap.spec.layers import Layer, Recurrent, TimeDistributed, unstack


def lower(layer: Layer, framework: Framework, version: str = "") -> Lowered:
    """Finds the native call that holds a layer exactly.

    version: of the framework that is written for; the newest when empty.
    Raises Unsupported, with the field and the way out, when none does; Ambiguous when a needed word is unknown.
    """
    return choose(layer, framework, version)[1]


def choose(layer: Layer, framework: Framework, version: str = "") -> tuple[Counterpart, Lowered]:
    """The first counterpart that holds a layer, with the call it gives."""
    _check_layers(framework)
    if not isinstance(layer, Layer):
        raise BadValue(
            f"{layer!r} is no layer",
            instead='give a bm.LSTM or another layer; bm.read("LSTM(64)", framework) makes one from text',
            field="layer",
            value=layer,
        )
    refusals: list[BatchmapError] = []
    for counterpart in framework.layers:
        if isinstance(layer, counterpart.kind):
            try:
                return _scoped(counterpart, layer), _lower(layer, counterpart, framework, version)
            except Unsupported as error:
                refusals.append(error)
    if refusals:
        raise refusals[0]
    raise Unsupported(
        f"{framework.title} has no counterpart of {type(layer).__name__}",
        framework=framework.name,
        field="layer",
        value=layer,
    )


def lift(call: Call, framework: Framework, version: str = "", known: Mapping[str, Any] | None = None) -> Layer:
    """Reads a native call as a layer.

    version: of the framework that made it, where defaults or meanings changed; the newest when empty.
    known: words that the native form leaves to its caller, for example features in Keras.
    Raises UnknownWord for a constructor or an argument without a row, Unsupported for a value without a reading.
    """
    known = dict(known or {})
    layer = _lift(call, framework, version, known)
    names = {field.name for field in fields(layer)}  # type: ignore[arg-type]
    for word, value in known.items():
        if word not in names:
            raise unknown(word, f"field of {type(layer).__name__}", names)
        if getattr(layer, word) != value:
            raise Contradiction(
                f"{word}={show(value)} was given, and {framework.title} says {word}={show(getattr(layer, word))}",
                instead=f"leave {word} out",
                field=word,
            )
    return layer


def counterpart_of(name: str, framework: Framework) -> Counterpart:
    """The counterpart whose constructor goes by a name; UnknownWord when there is none."""
    _check_layers(framework)
    for counterpart in framework.layers:
        if counterpart.answers(name):
            return counterpart
    known = list(dict.fromkeys(entry.target.rpartition(".")[2] for entry in framework.layers))
    raise unknown(name, f"layer that batchmap knows in {framework.title}", known, f"one of {', '.join(known)}")


def _check_layers(framework: Framework) -> None:
    if not framework.layers:
        raise Unsupported(
            f"{framework.title} has batch words only",
            "batchmap has no layers for it",
            framework=framework.name,
            field="layer",
        )


def lower_batch(batch: Batch, framework: Framework) -> tuple[dict[str, Any], Site]:
    """Native batch arguments by name; what no row speaks of, and does not follow from the others, is left out."""
    site = Site(framework.name, framework.title)
    arguments = gather(framework.batch, batch, site)
    spoken = {word for row in framework.batch for word in row.words}
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    known = {word: value for word, value in values.items() if value is not None}
    said = Batch(**{word: value for word, value in known.items() if word in spoken})
    for word, value in known.items():
        if getattr(said, word) is None:
            site.left_out[word] = value
    return arguments, site


def undriven(call: Call, counterpart: Counterpart) -> Call:
    """The call of a cell without the function that runs it over time; any other call as it is."""
    for driver in _drivers(counterpart):
        if call.target == driver.target:
            inner = call[driver.argument]
            assert isinstance(inner, Call)
            return inner
    return call


def gather(rows: Sequence[Row], spec: Any, site: Site) -> dict[str, Any]:
    """Native arguments of one call, in the order of its rows."""
    arguments: dict[str, Any] = {}
    for row in rows:
        if row.in_version(site.version):
            arguments.update(row.lower(spec, site))
    return arguments


def scatter(rows: Sequence[Row], given: Mapping[str, Any], site: Site, version: str) -> dict[str, Any]:
    """Words of one call; an argument without a row raises UnknownWord."""
    rows = [row for row in rows if row.in_version(version)]
    natives = {name for row in rows for name in row.natives}
    for name in given:
        if name not in natives:
            raise unknown(name, f"argument of {site.target}", natives)
    words: dict[str, Any] = {}
    for row in rows:
        words.update(row.lift(given, site))
    words.update({row.word: words[row.other] for row in rows if isinstance(row, Same) and row.other in words})
    return words


def _lower(layer: Layer, counterpart: Counterpart, framework: Framework, version: str) -> Lowered:
    site = Site(framework.name, counterpart.target, version)
    if isinstance(layer, TimeDistributed):
        inner = lower(layer.layer, framework, version)
        row = counterpart.wraps[0]
        return Lowered(Call(row.target, {row.argument: inner.call}), inner.notes, inner.left_out)
    if isinstance(layer, Recurrent) and _drivers(counterpart):
        return _lower_driven(layer, counterpart, framework, version)
    if isinstance(layer, Recurrent) and layer.layers > 1 and counterpart.repeat:
        return _lower_stack(layer, counterpart, framework, version)
    for wrap in counterpart.wraps:
        if getattr(layer, wrap.word) == wrap.value:
            inside = _lower(layer.replace(**wrap.neutral), counterpart, framework, version)
            outer = Site(framework.name, wrap.target, version)
            arguments = {wrap.argument: inside.call, **gather(wrap.rows, layer, outer)}
            return Lowered(
                Call(wrap.target, arguments),
                (*inside.notes, *outer.notes),
                {**inside.left_out, **outer.left_out},
            )
    arguments = gather(counterpart.rows, layer, site)
    return Lowered(Call(counterpart.target, arguments), tuple(site.notes), dict(site.left_out))


def _lower_stack(layer: Recurrent, counterpart: Counterpart, framework: Framework, version: str) -> Lowered:
    repeat = counterpart.repeat
    assert repeat is not None
    if layer.returned_state:
        raise Site(framework.name, repeat.target, version).refuse(
            "returned_state",
            True,
            "it returns the output of its last layer only",
            "returned_state=False, or a model with the layers one by one",
        )
    calls: list[Call] = []
    notes: dict[str, None] = {}
    left_out: dict[str, Any] = {}
    for k, single in enumerate(unstack(layer)):
        lowered = _lower(single, counterpart, framework, version)
        notes |= dict.fromkeys(lowered.notes)
        left_out = {**lowered.left_out, **left_out} if k == 0 else left_out
        word, target, argument = repeat.between
        if k and word and getattr(layer, word):
            calls.append(Call(target, {argument: getattr(layer, word)}))
        calls.append(lowered.call)
    return Lowered(Call(repeat.target, {repeat.argument: tuple(calls)}), tuple(notes), left_out)


def _lower_driven(layer: Recurrent, counterpart: Counterpart, framework: Framework, version: str) -> Lowered:
    """A cell, or a list of equal ones, and around it the function that runs it over time."""
    drivers = _drivers(counterpart)
    driver = _driver(counterpart, layer)
    if driver is None:
        raise Site(framework.name, drivers[0].target).refuse(
            drivers[0].word,
            getattr(layer, drivers[0].word),
            f"there are {' and '.join(entry.target for entry in drivers)} only",
            "bm.port, which turns time round before and after",
        )
    inner, outer = (Site(framework.name, target, version) for target in (counterpart.target, driver.target))
    cell = Call(counterpart.target, gather(counterpart.rows, layer.replace(**driver.neutral), inner))
    if layer.layers > 1:
        repeat = counterpart.repeat
        assert repeat is not None
        cell = Call(repeat.target, {repeat.argument: (cell,) * layer.layers})
    arguments = {**dict.fromkeys(driver.cells, cell), **gather(driver.rows, layer, outer)}
    return Lowered(Call(driver.target, arguments), (*inner.notes, *outer.notes), {**inner.left_out, **outer.left_out})


def _drivers(counterpart: Counterpart) -> tuple[Driver, ...]:
    return tuple(wrap for wrap in counterpart.wraps if isinstance(wrap, Driver))


def _driver(counterpart: Counterpart, layer: Layer) -> Driver | None:
    return next((entry for entry in _drivers(counterpart) if getattr(layer, entry.word) == entry.value), None)


def _scoped(counterpart: Counterpart, layer: Layer) -> Counterpart:
    """The counterpart with its arrays under the names that they have in a stack, and under a driver."""
    driver, repeat = _driver(counterpart, layer), counterpart.repeat
    if driver is None or not isinstance(layer, Recurrent):
        return counterpart
    scope = driver.scope + (repeat.scope if repeat and layer.layers > 1 else "")
    return replace(counterpart, packs=tuple(replace(entry, native=scope + entry.native) for entry in counterpart.packs))


def _lift(call: Call, framework: Framework, version: str, known: Mapping[str, Any]) -> Layer:
    for counterpart in framework.layers:
        for driver in _drivers(counterpart):
            if _means(call.target, driver):
                return _lift_driven(call, driver, framework, version, known)
        if drivers := _drivers(counterpart):
            repeat = counterpart.repeat
            if counterpart.answers(call.target) or (repeat and _means(call.target, repeat)):
                driven = Call(drivers[0].target, {drivers[0].argument: call})
                return _lift_driven(driven, drivers[0], framework, version, known)
    for counterpart in framework.layers:
        repeat = counterpart.repeat
        if repeat and _means(call.target, repeat) and isinstance(call.get(repeat.argument), (tuple, list)):
            return _lift_stack(call, framework, version, known)
        for wrap in counterpart.wraps:
            if _means(call.target, wrap):
                return _lift_wrapped(call, counterpart, wrap, framework, version, known)
    counterpart = counterpart_of(call.target, framework)
    site = Site(framework.name, counterpart.target, known=known)
    return counterpart.kind(**scatter(counterpart.rows, call.arguments, site, version))


def _lift_wrapped(
    call: Call,
    counterpart: Counterpart,
    wrap: Wrap,
    framework: Framework,
    version: str,
    known: Mapping[str, Any],
) -> Layer:
    inner = call.get(wrap.argument)
    if not isinstance(inner, Call):
        raise Ambiguous(f"{wrap.target} was given no {wrap.argument}", field=wrap.argument)
    layer = _lift(inner, framework, version, known)
    if counterpart.kind is TimeDistributed:
        return TimeDistributed(layer=layer)
    site = Site(framework.name, wrap.target, known=known)
    given = {name: value for name, value in call.arguments.items() if name != wrap.argument}
    words = scatter(wrap.rows, given, site, version)
    for word, value in wrap.neutral.items():
        if getattr(layer, word) != value:
            raise Unsupported(
                f"{wrap.target} around a layer with {word}={show(getattr(layer, word))} has no canonical reading",
                framework=framework.name,
                field=word,
            )
    return layer.replace(**{wrap.word: wrap.value, **words})


def _lift_driven(call: Call, driver: Driver, framework: Framework, version: str, known: Mapping[str, Any]) -> Layer:
    """Reads a cell, or a list of equal ones, as the function around it runs it."""
    stacks = [_cells(call, name, framework) for name in driver.cells]
    cells = [_lift_cell(cell, framework, version, known) for stack in stacks for cell in stack]
    if any(cell != cells[0] for cell in cells) or len({len(stack) for stack in stacks}) > 1:
        raise Unsupported(
            f"{call.target} holds cells that differ, so they are no stack",
            "read it as a model",
            field="layers",
        )
    site = Site(framework.name, driver.target, known=known)
    words = scatter(driver.rows, call.without(*driver.cells).arguments, site, version)
    return cells[0].replace(**{**words, "layers": len(stacks[0]), driver.word: driver.value})


def _cells(call: Call, name: str, framework: Framework) -> tuple[Call, ...]:
    """The single cells that one argument of a driver holds."""
    cell = call.get(name)
    if not isinstance(cell, Call):
        raise Ambiguous(
            f"{call.target} was given no cell as its {name}",
            instead="write the cell in its place",
            field=name,
        )
    for counterpart in framework.layers:
        repeat = counterpart.repeat
        if repeat and _drivers(counterpart) and _means(cell.target, repeat):
            held = cell.get(repeat.argument)
            if not isinstance(held, (tuple, list)) or not held or not all(isinstance(one, Call) for one in held):
                raise Ambiguous(f"{cell.target} was given no list of cells", field=repeat.argument)
            return tuple(held)
    return (cell,)


def _lift_cell(cell: Call, framework: Framework, version: str, known: Mapping[str, Any]) -> Layer:
    counterpart = counterpart_of(cell.target, framework)
    site = Site(framework.name, counterpart.target, known=known)
    return counterpart.kind(**scatter(counterpart.rows, cell.arguments, site, version))


def _lift_stack(call: Call, framework: Framework, version: str, known: Mapping[str, Any]) -> Layer:
    repeat = next(c.repeat for c in framework.layers if c.repeat and _means(call.target, c.repeat))
    for name in call.arguments:
        if name not in (repeat.argument, "name", "trainable"):
            raise unknown(name, f"argument of {call.target}", (repeat.argument, "name", "trainable"))
    between: set[float] = set()
    singles: list[Recurrent] = []
    for entry in call[repeat.argument]:
        if not isinstance(entry, Call):
            raise Ambiguous(f"{call.target} holds {entry!r}, which is no layer", field=repeat.argument)
        if repeat.between[0] and _same(entry.target, repeat.between[1]):
            between.add(entry[repeat.between[2]])
            continue
        features = {"features": known["features"]} if "features" in known and not singles else {}
        layer = _lift(entry, framework, version, features)
        if not isinstance(layer, Recurrent):
            raise Unsupported(f"{call.target} with {entry.target} inside is a model, not a layer", field="layers")
        singles.append(layer)
    if not singles:
        raise Ambiguous(f"{call.target} holds no layer", field=repeat.argument)
    top, first = singles[-1], singles[0]
    stack = top.replace(
        features=first.features,
        layers=len(singles),
        **({repeat.between[0]: between.pop()} if len(between) == 1 else {}),
    )
    expected = [part.replace(features=None) for part in unstack(stack)]
    if between or expected != [part.replace(features=None) for part in singles]:
        raise Unsupported(
            f"{call.target} holds layers that differ, so they are no stack",
            "read it as a model",
            field="layers",
        )
    return stack


def _means(name: str, row: Wrap | Repeat) -> bool:
    return any(_same(name, target) for target in (row.target, *row.aliases))


def _same(name: str, target: str) -> bool:
    return bool(target) and (name == target or target.endswith("." + name))
