"""The PyTorch network behind a model that comes with Mattemill, with its weights."""

from pathlib import Path

from torch import nn

from engine_build.checkpoint import load_network, read_checkpoint
from model.card import Card
from model.catalogue import SHIPPED
from pipeline.errors import SetupError


def trained_network(card: Card, package: Path = SHIPPED) -> nn.Module:
    """The network in FP32, ready for inference.

    Args:
        card: of the model.
        package: the folder of shipped weights.

    Raises:
        SetupError: when the model is not one of Mattemill's own networks.
    """
    weights, network = package / f"{card.spec.name}.safetensors", card.made.get("network")
    if not isinstance(network, str) or not weights.is_file():
        raise SetupError(
            f"PyTorch cannot run {card.spec.name}: only its ONNX file is there, no network of Mattemill's.",
            "choose another engine: --engine onnx, tensorrt or tensorrt-rtx",
        )
    return load_network(network, read_checkpoint(weights))
