"""The models that Mattemill knows by name: what can be said of them without having installed anything."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from model.card import CONTRACT, Card, ModelSpec, read_card
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

__all__ = ["CATALOGUE", "CONTRACT", "SHIPPED", "ModelSpec", "find", "known", "shipped"]

SHIPPED = Path(__file__).parent / "weights"
"""Package data: NAME.onnx, its card NAME.json, and NAME.safetensors for whoever wants to train or export on."""

_CARDS = (
    Card(
        ModelSpec(
            name="u2netp",
            weights="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
            size_buckets=(SizeBucket(320, 320),),
            licence="Apache-2.0",
            origin="U^2-Net by Xuebin Qin et al., https://github.com/xuebinqin/U-2-Net",
        ),
    ),
)

CATALOGUE: Mapping[str, ModelSpec] = MappingProxyType({card.spec.name: card.spec for card in _CARDS})
"""What `mattemill model fetch` can install."""


@cache
def shipped(folder: Path = SHIPPED) -> Mapping[str, Card]:
    """The models that come as package data, by name; read once.

    Raises:
        SetupError: when a card is damaged or of another contract, which only a damaged installation has.
    """
    cards = {}
    try:
        for path in sorted(folder.glob("*.json")):
            cards[path.stem] = read_card(path.stem, path.read_bytes())
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} cannot be read: {error}.", "install Mattemill again") from error
    return MappingProxyType(cards)


def known(folder: Path = SHIPPED) -> Mapping[str, Card]:
    """Every model that there is a name for: the shipped ones, then those of the catalogue."""
    return MappingProxyType({**shipped(folder), **{card.spec.name: card for card in _CARDS}})


def find(name: str, folder: Path = SHIPPED) -> ModelSpec:
    """What is known of `name`.

    Raises:
        SetupError: when it is neither shipped nor in the catalogue; it lists those that are.
    """
    cards = known(folder)
    if name not in cards:
        raise SetupError(f"There is no model named {name!r}.", f"known models: {', '.join(sorted(cards))}")
    return cards[name].spec
