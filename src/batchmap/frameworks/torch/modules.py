"""Live modules of torch's own, read as layers and arrays."""

from __future__ import annotations

from typing import Any

from batchmap.errors import Unsupported
from batchmap.frameworks.torch.layers import LAYERS
from batchmap.mapping.arrays import unpack
from batchmap.mapping.calls import Call, Name
from batchmap.mapping.conversion import lift
from batchmap.mapping.framework import Counterpart
from batchmap.mapping.rows import Ignored
from batchmap.spec.layers import Layer

Arrays = dict[str, Any]


def owns(thing: Any) -> bool:
    """Whether an object is a torch module, told without importing torch."""
    return any(f"{kind.__module__}.{kind.__name__}" == "torch.nn.modules.module.Module" for kind in type(thing).__mro__)


def counterpart_of(module: Any) -> Counterpart | None:
    """The counterpart of a live module, if it is one of torch's own classes that batchmap knows."""
    kind = type(module)
    if not kind.__module__.startswith("torch.nn."):
        return None
    return next((entry for entry in LAYERS if entry.target == f"torch.nn.{kind.__name__}"), None)


def peek(module: Any) -> Call:
    """Reads a live module of torch's own as a call."""
    counterpart = counterpart_of(module)
    if counterpart is None:
        raise Unsupported(
            f"{type(module).__name__} is no layer that batchmap knows in PyTorch",
            instead=f"one of {', '.join(entry.target.removeprefix('torch.') for entry in LAYERS)}",
            framework="torch",
            field="layer",
        )
    ignored = {name for row in counterpart.rows if isinstance(row, Ignored) for name in row.natives}
    arguments: dict[str, Any] = {}
    for name in counterpart.signature:
        if name in ignored or (name != "dtype" and not hasattr(module, name)):
            continue
        if name == "dtype":
            dtype = str(next(module.parameters()).dtype)
            value: Any = None if dtype == "torch.float32" else Name(dtype)
        else:
            value = getattr(module, name)
            value = value is not None if name == "bias" and not isinstance(value, bool) else value
        arguments[name] = value
    return Call(counterpart.target, arguments)


def read_layer(module: Any) -> tuple[Layer, Arrays]:
    """Reads a live module of torch's own: its layer, and its canonical arrays."""
    from batchmap.frameworks.torch import FRAMEWORK

    layer = lift(peek(module), FRAMEWORK)
    counterpart = counterpart_of(module)
    assert counterpart is not None
    native = {name: numpy_array(tensor) for name, tensor in module.named_parameters(recurse=False)}
    return layer, unpack(counterpart, layer, native)


def numpy_array(tensor: Any) -> Any:
    """A tensor as a NumPy array of its own."""
    tensor = tensor.detach().cpu()
    return (tensor if str(tensor.dtype) != "torch.bfloat16" else tensor.float()).numpy().copy()
