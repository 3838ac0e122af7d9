"""How PyTorch writes the operations of a cell; `torch` and `torch.nn.functional as F` are imported."""

from __future__ import annotations

import re

from batchmap.source import model
from batchmap.source.cell import Spelling
from batchmap.spec.layers import Recurrent

SPELLING = Spelling(
    framework="torch",
    split="{v}.chunk({k}, dim=-1)",
    clip="{v}.clamp({low}, {high})",
    activations={
        "tanh": "torch.tanh({v})",
        "sigmoid": "torch.sigmoid({v})",
        "relu": "torch.relu({v})",
        "leaky_relu": "F.leaky_relu({v}, {slope})",
        "elu": "F.elu({v}, {slope})",
        "selu": "F.selu({v})",
        "softplus": "F.softplus({v})",
        "softsign": "F.softsign({v})",
        "exponential": "torch.exp({v})",
        "silu": "F.silu({v})",
        "gelu": "F.gelu({v})",
        "softmax": "torch.softmax({v}, dim=-1)",
    },
)


def merged(layer: Recurrent, forward: str, backward: str) -> str:
    """The text that joins both directions of a layer."""
    return model.merged(layer, forward, backward, "torch.cat(({forward}, {backward}), dim=-1)")


def imports(code: str) -> list[str]:
    """The import lines that a piece of code needs."""
    lines = ["from torch import " + ("Tensor, nn" if "Tensor" in code else "nn")]
    if re.search(r"\btorch\.", code):
        lines.append("import torch")
    if re.search(r"\bF\.", code):
        lines.append("import torch.nn.functional as F")
    for name in ("pack_padded_sequence", "pad_packed_sequence"):
        if name in code:
            lines.append(f"from torch.nn.utils.rnn import {name}")
    return lines
