"""A run's history: one line of JSON a report, and a picture of the curves."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np


@dataclass(frozen=True, slots=True)
class Report:
    """What is known at one moment of a run.

    Attributes:
        step, images, seconds: see `checkpoint.Progress`.
        side: long side of the pictures, in pixels.
        loss: mean since the last report.
        rate: learning rate of the decoder.
        studio, photo: mean IoU on the validation composites; None between validations.
    """

    step: int
    images: int
    seconds: float
    side: int
    loss: float
    rate: float
    studio: float | None = None
    photo: float | None = None


def append(path: Path, report: Report) -> None:
    """Add a line to the history."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(report)) + "\n")


def read(path: Path) -> list[Report]:
    """All lines; one that a crash cut off is left out."""
    reports = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            reports.append(Report(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return reports


def draw(reports: Sequence[Report], path: Path) -> None:
    """Draw loss over minutes, and below it the IoU of the validations, as a PNG."""
    canvas = np.full((560, 900, 3), 255, np.uint8)
    minutes = [report.seconds / 60 for report in reports]
    end = max([*minutes, 1e-9])
    losses = [report.loss for report in reports]
    _plot(canvas, (60, 30, 810, 220), "loss", (minutes, losses), end, (0.0, max([*losses, 1e-9])), (180, 90, 30))
    for name, colour, place in (("studio", (60, 140, 40), 0), ("photo", (40, 60, 200), 1)):
        pairs = [(report.seconds / 60, getattr(report, name)) for report in reports]
        known = [(minute, value) for minute, value in pairs if value is not None]
        xs, ys = [minute for minute, _ in known], [value for _, value in known]
        last = f" {ys[-1]:.3f}" if ys else ""
        _plot(canvas, (60, 310, 810, 220), f"{name} IoU{last}", (xs, ys), end, (0.5, 1.0), colour, place)
    encoded = cv2.imencode(".png", canvas)[1]
    path.write_bytes(encoded.tobytes())


def _plot(
    canvas: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    box: tuple[int, int, int, int],
    title: str,
    points: tuple[list[float], list[float]],
    end: float,
    limits: tuple[float, float],
    colour: tuple[int, int, int],
    place: int = 0,
) -> None:
    left, top, width, height = box
    low, high = limits
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.rectangle(canvas, (left, top), (left + width, top + height), (200, 200, 200), 1)
    cv2.putText(canvas, title, (left + 10 + 220 * place, top - 8), font, 0.5, colour, 1, cv2.LINE_AA)
    for share in (0.0, 0.5, 1.0):
        y = int(top + height * (1 - share))
        cv2.putText(canvas, f"{low + share * (high - low):.2f}", (8, y + 4), font, 0.4, (90, 90, 90), 1, cv2.LINE_AA)
        x = int(left + width * share)
        cv2.putText(
            canvas, f"{share * end:.0f} min", (x - 20, top + height + 16), font, 0.4, (90, 90, 90), 1, cv2.LINE_AA
        )
    line = [
        (int(left + width * x / end), int(top + height * (1 - (min(max(y, low), high) - low) / (high - low))))
        for x, y in zip(*points, strict=True)
    ]
    for first, second in pairwise(line):
        cv2.line(canvas, first, second, colour, 2, cv2.LINE_AA)
    for point in line if len(line) < 60 else []:
        cv2.circle(canvas, point, 3, colour, -1, cv2.LINE_AA)
