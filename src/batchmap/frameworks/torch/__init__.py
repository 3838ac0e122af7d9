"""PyTorch."""

from batchmap.frameworks.torch.layers import LAYERS
from batchmap.mapping.framework import Framework

FRAMEWORK = Framework(
    name="torch",
    title="PyTorch",
    needs="torch>=2.4",
    layers=LAYERS,
    imports={"torch.nn.": ("from torch import nn", "nn."), "torch.": ("import torch", "torch.")},
    package=__name__,
)
