"""How large a network is and how much it computes."""

import copy

import torch
from torch import Tensor, nn


def parameters(network: nn.Module) -> int:
    """The number of learnt values, without what only training looks at."""
    return sum(value.numel() for name, value in network.named_parameters() if not name.startswith("auxiliary."))


def multiply_adds(network: nn.Module, height: int = 512, width: int = 512) -> int:
    """The multiply-adds of all convolutions and linear layers for one image.

    Activations, norms (which fold into convolutions), interpolation and element-wise products are not counted, as is
    usual in papers.
    """
    total = 0

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            kernel = layer.kernel_size[0] * layer.kernel_size[1]
            total += output.numel() * layer.in_channels // layer.groups * kernel
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    # A copy without values: shapes are all that counts, and a large network's convolutions take seconds.
    ghost = copy.deepcopy(network).to("meta").eval()
    for name, layer in ghost.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and name != "auxiliary":
            layer.register_forward_hook(count)
    with torch.inference_mode():
        ghost(torch.zeros(1, 3, height, width, device="meta"))
    return total
