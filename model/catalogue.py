"""The models that Mattemill knows by name: what can be said of them without having installed anything."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

from model.card import CONTRACT, Card, Footprint, ModelSpec, read_card, read_figures
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

__all__ = ["CATALOGUE", "CONTRACT", "SHIPPED", "ModelSpec", "find", "known", "shipped"]

SHIPPED = Path(__file__).parent / "weights"
"""Package data. Of a model that ships: NAME.onnx, its card NAME.json, and NAME.safetensors to train or export on.
Of any known model: NAME.figures.json, what was measured of it, as `mattemill model evaluate` wrote it."""

_FIGURES = ".figures.json"

_CARDS = (
    Card(
        ModelSpec(
            name="u2netp",
            weights="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
            size_buckets=(SizeBucket(320, 320),),
            licence="Apache-2.0",
            origin="U^2-Net by Xuebin Qin et al., https://github.com/xuebinqin/U-2-Net",
        ),
        footprint=Footprint(1_125_485, 19_756_089_600, SizeBucket(320, 320), 4_574_787),
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
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(_FIGURES)]
    return MappingProxyType({path.stem: _with_figures(_read(path), folder) for path in paths})


@cache
def known(folder: Path = SHIPPED) -> Mapping[str, Card]:
    """Every model that there is a name for: the shipped ones, then those of the catalogue; read once.

    Raises:
        SetupError: as `shipped`.
    """
    fetched = {card.spec.name: _with_figures(card, folder) for card in _CARDS}
    return MappingProxyType({**shipped(folder), **fetched})


def find(name: str, folder: Path = SHIPPED) -> ModelSpec:
    """What is known of `name`.

    Raises:
        SetupError: when it is neither shipped nor in the catalogue; it lists those that are.
    """
    cards = known(folder)
    if name not in cards:
        raise SetupError(f"There is no model named {name!r}.", f"known models: {', '.join(sorted(cards))}")
    return cards[name].spec


def _read(path: Path) -> Card:
    try:
        return read_card(path.stem, path.read_bytes())
    except (OSError, ValueError) as error:
        raise _broken(path, error) from error


def _with_figures(card: Card, folder: Path) -> Card:
    path = folder / f"{card.spec.name}{_FIGURES}"
    if not path.is_file():
        return card
    try:
        return replace(card, figures=card.figures.updated(read_figures(card.spec.weights, path.read_bytes())))
    except (OSError, ValueError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> SetupError:
    return SetupError(f"{path} cannot be read: {error}.", "install Mattemill again")
