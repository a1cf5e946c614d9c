"""The networks by name."""

from typing import Protocol

from torch import Tensor, nn

from model.networks.lite import BlockHead, FineHead, LiteUNet
from model.networks.mobilenet import Encoder, mobilenet_v2, mobilenet_v3_large
from model.networks.unet import CvUNet
from pipeline.errors import SetupError

NAMES = ("cvunet", "cvunet-lite", "cvunet-lite-s")


class Network(Protocol):
    """What training needs of a network beyond what `nn.Module` says."""

    def coarse_and_fine(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at an eighth of the size and at full size."""
        ...


def build(name: str, article_order: bool = False) -> CvUNet | LiteUNet:
    """A network with random weights, in training mode.

    - `cvunet`: the plain U-Net of six levels, 38 M parameters.
    - `cvunet-lite`: MobileNetV3-Large and a wide light decoder, 12 M parameters.
    - `cvunet-lite-s`: MobileNetV2 and a narrow light decoder, 3 M parameters: an encoder for which ImageNet weights
      under a permissive licence can be had, without which training on little data fails.

    Args:
        name: one of `NAMES`.
        article_order: see `LightBlock`; nothing to `cvunet`.

    Raises:
        SetupError: when there is no such network.
    """
    if name == "cvunet":
        return CvUNet()
    if name == "cvunet-lite":
        head = BlockHead(64, 32, blocks=2, article_order=article_order)
        return LiteUNet(mobilenet_v3_large(), (1664, 896, 256, 64), head, blocks=2, article_order=article_order)
    if name == "cvunet-lite-s":
        fine = FineHead(24, 8)
        return LiteUNet(mobilenet_v2(), (160, 96, 48, 24), fine, context=192, article_order=article_order)
    raise SetupError(f"There is no network named {name!r}.", f"networks: {', '.join(NAMES)}")


def encoder_of(network: nn.Module) -> Encoder | None:
    """The part that takes ImageNet weights; None where there is none."""
    return network.encoder if isinstance(network, LiteUNet) else None
