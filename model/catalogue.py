"""The models that Mattemill knows by name: what can be said of them without having them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

CONTRACT = 1
"""Version of what an installed model.onnx takes and gives: uint8 [N, H, W, 3] RGB in, uint8 [N, H, W] alpha out.
Raise it when a model has to be wrapped again."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a producer, a report and an engine have to know of a model.

    Attributes:
        name: as in `--model`, in queue names and in messages.
        weights: sha256 of the upstream weights file, 64 hexadecimal digits; it goes into fingerprints.
        size_buckets: the sizes in pixels that the model runs at, at least one.
        licence: SPDX identifier of the weights' licence.
        origin: who made the weights and where they come from.
    """

    name: str
    weights: str
    size_buckets: tuple[SizeBucket, ...]
    licence: str
    origin: str


_SPECS = (
    ModelSpec(
        name="u2netp",
        weights="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        size_buckets=(SizeBucket(320, 320),),
        licence="Apache-2.0",
        origin="U^2-Net by Xuebin Qin et al., https://github.com/xuebinqin/U-2-Net",
    ),
)

CATALOGUE: Mapping[str, ModelSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})


def find(name: str) -> ModelSpec:
    """The catalogue's entry for `name`.

    Raises:
        SetupError: when there is none; it lists those there are.
    """
    spec = CATALOGUE.get(name)
    if spec is None:
        raise SetupError(f"There is no model named {name!r}.", f"known models: {', '.join(sorted(CATALOGUE))}")
    return spec
