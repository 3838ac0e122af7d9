"""How PyTorch writes the operations of a cell; `torch` and `torch.nn.functional as F` are imported."""

from __future__ import annotations

from batchmap.source.cell import Spelling

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
