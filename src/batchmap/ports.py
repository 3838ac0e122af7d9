"""Whole models carried over: read, planned, written or built, and proved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from batchmap.errors import Ambiguous, BadValue, Mismatch, MissingLibrary, Unsupported, unknown
from batchmap.files import folder, safetensors
from batchmap.frameworks import get
from batchmap.mapping.arrays import fold
from batchmap.mapping.conversion import choose, lower, undriven
from batchmap.mapping.framework import Framework
from batchmap.mapping.plan import LOSSES, NATIVE, SPELLED, Place, Plan, accepted, losses, plan, split
from batchmap.numbers.diagnose import distance
from batchmap.numbers.probes import probes
from batchmap.numbers.report import Report
from batchmap.numbers.verify import compare, reference
from batchmap.source.write import WIDTH, class_name, expression
from batchmap.sources import (
    Source,
    Weights,
    as_model,
    check_finite,
    in_frame,
    live_side,
    lone,
    owner,
    read_source,
    side_of,
    spoke,
)
from batchmap.spec.layers import Dense, Layer, Recurrent, TimeDistributed
from batchmap.tables import columns
from batchmap.version import __version__

FILES = ("model.py", "model.safetensors", "report.json", "README.md")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Port:
    """What a port did: how each layer was carried over, what was checked, what is worth knowing; prints as a table.

    out: the folder that was written, or None. reports: one for each thing the port was compared with.
    """

    source: Source
    plan: Plan
    reports: tuple[Report, ...]
    notes: tuple[str, ...]
    out: Path | None = None
    names: tuple[str, ...] = ()
    text: str = field(default="", repr=False)

    @property
    def rows(self) -> tuple[tuple[str, str, str, str], ...]:
        """One row a layer: its name, what it was, what it is, how."""
        return tuple(_row(place, self.plan, self.source) for place in self.plan.places)

    def __str__(self) -> str:
        source, target = self.source, self.plan.framework
        count = sum(array.size for arrays in source.weights.values() for array in arrays.values())
        opening = f"{source.name}: {source.title}, {len(self.plan.places)} layers, {_grouped(count)} weights."
        if source.live is None and source.version:
            opening += f" {get(source.framework).title} was not needed to read it."
        titles = (source.title.removesuffix(f" {source.version}"), target.title)
        if titles[0] == titles[1]:
            titles = (source.title, f"{target.title} {target.version}")
        header = ("layer", *titles, "how")
        lines = [opening, "", *columns((header, *self.rows)), ""]
        if self.reports:
            checked = [("checked", "against", "cases x time", "furthest off")]
            checked += [row for report in self.reports for row in _checked(report)]
            lines += [*columns(checked), ""]
        lines += [f"  {note}" for note in self.notes]
        if self.out is not None:
            lines.append(f"Wrote {self.out}/: {', '.join(self.names)}")
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        """The port as plain data: what stands in report.json."""

        return {
            "batchmap": __version__,
            "source": {
                "name": self.source.name,
                "made_by": self.source.title,
                "weights": {
                    f"{node}/{name}": list(array.shape)
                    for node, arrays in self.source.weights.items()
                    for name, array in arrays.items()
                },
            },
            "target": {"framework": self.plan.framework.name, "version": self.plan.framework.version},
            "model": repr(self.source.model),
            "layers": [
                {
                    "layer": row[0],
                    "from": row[1],
                    "to": row[2],
                    "how": row[3],
                    "why": place.why,
                    "notes": list(place.notes),
                }
                for row, place in zip(self.rows, self.plan.places, strict=True)
            ],
            "padding": self.plan.padding,
            "losses": list(self.plan.losses),
            "notes": list(self.notes),
            "checked": [report.json() for report in self.reports],
        }


def port(
    source: Any,
    framework: str,
    *,
    out: str | Path | None = None,
    weights: str | Path | Mapping[str, Any] | None = None,
    native_only: bool = False,
    padding: str = "right",
    cases_first: bool | None = None,
    allow: Sequence[str] = (),
    name: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Carries a model over into another framework, weights and all, and proves that it computes the same.

    source: a live layer or model, a Keras file (.h5, .keras), an architecture (.json) with `weights`, or a spec
    `Model` with `weights`. out: a folder to write model.py, model.safetensors, report.json and README.md to;
    the result is then a `Port`. Without it the result is the live object.
    native_only: refuse what the framework's own layers cannot hold, instead of spelling the cell out.
    padding: "right", which the emitted source checks, or "any", which is slower. cases_first: the port reads
    [cases, time, ...], or else [time, cases, ...]; as the source does when left out. allow: fields that may be lost
    ("carried_state", "dropout", "recurrent_dropout"); each stands in the report. name: of the model. overwrite: an
    earlier port in `out` may go.
    progress: called with a sentence at each step.
    Raises Unsupported where no exact port exists, BadFile for a damaged or foreign file, Mismatch where the result
    does not compute the same; nothing is written then.
    """
    tell = progress or (lambda text: None)
    _check_padding(padding)
    _check_losses(allow)
    if cases_first not in (True, False, None):
        raise BadValue(
            f"cases_first must be True or False, not {cases_first!r}", field="cases_first", value=cases_first
        )
    target = spoke(framework)
    if out is not None:
        folder.check(out, FILES, overwrite)
    tell("Reading it")
    alone = lone(source)
    if alone is not None and out is None:
        return _port_lone(*alone, target, native_only, tuple(allow), cases_first)
    found = read_source(source, weights=weights, name=name)
    if cases_first is not None:
        found = in_frame(found, cases_first)
    tell("Planning each layer")
    planned, arrays = _planned(found, target, native_only, padding, tuple(allow))
    writer = target.module("source")
    title = _title(class_name(found.model.name), f"{found.name} ({found.title})", checked=out is not None)
    text = writer.write_model(planned, title=title, weights="model.safetensors" if out is not None else None)
    native = writer.native_arrays(planned, arrays)
    tell("Running it and comparing")
    live, reports, notes = _prove(found, planned, text, native, needed=out is None)
    notes = (*_reasons(planned), *_frame_note(found), *planned.losses, *notes, *_padding_note(planned, found.framework))
    result = Port(found, planned, reports, notes, text=text)
    if out is None:
        return live
    tell(f"Writing {out}")
    result = replace(result, out=Path(out), names=FILES)
    contents = {
        "model.py": text.encode(),
        "model.safetensors": safetensors.encode(native),
        "report.json": (json.dumps(result.json(), indent=2) + "\n").encode(),
        "README.md": _readme(found, target).encode(),
    }
    folder.write(out, contents, overwrite)
    return result


