"""What is written down about a model: what it is, how large, how good, how fast. The JSON beside every model.onnx."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Final

from pipeline.ids import SizeBucket

CONTRACT: Final = 1
"""Version of what an installed model.onnx takes and gives: uint8 [N, H, W, 3] RGB in, uint8 [N, H, W] alpha out.
Raise it when a model has to be wrapped again."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a producer, a report and an engine have to know of a model.

    Attributes:
        name: as in `--model`, in queue names and in messages.
        weights: 64 hexadecimal digits that stand for everything that decides what alpha comes out; they go into
            fingerprints. Of a known model the sha256 of its upstream weights file, of an imported one the sha256 of
            file and options together.
        size_buckets: the sizes in pixels that the model runs at, at least one.
        licence: SPDX identifier of the weights' licence, or a few words.
        origin: who made the weights and where they come from.
    """

    name: str
    weights: str
    size_buckets: tuple[SizeBucket, ...]
    licence: str
    origin: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """How large a model is, counted in its model.onnx.

    Attributes:
        parameters: numbers in its weights.
        macs: multiply-adds for one image of `size`, of its convolutions and matrix products; None where the file does
            not tell.
        size: what `macs` was counted at: 512x512, or the model's own size where it is fixed.
        bytes: of the file.
    """

    parameters: int
    macs: int | None
    size: SizeBucket
    bytes: int


@dataclass(frozen=True, slots=True)
class Score:
    """The mean of each measure over some images, see `model.evaluation.metrics`; `iou_median` is the median."""

    images: int
    iou: float
    iou_median: float
    s_measure: float
    mae: float
    mse: float
    sad: float
    gradient: float
    connectivity: float


@dataclass(frozen=True, slots=True)
class Latency:
    """What one image takes in the engine alone.

    Attributes:
        milliseconds: of processor time for a CPU engine, of elapsed time for a GPU engine.
        size: the image's.
        engine: as the engine names itself.
        machine: the processor or GPU it was measured on.
    """

    milliseconds: float
    size: SizeBucket
    engine: str
    machine: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a model.

    Attributes:
        scores: by split of the data, such as "studio" and "photo".
        data: what it was evaluated on.
        latencies: one for each engine, machine and size.
    """

    scores: Mapping[str, Score] = field(default_factory=lambda: MappingProxyType({}))
    data: str = ""
    latencies: tuple[Latency, ...] = ()

    def updated(self, newer: "Figures") -> "Figures":
        """These figures, each replaced where `newer` has one."""
        measured = {(one.engine, one.machine, one.size): one for one in (*self.latencies, *newer.latencies)}
        evaluated = newer if newer.scores else self
        return Figures(evaluated.scores, evaluated.data, tuple(measured.values()))


@dataclass(frozen=True, slots=True)
class Card:
    """All that is written down about a model.

    Attributes:
        spec: what it is.
        model_sha256: of its model.onnx; "" where there is none yet.
        footprint: how large it is; None where nobody has counted.
        figures: what was measured.
        made: how model.onnx came about: file, options, data, hours; any JSON.
    """

    spec: ModelSpec
    model_sha256: str = ""
    footprint: Footprint | None = None
    figures: Figures = field(default_factory=Figures)
    made: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


class ContractError(ValueError):
    """The model was wrapped for another contract."""


def write_card(card: Card) -> bytes:
    """The card as JSON."""
    entry = {
        "contract": CONTRACT,
        "name": card.spec.name,
        "weights": card.spec.weights,
        "size_buckets": [str(size_bucket) for size_bucket in card.spec.size_buckets],
        "licence": card.spec.licence,
        "origin": card.spec.origin,
        "model_sha256": card.model_sha256,
        "footprint": asdict(card.footprint) | {"size": str(card.footprint.size)} if card.footprint else None,
        "figures": _figures_entry(card.figures),
        "made": dict(card.made),
    }
    return (json.dumps(entry, indent=2) + "\n").encode()


def read_card(name: str, data: bytes) -> Card:
    """The card of model `name`.

    Raises:
        ContractError: says which contract it has.
        ValueError: when it is no card.
    """
    try:
        entry = json.loads(data)
        if entry["contract"] != CONTRACT:
            raise ContractError(f"it has contract {entry['contract']}, expected {CONTRACT}")
        buckets = tuple(SizeBucket.parse(size_bucket) for size_bucket in entry["size_buckets"])
        footprint = entry.get("footprint")  # models installed by an earlier version have none
        return Card(
            ModelSpec(name, str(entry["weights"]), buckets, str(entry["licence"]), str(entry["origin"])),
            str(entry["model_sha256"]),
            Footprint(**footprint | {"size": SizeBucket.parse(footprint["size"])}) if footprint else None,
            _read_figures(entry.get("figures") or {}),
            MappingProxyType(dict(entry.get("made") or {})),
        )
    except ContractError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the card of {name} cannot be read: {error}") from error


def write_figures(weights: str, figures: Figures) -> bytes:
    """Figures of the model with these weights, as JSON."""
    return (json.dumps({"weights": weights, **_figures_entry(figures)}, indent=2) + "\n").encode()


def read_figures(weights: str, data: bytes) -> Figures:
    """Figures written by `write_figures`; none when they are of other weights.

    Raises:
        ValueError: when it is something else.
    """
    try:
        entry = json.loads(data)
        return _read_figures(entry) if entry["weights"] == weights else Figures()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the figures cannot be read: {error}") from error


def _figures_entry(figures: Figures) -> dict[str, object]:
    return {
        "data": figures.data,
        "scores": {split: asdict(score) for split, score in figures.scores.items()},
        "latencies": [asdict(one) | {"size": str(one.size)} for one in figures.latencies],
    }


def _read_figures(entry: Mapping[str, object]) -> Figures:
    scores, latencies = entry.get("scores", {}), entry.get("latencies", [])
    if not isinstance(scores, dict) or not isinstance(latencies, list):
        raise TypeError("scores are an object and latencies a list")
    names = {one.name for one in fields(Score)}
    return Figures(
        MappingProxyType({str(k): Score(**{n: v[n] for n in names}) for k, v in scores.items()}),
        str(entry.get("data", "")),
        tuple(Latency(**one | {"size": SizeBucket.parse(one["size"])}) for one in latencies),
    )
