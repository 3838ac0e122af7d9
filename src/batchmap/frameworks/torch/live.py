"""Live PyTorch modules: read, built, given weights, run. PyTorch is imported inside functions only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batchmap.errors import MissingLibrary, Unsupported
from batchmap.frameworks.torch import graph
from batchmap.frameworks.torch.modules import Arrays, counterpart_of, numpy_array, peek, read_layer
from batchmap.frameworks.torch.modules import owns as owns
from batchmap.mapping.arrays import pack
from batchmap.mapping.calls import Name
from batchmap.mapping.conversion import choose
from batchmap.source.execution import execute
from batchmap.source.write import class_name
from batchmap.spec.layers import Dense, Embedding, Layer, Recurrent
from batchmap.spec.results import Result, merge


def read_model(module: Any) -> tuple[Any, dict[str, Arrays]]:
    """Reads an ordinary module, by its own `forward`, as a model and its canonical arrays."""
    kind = type(module)
    if kind.__module__.startswith("torch.nn.modules.") and not kind.__module__.endswith(".container"):
        peek(module)
        raise Unsupported(
            f"nn.{kind.__name__} alone is no model",
            instead=f"nn.Sequential(nn.{kind.__name__}(...))",
            framework="torch",
            field="layer",
        )
    with _evaluating(module):
        return graph.read(module)


def build(layer: Layer) -> Any:
    """Builds torch's own module for a layer; its weights are torch's random ones."""
    torch = _torch()
    from batchmap.frameworks.torch import FRAMEWORK

    _, lowered = choose(layer, FRAMEWORK)
    kind = getattr(torch.nn, lowered.call.last_name)
    arguments = {
        name: getattr(torch, value.text.removeprefix("torch.")) if isinstance(value, Name) else value
        for name, value in lowered.call.arguments.items()
    }
    return kind(**arguments)


def make(text: str, name: str) -> Any:
    """Makes a live module from source that batchmap wrote, with random weights; name: of the model."""
    _torch()
    return getattr(execute(text), class_name(name))()


def restore(text: str, arrays: Mapping[str, Any], name: str) -> Any:
    """Makes a live module from source that batchmap wrote, and sets its arrays; in evaluation mode.

    text: a module as `source.write_model` writes it. arrays: name in the state_dict to array. name: of the model.
    """
    torch = _torch()
    model = make(text, name)
    model.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in arrays.items()})
    return model.eval()


def load(folder: Path) -> Any:
    """Runs the model.py of a folder that `bm.port` wrote, and returns what its load() gives."""
    _torch()
    path = folder / "model.py"
    return execute(path.read_text(), str(path)).load()


def dtype(module: Any) -> str:
    """The type that a module computes in."""
    first = next(module.parameters(), None)
    return "float32" if first is None else str(first.dtype).removeprefix("torch.")


def run(module: Any, inputs: Sequence[Any]) -> list[Any]:
    """Runs a module in evaluation mode; arrays in, arrays out (of nested outputs, the leaves)."""
    torch = _torch()
    with _evaluating(module), torch.no_grad():
        return [numpy_array(tensor) for tensor in _leaves(module(*_tensors(module, inputs)))]


def trace(module: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    """Runs a module and keeps what each of its parts gave: dotted name to array."""
    torch = _torch()
    seen: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(part: Any, given: Any, output: Any) -> None:
            if isinstance(output, tuple) and not isinstance(output, torch.nn.utils.rnn.PackedSequence):
                output = output[0]
            if isinstance(output, torch.nn.utils.rnn.PackedSequence):
                output, _ = torch.nn.utils.rnn.pad_packed_sequence(
                    output, batch_first=getattr(part, "batch_first", True)
                )
            if isinstance(output, torch.Tensor):
                seen[name] = numpy_array(output)

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in module.named_modules() if name]
    try:
        run(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def run_layer(
    layer: Recurrent,
    weights: Mapping[str, Any],
    x: Any,
    *,
    lengths: Sequence[int] | None = None,
    initial: Mapping[str, Any] | None = None,
) -> Result:
    """Runs torch's own layer with canonical arrays.

    x: [cases, time, features], or [time, cases, features] as the layer says. initial: canonical state names
    ("0.forward.h") to [cases, units]. Returns output and final states in canonical form.
    """
    torch = _torch()

    module = build(layer)
    assign(module, layer, weights)
    dtype = next(module.parameters()).dtype
    data = torch.as_tensor(x, dtype=dtype)
    cases = data.shape[0 if layer.cases_first else 1]
    places = [(index, way) for index in range(layer.layers) for way in layer.directions]
    states = []
    for state in layer.states:
        size = layer.units if state == "c" else layer.state_size
        rows = [(initial or {}).get(f"{index}.{way}.{state}") for index, way in places]
        states.append(
            torch.stack(
                [
                    torch.zeros(cases, size, dtype=dtype) if row is None else torch.as_tensor(row, dtype=dtype)
                    for row in rows
                ]
            )
        )
    start = tuple(states) if len(states) > 1 else states[0]
    steps = data.shape[1 if layer.cases_first else 0]
    with torch.no_grad():
        if lengths is None:
            output, final = module.eval()(data, start)
        else:
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                data, torch.tensor(list(lengths)), batch_first=layer.cases_first, enforce_sorted=False
            )
            output, final = module.eval()(packed, start)
            output, _ = torch.nn.utils.rnn.pad_packed_sequence(
                output, batch_first=layer.cases_first, total_length=steps
            )
    finals = final if isinstance(final, tuple) else (final,)
    found = {
        f"{index}.{way}.{state}": numpy_array(finals[position][row])
        for position, state in enumerate(layer.states)
        for row, (index, way) in enumerate(places)
    }
    if layer.output == "last":
        top = {way: found[f"{layer.layers - 1}.{way}.h"] for way in layer.directions}
        return Result(merge(layer, top), found)
    return Result(numpy_array(output), found)


def layers(module: Any) -> list[tuple[str, Layer, Any]]:
    """The recurrent, embedding and dense layers of a module, in the order they were made."""
    found = []
    for name, part in module.named_modules():
        counterpart = counterpart_of(part)
        if counterpart is not None and issubclass(counterpart.kind, (Recurrent, Embedding, Dense)):
            found.append((name, read_layer(part)[0], part))
    return found


def assign(module: Any, layer: Layer, arrays: Mapping[str, Any]) -> None:
    """Copies canonical arrays into a live module of torch's own."""
    torch = _torch()
    counterpart = counterpart_of(module)
    assert counterpart is not None
    with torch.no_grad():
        for name, array in pack(counterpart, layer, arrays).items():
            getattr(module, name).copy_(torch.as_tensor(array))


