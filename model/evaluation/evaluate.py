"""Run a model over a data set the way a worker would, and measure what comes out."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from model.card import Figures, Latency, Score
from model.engines.base import Engine
from model.evaluation.dataset import Pair
from model.evaluation.metrics import Measures, measure, score
from model.preprocess import content, enough, letterbox, settled
from model.refine import guide, refine, whole
from model.size_buckets import fit
from pipeline.ids import SizeBucket


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one photo.

    Attributes:
        pair: the photo.
        measures: of the alpha at the photo's size.
        size: the size bucket it ran at.
        milliseconds: processor time in the engine, all threads together.
    """

    pair: Pair
    measures: Measures
    size: SizeBucket
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of a model.

    Attributes:
        model: its name.
        engine: as the engine names itself.
        machine: the processor.
        rows: one for each photo.
    """

    model: str
    engine: str
    machine: str
    rows: Sequence[Row]

    @property
    def splits(self) -> Sequence[str]:
        """The splits, in the order of the data."""
        return tuple(dict.fromkeys(row.pair.split for row in self.rows))

    def of_split(self, split: str) -> Sequence[Row]:
        """The rows of one split."""
        return [row for row in self.rows if row.pair.split == split]

    def scores(self) -> Mapping[str, Score]:
        """The score of every split."""
        return {split: score([row.measures for row in self.of_split(split)]) for split in self.splits}

    def milliseconds(self, split: str) -> float:
        """Median processor time of one image of a split."""
        return median(row.milliseconds for row in self.of_split(split))

    def worst(self, count: int) -> Sequence[Row]:
        """The rows with the lowest IoU, the lowest first."""
        return sorted(self.rows, key=lambda row: row.measures.iou)[:count]

    def figures(self, data: str) -> Figures:
        """For the model's card; `data` says what it was evaluated on."""
        sizes = dict.fromkeys(row.size for row in self.rows)
        latencies = tuple(
            Latency(
                round(median(row.milliseconds for row in self.rows if row.size == size), 1),
                size,
                self.engine,
                self.machine,
            )
            for size in sizes
        )
        return Figures(self.scores(), data, latencies)

    def entry(self) -> dict[str, object]:
        """Everything as JSON takes it."""
        return {
            "model": self.model,
            "engine": self.engine,
            "machine": self.machine,
            "splits": {
                split: {**asdict(of_split), "milliseconds": round(self.milliseconds(split), 2)}
                for split, of_split in self.scores().items()
            },
            "images": [
                {
                    "name": row.pair.name,
                    "size": str(row.size),
                    "milliseconds": round(row.milliseconds, 2),
                    **asdict(row.measures),
                }
                for row in self.rows
            ],
        }


def evaluate(engine: Engine, model: str, pairs: Sequence[Pair], progress: Callable[[], None]) -> Evaluation:
    """Measure a model.

    Args:
        engine: runs the model; one thread makes the times comparable.
        model: its name.
        pairs: the photos.
        progress: called after each photo.

    Raises:
        SetupError: when a file cannot be read.
        EngineError: when the engine fails.
    """
    engine.warm_up()
    rows = []
    for pair in pairs:
        alpha, size, milliseconds = matte(engine, pair)
        truth = pair.read_truth(*alpha.shape)
        rows.append(Row(pair, measure(alpha, truth), size, milliseconds))
        progress()
    return Evaluation(model, engine.name, machine(), rows)


def matte(engine: Engine, pair: Pair) -> tuple[NDArray[np.uint8], SizeBucket, float]:
    """The alpha of one photo at its full size, uint8 [h, w]; the size it ran at; milliseconds of processor time."""
    rgb = pair.read_photo()
    size = fit(rgb.shape[0], rgb.shape[1], engine.size_buckets)
    small = pair.read_photo(at_least=enough(rgb.shape[0], rgb.shape[1], size))
    image, box = letterbox(small, size)
    started = time.process_time()
    alpha = engine.infer(image[None])[0]
    milliseconds = (time.process_time() - started) * 1000
    part = settled(content(alpha, box))
    return whole(refine(part, rgb, guide(part, rgb))), size, milliseconds


def machine(facts: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, "" where it does not tell."""
    try:
        lines = facts.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