def weights(source: Any, framework: str, *, weights: str | Path | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arrays of a model under the names that another framework gives them; no framework is needed for a file.

    source, weights: as for `port`. Returns native name to NumPy array, in the layout that `port` would write.
    """
    target = spoke(framework)
    found = read_source(source, weights=weights)
    planned, arrays = _planned(found, target, False, "right", LOSSES)
    native: dict[str, Any] = target.module("source").native_arrays(planned, arrays)
    return native


def verify(right: Any, other: Any, *, padding: str = "right", tolerance: float | None = None) -> Report:
    """Says whether two models compute the same, and if not where, how far off, and which mistake explains it.

    right, other: live models, Keras files, or folders that `port` wrote (whose model.py is run). The first one is
    taken to be right and has to be readable as a model. The report is true when both agree.
    """
    _check_padding(padding)
    if tolerance is not None and (isinstance(tolerance, bool) or not tolerance >= 0):
        raise BadValue(f"tolerance must be a number from 0 up, not {tolerance!r}", field="tolerance", value=tolerance)
    found = read_source(right)
    side = side_of(other)
    return compare(found.side, side, probes(found.model, holes=padding == "any"), tolerance=tolerance)


def _check_padding(padding: str) -> None:
    if padding not in ("right", "any"):
        raise BadValue(f'padding must be "right" or "any", not {padding!r}', field="padding", value=padding)


def _check_losses(allow: Sequence[str]) -> None:
    if isinstance(allow, str):
        raise BadValue(f"allow must be a list of fields, not {allow!r}", instead=f'allow=("{allow}",)', field="allow")
    for word in allow:
        if word not in LOSSES:
            raise unknown(word, "field that may be lost", LOSSES, f"one of {', '.join(LOSSES)}")


def _title(name: str, source: str, checked: bool) -> str:
    """The docstring of a ported module: in one line where it fits."""
    end = "; report.json says what was checked." if checked else "."
    line = f"{name}, ported from {source} by batchmap{end}"
    return line if len(line) <= WIDTH - 6 else f"{name}, ported by batchmap.\n\nFrom {source}{end}"


def _planned(
    found: Source, target: Framework, native_only: bool, padding: str, allow: tuple[str, ...]
) -> tuple[Plan, Weights]:
    model, arrays = split(found.model, found.weights, target, padding)
    return plan(model, target, native_only=native_only, padding=padding, allow=allow), arrays


def _prove(
    found: Source, planned: Plan, text: str, native: Mapping[str, Any], needed: bool
) -> tuple[Any, tuple[Report, ...], tuple[str, ...]]:
    """Runs what was written and compares it with the reference, and with the live source where there is one."""
    target = planned.framework
    try:
        live = target.module("live").restore(text, native, found.model.name)
    except MissingLibrary:
        if needed:
            raise
        note = f"{target.title} is not installed here, so nothing was run; batchmap verify compares it where it is."
        return None, (), (note,)
    side = live_side(live, target.name, target.title)
    trials = probes(found.model, holes=planned.padding == "any")
    sides = [reference(found.model, found.weights)]
    if found.live is not None:
        sides.append(found.side)
    reports = tuple(compare(right, side, trials) for right in sides)
    for report in reports:
        if not report:
            raise Mismatch(
                f"the port of {found.name} to {target.title} does not compute the same",
                report.difference,
                "nothing was written; please report this with the model",
                report=report,
            )
    steep = max(report.rounding for report in reports)
    note = f"The model makes much of every rounding: in float32 the reference itself is {steep:.1e} off."
    return live, reports, (note,) if steep else ()


def _frame_note(found: Source) -> tuple[str, ...]:
    """That the data have to be transposed, where the source reads them in another order."""
    if not found.other_frame:
        return ()
    axes = {", ".join(entry.axes) for entry in found.model.inputs if {*entry.axes[:2]} == {"cases", "time"}}
    return (f"The port reads [{' and '.join(sorted(axes))}]; transpose the first two axes of what the source read.",)


def _padding_note(planned: Plan, framework: str) -> tuple[str, ...]:
    """What is assumed of padding, where the source and the port do not do the same with it; framework: the source's."""
    masked = [place for place in planned.places if place.node.mask is not None]
    target, source = planned.framework.module("source").PADDING, get(framework).module("source").PADDING
    if target.anywhere and not source.anywhere and masked:
        return (
            f"Padding must be on the right of each case{'' if source.whole else ', and no case may be empty'}, "
            "as in the source.",
            "Elsewhere the source reads as many steps as a case has tokens, and the port skips the padding.",
        )
    if target.anywhere or all(place.how != NATIVE for place in masked):
        return ()
    note = "Padding must be on the right of each case"
    note += "; model.py raises otherwise." if target.whole else ", and no case may be empty; model.py raises otherwise."
    if not source.anywhere:
        return (note,)
    return (note, 'The source would also accept it elsewhere: padding="any" writes a slower form that does too.')


def _port_lone(
    layer: Layer,
    arrays: Any,
    source: Any,
    target: Framework,
    native_only: bool,
    allow: tuple[str, ...],
    cases_first: bool | None,
) -> Any:
    """A lone layer becomes the lone native layer, whose own return contract stands; else a spelled-out model."""
    assert isinstance(layer, Recurrent)
    if arrays is None:
        raise Ambiguous(
            f"{type(source).__name__} has no weights yet",
            instead="build it first, by calling it once or by layer.build(shape)",
            field="weights",
        )
    check_finite(type(source).__name__, {layer.kind.lower(): arrays})
    if cases_first is not None:
        layer = layer.replace(cases_first=cases_first)
    live = target.module("live")
    model, stored = as_model(layer, arrays, layer.kind.lower())
    try:
        lowered = lower(layer, target)
    except Unsupported:
        if native_only:
            raise
        found = Source(model.name, "batchmap", owner(source).name, model, stored)
        return port(found, target.name, allow=allow)
    accepted(losses(layer, type(source).__name__, lowered.left_out), target, allow)
    module = live.build(layer)
    live.assign(module, layer, arrays)
    _prove_lone(layer, arrays, target, module)
    return module


def _prove_lone(layer: Recurrent, arrays: Mapping[str, Any], target: Framework, module: Any) -> None:
    """Compares the native layer with the reference, at two sizes and from states that are not zero.

    What is run is the same layer with the same arrays; that the module holds just these is read back from it.
    """
    from batchmap.numbers.reference import run_layer

    _, folded = fold(choose(layer, target)[0], layer, arrays)
    _, held = target.module("live").read_layer(module)
    if held is None or any(not np.array_equal(held[name], folded[name]) for name in folded):
        raise Mismatch(f"{target.title} did not take the weights of {layer!r}", report=None)
    tolerance = 1e-12 if layer.dtype == "float64" else 1e-5
    rng = np.random.default_rng(0)
    for cases, time in ((3, 7), (2, 11)):
        frame = (cases, time) if layer.cases_first else (time, cases)
        x = rng.normal(size=(*frame, layer.features or 1))
        initial = {
            f"{index}.{way}.{state}": rng.normal(size=(cases, layer.units if state == "c" else layer.state_size))
            for index in range(layer.layers)
            for way in layer.directions
            for state in layer.states
        }
        right = run_layer(layer, arrays, x, initial=initial)
        other = target.module("live").run_layer(layer, arrays, x, initial=initial)
        wanted = [right.output, *right.states.values()]
        given = [other.output, *(other.states[key] for key in right.states)]
        off = distance(given, wanted, [None] * len(wanted))
        if not off <= tolerance:
            raise Mismatch(
                f"{layer!r} in {target.title} is {off:.1e} off the reference at {cases} x {time}", report=None
            )


def _row(place: Place, planned: Plan, source: Source) -> tuple[str, str, str, str]:
    layer = place.layer
    plain = layer.layer if isinstance(layer, TimeDistributed) else layer
    if source.other_frame and isinstance(layer, Recurrent):
        layer = layer.replace(cases_first=not layer.cases_first)
    was = _native_text(layer, get(source.framework), source.version) if source.version else repr(layer)
    if place.call is None or place.counterpart is None:
        now = planned.framework.module("source").describe(place)
    else:
        inner = undriven(place.call, place.counterpart)
        now = expression(inner, planned.framework, width=10_000)
        if inner is not place.call and isinstance(plain, Recurrent) and plain.direction == "both":
            now += ", both ways"
        activation = getattr(plain, "activation", None)
        if (
            isinstance(plain, Dense)
            and activation is not None
            and activation.kind != "linear"
            and "activation" not in place.call.arguments
        ):
            now += f", {activation}"
    how = place.how
    by = planned.framework.module("source").PADDING.by
    if place.how == NATIVE and place.node.mask is not None and by:
        how += f", {by}"
    return (place.node.name, was, now, how)


def _native_text(layer: Layer, framework: Framework, version: str) -> str:
    """A layer in the words of where it came from."""
    shown = layer.replace(padded=None) if isinstance(layer, Recurrent) else layer
    try:
        text = expression(lower(shown, framework, version).call, framework, width=10_000)
    except Unsupported:
        text = repr(layer)
    for prefix in ("layers.", "keras.", "nn."):
        text = text.replace(prefix, "")
    return text


def _reasons(planned: Plan) -> tuple[str, ...]:
    """Why layers are spelled out: one sentence a reason."""
    layers: dict[str, list[str]] = {}
    for place in planned.places:
        if place.how == SPELLED:
            layers.setdefault(place.why, []).append(place.node.name)
    return tuple(f"{', '.join(names)}: spelled out, because {why}." for why, names in layers.items())


def _checked(report: Report) -> list[tuple[str, str, str, str]]:
    return [(row.what, row.against, row.sizes, f"{row.off:.1e}   ({row.dtype})") for row in report.checked]


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _readme(found: Source, target: Framework) -> str:
    name = class_name(found.model.name)
    return (
        f"# {name}\n\nPorted from `{found.name}` ({found.title}) to {target.title} by batchmap.\n\n"
        "```python\nfrom model import load\n\nmodel = load()\n```\n\n"
        "`report.json` says what was read, assumed and checked.\n"
    )
