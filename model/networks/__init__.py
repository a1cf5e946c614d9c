"""The networks, in PyTorch: RGB in, logits of alpha out.

Every network takes float [N, 3, H, W], RGB in 0..1, sides multiples of 32, normalises it inside, and gives logits,
float [N, 1, H, W]: alpha is their sigmoid. Only the export and the training import this package; workers run ONNX.
"""

from model.networks.build import NAMES, Network, build
from model.networks.count import multiply_adds, parameters

__all__ = ["NAMES", "Network", "build", "multiply_adds", "parameters"]