def snapshot(module: Any) -> Any:
    """A copy of all parameters and buffers, to go back to."""
    tensors = (*module.parameters(), *module.buffers())
    made = [tensor for tensor in tensors if not _torch().nn.parameter.is_lazy(tensor)]
    return [(tensor, tensor.detach().clone()) for tensor in made]


def rewind(module: Any, kept: Any) -> None:
    """Puts back what `snapshot` kept."""
    with _torch().no_grad():
        for tensor, was in kept:
            tensor.copy_(was)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingLibrary(
            "PyTorch is not installed", instead="pip install 'batchmap[torch]'", library="torch"
        ) from error
    return torch


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, was in training.items():
            part.training = was


def _tensors(module: Any, inputs: Sequence[Any]) -> list[Any]:
    torch = _torch()
    first = next(module.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype
    device = None if first is None else first.device
    tensors = []
    for array in inputs:
        tensor = torch.as_tensor(array, device=device)
        tensors.append(tensor.to(dtype) if tensor.is_floating_point() else tensor.long())
    return tensors


def _leaves(output: Any) -> list[Any]:
    torch = _torch()
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, torch.nn.utils.rnn.PackedSequence):
        return [torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=True)[0]]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return [leaf for part in output for leaf in _leaves(part)]
    return []
