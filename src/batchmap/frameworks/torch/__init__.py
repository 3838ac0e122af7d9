"""PyTorch."""

from batchmap.frameworks.torch.layers import LAYERS
from batchmap.frameworks.torch.words import BATCH, TERMS
from batchmap.mapping.framework import Framework

FRAMEWORK = Framework(
    name="torch",
    title="PyTorch",
    needs="torch>=2.4",
    layers=LAYERS,
    batch=BATCH,
    terms=TERMS,
    imports={"torch.nn.": ("from torch import nn", "nn."), "torch.": ("import torch", "torch.")},
    package=__name__,
    verified="tests/test_numbers.py",
    states="(layers directions) cases units",
)
