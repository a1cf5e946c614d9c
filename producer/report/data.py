"""What a report is made from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self, cast

from pipeline.preview import Preview


def _require_durations(values: Sequence[float], what: str) -> None:
    for value in values:
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{what} must be finite and not negative, got {value!r}")


def image_type(image: bytes) -> str:
    """Tell the media type of an encoded preview from its first bytes.

    Args:
        image: an encoded JPEG, PNG or WebP file.

    Returns:
        `image/jpeg`, `image/png` or `image/webp`.

    Raises:
        ValueError: it is none of these.
    """
    if image.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError(f"a preview must be JPEG, PNG or WebP, got bytes that start with {image[:12]!r}")


@dataclass(frozen=True, slots=True)
class Card:
    """One finished image in the gallery.

    Attributes:
        key: source key, any text.
        output: key of the cutout, any text.
        width: full-size width of the picture as it is seen (after EXIF rotation), pixels.
        height: full-size height of the picture as it is seen, pixels.
        output_bytes: size of the cutout object.
        milliseconds: time per stage, in the order of the stages.
        before: small preview of the source, JPEG, PNG or WebP.
        after: small preview of the cutout with alpha, WebP or PNG, same pixel size as `before`.
        flags: short remarks worth a look, such as "empty alpha".

    Raises:
        ValueError: a size or a time makes no sense, or a preview is no image a browser shows.
    """

    key: str
    output: str
    width: int
    height: int
    output_bytes: int
    milliseconds: Mapping[str, float]
    before: bytes
    after: bytes
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a card needs a size in pixels, got {self.width} x {self.height}")
        if self.output_bytes < 0:
            raise ValueError(f"output_bytes must not be negative, got {self.output_bytes}")
        _require_durations(list(self.milliseconds.values()), "milliseconds of a stage")
        image_type(self.before)
        image_type(self.after)

    @classmethod
    def of(cls, row: Mapping[str, object], preview: Preview) -> Self:
        """The card of a finished image: its row of the manifest, and small pictures of it."""
        return cls(
            key=str(row["key"]),
            output=str(row["output"]),
            width=cast(int, row["width"]),
            height=cast(int, row["height"]),
            output_bytes=cast(int, row["output_bytes"]),
            milliseconds=cast("dict[str, float]", row.get("ms") or {}),
            before=preview.before,
            after=preview.after,
            flags=tuple(cast("list[str]", row.get("suspects") or [])),
        )

    @property
    def total_ms(self) -> float:
        """Sum of all stages, milliseconds."""
        return sum(self.milliseconds.values())


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One image that failed: its key, the failure code and one sentence."""

    key: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportData:
    """A whole run, ready to be shown.

    The counts may contradict each other (`listed` unequal to the sum): the report then says so loudly instead
    of refusing, because that is the moment when somebody needs it.

    Attributes:
        run: id of the run.
        source: where the images came from, such as `s3://photos/2026-11-23/`.
        target: where the cutouts went.
        listed: images listed.
        done: images finished with a cutout.
        skipped: images whose cutout was already right, and `no_images`.
        failed: images that failed.
        seconds: wall-clock duration of the run.
        images_per_second: throughput over the run.
        engine: the engine that made the alphas.
        model: the model it ran.
        started: aware.
        finished: aware.
        facts: further facts, shown in this order; a label of ours ("Engine", ...) given here wins over ours.
        latencies_ms: total milliseconds of each finished image; may be a sample or empty.
        cards: the gallery; may be a sample or empty.
        failures: every failed image.
        no_images: those of the skipped that are no images, by their first bytes.

    Raises:
        ValueError: a count or a time is negative or not finite, or a time has no time zone.
    """

    run: str
    source: str
    target: str
    listed: int
    done: int
    skipped: int
    failed: int
    seconds: float
    images_per_second: float
    engine: str
    model: str
    started: datetime
    finished: datetime
    facts: Mapping[str, str]
    latencies_ms: Sequence[float]
    cards: Sequence[Card]
    failures: Sequence[FailureRow]
    no_images: int = 0

    def __post_init__(self) -> None:
        for name in ("listed", "done", "skipped", "failed"):
            count: int = getattr(self, name)
            if count < 0:
                raise ValueError(f"{name} must not be negative, got {count}")
        for name in ("started", "finished"):
            moment: datetime = getattr(self, name)
            if moment.utcoffset() is None:
                raise ValueError(f"{name} must carry a time zone, got {moment.isoformat()}")
        _require_durations([self.seconds], "seconds")
        _require_durations([self.images_per_second], "images_per_second")
        _require_durations(self.latencies_ms, "latencies_ms")

    @property
    def unaccounted(self) -> int:
        """Images listed but neither done, skipped nor failed; negative if more ended than were listed."""
        return self.listed - self.done - self.skipped - self.failed

    @property
    def right(self) -> int:
        """Images whose cutout was already right."""
        return self.skipped - self.no_images
