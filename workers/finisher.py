"""Writes manifest.jsonl, summary.json and report.html of a finished run. `python -m workers.finisher RUN`."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

import pipeline
from model.codecs.decode import decode
from pipeline.errors import ItemError, MattemillError
from pipeline.ids import Key, RunId
from pipeline.ledger import Ledger, connect
from pipeline.runs import RunSpec
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from producer.api import Run, Summary
from producer.report import Card, FailureRow, ReportData, render_report
from workers.lifecycle import die_with_parent

_CARDS = 60
_PREVIEW = 480


def write_reports(run: RunId, settings: Settings, ledger: Ledger, store: S3Store) -> None:
    """Write the three files below the run's reports folder.

    Raises:
        MattemillError: when one cannot be written.
    """
    spec = ledger.spec(run)
    rows = list(ledger.rows(run))
    summary = Run(run, ledger, settings).summary()
    counts = ledger.counts(run)
    manifest = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    report = render_report(
        ReportData(
            run=run,
            source=str(spec.source),
            target=str(spec.target),
            listed=summary.listed,
            done=summary.done,
            skipped=summary.skipped,
            failed=summary.failed,
            seconds=summary.seconds,
            images_per_second=summary.images_per_second,
            engine=summary.engine or "none needed",
            model=summary.model,
            started=datetime.fromtimestamp(counts.created, UTC),
            finished=datetime.fromtimestamp(counts.moved, UTC),
            facts={"Weights": spec.weights[:16], "Recipe": spec.recipe, "Version": pipeline.__version__},
            latencies_ms=[sum(_milliseconds(row).values()) for row in rows if row["outcome"] == "done"],
            cards=_cards(spec, rows, settings, store),
            failures=[FailureRow(str(row["key"]), str(row["code"]), str(row["reason"])) for row in summary.failures],
        )
    )
    _put(store, spec, "manifest.jsonl", manifest, "application/x-ndjson")
    _put(store, spec, "summary.json", _summary_json(summary), "application/json")
    _put(store, spec, "report.html", report, "text/html; charset=utf-8")


def _summary_json(summary: Summary) -> str:
    return json.dumps(asdict(summary), ensure_ascii=False, indent=2) + "\n"


def _put(store: S3Store, spec: RunSpec, name: str, text: str, content_type: str) -> None:
    place = spec.reports
    store.put(place.bucket, Key(place.key + name), text.encode(), content_type=content_type)


def _cards(spec: RunSpec, rows: list[dict[str, object]], settings: Settings, store: S3Store) -> list[Card]:
    done = [row for row in rows if row["outcome"] == "done"]
    step = max(len(done) / _CARDS, 1)
    cards = []
    for row in [done[int(n * step)] for n in range(min(len(done), _CARDS))]:
        try:
            cards.append(_card(spec, row, settings, store))
        except (ItemError, ValueError):
            continue  # its picture has changed or gone since; the manifest has its row
    return cards


def _card(spec: RunSpec, row: dict[str, object], settings: Settings, store: S3Store) -> Card:
    source = store.get(spec.source_bucket, Key(str(row["key"])), max_bytes=settings.max_bytes).body
    output = store.get(spec.target_bucket, Key(str(row["output"])), max_bytes=1 << 31).body
    before = decode(source, max_megapixels=settings.max_megapixels, at_least=(_PREVIEW, _PREVIEW))
    after = decode(output, max_megapixels=settings.max_megapixels)
    height, width = after.rgb.shape[:2]
    scale = min(_PREVIEW / max(height, width), 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(before.rgb, size, interpolation=cv2.INTER_AREA)
    alpha = after.alpha if after.alpha is not None else np.full((height, width), 255, np.uint8)
    rgba = cv2.resize(_premultiplied(after.rgb, alpha), size, interpolation=cv2.INTER_AREA)
    return Card(
        key=str(row["key"]),
        output=str(row["output"]),
        width=cast(int, row["width"]),
        height=cast(int, row["height"]),
        output_bytes=cast(int, row["output_bytes"]),
        milliseconds=_milliseconds(row),
        before=_webp(cv2.cvtColor(small, cv2.COLOR_RGB2BGR)),
        after=_webp(_straight_bgra(rgba)),
    )


def _premultiplied(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float32]:
    weight = alpha[:, :, None].astype(np.float32) / 255
    return np.concatenate([rgb * weight, weight * 255], axis=2)


def _straight_bgra(rgba: NDArray[np.generic]) -> NDArray[np.uint8]:
    pixels = rgba.astype(np.float32)
    weight = np.maximum(pixels[:, :, 3:], 1) / 255
    straight = np.concatenate([pixels[:, :, 2::-1] / weight, pixels[:, :, 3:]], axis=2)
    return np.asarray(np.clip(np.rint(straight), 0, 255), np.uint8)


def _webp(pixels: cv2.typing.MatLike) -> bytes:
    return cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()


def _milliseconds(row: dict[str, object]) -> dict[str, float]:
    return cast(dict[str, float], row.get("ms") or {})


def main() -> int:
    """Write; one sentence on standard error and exit code 1 when it cannot."""
    die_with_parent()
    try:
        settings = load_settings()
        client = connect(settings)
        with S3Store(settings) as store:
            write_reports(RunId(sys.argv[1]), settings, Ledger(client, settings), store)
        client.close()
    except MattemillError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the supervisor reads it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
