"""One layer of Keras: its configuration as a call, a layer of the spec, and canonical arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batchmap.errors import Unsupported
from batchmap.frameworks.keras import FRAMEWORK
from batchmap.frameworks.keras.architecture import foreign
from batchmap.frameworks.keras.layers import SPELLED_NAMES
from batchmap.mapping.arrays import unpack
from batchmap.mapping.calls import Call, Name
from batchmap.mapping.conversion import counterpart_of, lift
from batchmap.spec.layers import Dense, Layer, Recurrent, TimeDistributed

Arrays = dict[str, Any]
CELLS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN"}
CUDNN: dict[str, tuple[str, dict[str, Any]]] = {
    "CuDNNLSTM": ("LSTM", {"activation": "tanh", "recurrent_activation": "sigmoid"}),
    "CuDNNGRU": ("GRU", {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}),
}


def read_layer(
    config: Mapping[str, Any],
    weights: Mapping[str, Any] | None = None,
    version: str = "",
    features: int | None = None,
) -> tuple[Layer, Arrays | None]:
    """Reads one layer, {"class_name": ..., "config": ...}, and its arrays.

    weights: short name -> array; None when the layer is not built.
    features: size of what it reads, where the weights do not tell.
    Raises as `read_model` does.
    """
    call = layer_call(config)
    target = call.last_name
    if weights and str(config["class_name"]) in CUDNN:
        weights = _from_cudnn(str(config["class_name"]), weights)
    if target == "TimeDistributed":
        inner, arrays = read_layer(_nested(config, "layer"), weights, version, features)
        return TimeDistributed(layer=inner), arrays
    if weights and (kernel := weights.get("kernel", weights.get("forward/kernel"))) is not None:
        features = int(kernel.shape[0])
    inner_call = call["layer"] if target == "Bidirectional" else call
    counterpart = counterpart_of(inner_call.target, FRAMEWORK)
    reads = features is not None and (issubclass(counterpart.kind, Recurrent) or counterpart.kind is Dense)
    known = {"features": features} if reads else {}
    if target == "Bidirectional" and "backward_layer" in call.arguments:
        _check_backward(call, version)
        call = call.without("backward_layer")
    layer = lift(call, FRAMEWORK, version, known)
    if isinstance(layer, Recurrent) and layer.direction == "both":
        layer = replace(layer, padded=None)  # Bidirectional sets zero_output_for_mask itself
    return layer, None if weights is None else unpack(counterpart, layer, weights)


def layer_call(config: Mapping[str, Any]) -> Call:
    """Turns the configuration of a layer into a call of its constructor.

    >>> layer_call({"class_name": "LSTM", "config": {"name": "lstm_1", "units": 64}})
    Call(target='keras.layers.LSTM', arguments={'name': 'lstm_1', 'units': 64})
    """
    class_name, arguments = str(config["class_name"]), dict(config["config"])
    if class_name == "RNN" and isinstance(arguments.get("cell"), Mapping):
        cell = arguments.pop("cell")
        if cell.get("class_name") in CELLS and not foreign(cell):
            return layer_call({"class_name": CELLS[cell["class_name"]], "config": {**cell["config"], **arguments}})
        class_name = f"RNN of {cell.get('class_name')}"
    elif class_name in CUDNN:
        class_name, fixed = CUDNN[class_name]
        arguments |= fixed
    names = {name.rpartition(".")[2] for c in FRAMEWORK.layers for name in (c.target, *(w.target for w in c.wraps))}
    if class_name not in names or foreign(config):
        raise Unsupported(
            f"{class_name} has no canonical reading",
            "batchmap knows no layer of that kind" if class_name not in names else "it is not Keras's own",
            f"put one of {', '.join(sorted(names))} in its place",
            framework="keras",
            field="layer",
            value=class_name,
        )
    arguments = {name: _argument(value) for name, value in arguments.items() if not name.startswith("build_")}
    if class_name == "Bidirectional" and arguments.get("backward_layer", ...) is None:
        del arguments["backward_layer"]
    return Call(f"keras.layers.{class_name}", arguments)


def _argument(value: Any) -> Any:
    """An argument in the form that rows read: layers as calls, registered functions by name."""
    if isinstance(value, Mapping) and "class_name" in value:
        if value["class_name"] == "function" and value.get("config") in SPELLED_NAMES:
            return Name(SPELLED_NAMES[value["config"]])
        inner = value.get("config")
        if isinstance(inner, Mapping) and ("units" in inner or "layer" in inner or "cell" in inner):
            return layer_call(value)
    return value


def _nested(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner: Mapping[str, Any] = config["config"][name]
    return inner


def _check_backward(call: Call, version: str) -> None:
    """Refuses a Bidirectional whose two layers differ in more than their direction."""
    forward, backward = (lift(call[name], FRAMEWORK, version) for name in ("layer", "backward_layer"))
    assert isinstance(forward, Recurrent) and isinstance(backward, Recurrent)
    order = "processing" if forward.output == "sequence" else "time"
    if replace(forward, direction="backward", order=order, padded=None) != replace(backward, padded=None):
        raise Unsupported(
            "Bidirectional with a backward_layer of its own has no canonical reading",
            f"its directions differ: {forward!r} and {backward!r}",
            "two layers, one of them with go_backwards=True",
            framework="keras",
            field="direction",
            value="both",
        )


def _from_cudnn(class_name: str, weights: Mapping[str, Any]) -> Arrays:
    """Brings the arrays of CuDNNLSTM and CuDNNGRU into the layout of LSTM and GRU.

    Each gate of a kernel is stored in the memory order of cuDNN, transposed; the LSTM adds two biases.
    Source: tf_keras/src/saving/legacy/hdf5_format.py, which converts them the same way.
    """
    import numpy as np

    gates = len(counterpart_of(CUDNN[class_name][0], FRAMEWORK).kind.gates)  # type: ignore[attr-defined]
    plain: Arrays = {}
    for name, array in weights.items():
        short = name.rpartition("/")[2]
        if short == "bias":
            halves = array.reshape(2, -1)
            plain[name] = halves[0] + halves[1] if class_name == "CuDNNLSTM" else halves
            continue
        blocks = np.split(array, gates, axis=1)
        plain[name] = np.concatenate(
            [block.T if short == "recurrent_kernel" else block.reshape(block.T.shape).T for block in blocks],
            axis=1,
        )
    return plain
