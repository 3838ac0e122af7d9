"""The layers of a Keras architecture, and what each reads: plain data, from JSON of Keras 2 and 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from batchmap.errors import BadValue, Unsupported


class Tensor(NamedTuple):
    """One output of one call of a layer."""

    layer: str
    call: int = 0
    output: int = 0


@dataclass(frozen=True)
class Reading:
    """One call of a layer: the tensors it reads, and the other arguments it is given."""

    tensors: tuple[Tensor, ...]
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    old: bool = False  # in the form of Keras 2


@dataclass(frozen=True)
class Entry:
    """One layer of an architecture, and where it is called."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    calls: tuple[Reading, ...]
    operation: bool = False  # a function of keras.ops, not a layer


def read_entries(config: Mapping[str, Any]) -> tuple[str, list[Entry], list[Tensor]]:
    """The name, the layers and the outputs of an architecture."""
    class_name, inner = config.get("class_name"), config.get("config")
    if isinstance(inner, (list, tuple)):
        inner = {"layers": inner}
    if not isinstance(inner, Mapping) or not isinstance(inner.get("layers"), (list, tuple)):
        raise Unsupported(
            f"the architecture of a {class_name} cannot be read",
            "it holds no list of layers: what it computes is Python code",
            "build it as a keras.Sequential or a functional model",
            framework="keras",
            field="model",
            value=class_name,
        )
    name = str(inner.get("name") or "model")
    if "output_layers" in inner:
        entries = [_entry(layer, _readings(layer.get("inbound_nodes", ()))) for layer in inner["layers"]]
        return name, entries, list(tensors(inner["output_layers"]))
    entries = [_entry(layer, ()) for layer in inner["layers"]]
    if not entries:
        raise BadValue(f'model "{name}" holds no layer', field="layers")
    if entries[0].class_name != "InputLayer":
        first = entries[0]
        shape = first.config.get("batch_input_shape", inner.get("build_input_shape"))
        shape = {} if shape is None else {"batch_shape": shape}
        entries.insert(0, Entry(f"{first.name}_input", "InputLayer", shape, ()))
    for index in range(1, len(entries)):
        entries[index] = replace(entries[index], calls=(Reading((Tensor(entries[index - 1].name),)),))
    return name, entries, [Tensor(entries[-1].name)]


def _entry(layer: Mapping[str, Any], calls: tuple[Reading, ...]) -> Entry:
    if not isinstance(layer, Mapping) or "class_name" not in layer:
        raise BadValue("the architecture holds a layer without a class_name", field="class_name")
    config = layer.get("config")
    config = config if isinstance(config, Mapping) else {"layers": config}
    class_name = str(layer["class_name"])
    module = layer.get("module")
    operation = ".ops." in f".{module}."
    if module is None and config.get("batch_shape") is None and not any(call.old for call in calls):
        operation = bool(calls) and "trainable" not in config  # the .h5 files of Keras 3 leave the module out
    if not operation and foreign(layer):
        class_name = str(layer.get("registered_name"))
    name = layer.get("name") or config.get("name") or class_name.lower()
    return Entry(str(name), class_name, config, calls, operation)


def _readings(nodes: Sequence[Any]) -> tuple[Reading, ...]:
    """The calls of a layer: [name, call, output, options] a tensor (Keras 2), or {"args", "kwargs"}."""
    found = []
    for node in nodes:
        if isinstance(node, Mapping):
            first, *rest = node["args"] or [()]
            found.append(Reading(tuple(tensors(first)), tuple(rest), node.get("kwargs") or {}))
            continue
        node = [node] if node and isinstance(node[0], str) else node
        options: dict[str, Any] = next((part[3] for part in node if len(part) > 3 and part[3]), {})
        found.append(Reading(tuple(Tensor(*part[:3]) for part in node), (), options, old=True))
    return tuple(found)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a nest of lists and dicts, in order."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            yield Tensor(*value["config"]["keras_history"])
        else:
            for part in value.values():
                yield from tensors(part)
    elif isinstance(value, (list, tuple)):
        if len(value) in (3, 4) and isinstance(value[0], str) and all(isinstance(part, int) for part in value[1:3]):
            yield Tensor(*value[:3])
        else:
            for part in value:
                yield from tensors(part)


def step(arguments: Sequence[Any]) -> int | None:
    """The index in x[:, index]; None for any other cut."""
    if len(arguments) != 1 or not isinstance(arguments[0], (list, tuple)) or len(arguments[0]) < 2:
        return None
    cases, index, *rest = arguments[0]
    whole = all(
        isinstance(cut, Mapping) and all(value is None for value in (cut.get("config") or {}).values())
        for cut in (cases, *rest)
    )
    return index if whole and len(rest) < 2 and type(index) is int else None


def foreign(layer: Mapping[str, Any]) -> bool:
    """Whether a class of this name was registered by somebody else."""
    registered = layer.get("registered_name")
    return bool(registered) and str(registered).rpartition(">")[0] not in ("", "Keras", "keras")
