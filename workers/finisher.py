"""Writes the manifest, summary.json and report.html of a finished run, or a part of the manifest while it goes on.

`python -m workers.finisher RUN` and `python -m workers.finisher RUN part`.
"""

import json
import sys
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import cast

import pipeline
from pipeline.errors import MattemillError, SetupError, TransientError
from pipeline.ids import ItemId, Key, RunId
from pipeline.ledger import Counts, Ledger, connect
from pipeline.log import configure
from pipeline.manifest import Rows, collect, delete_parts, remember, write_manifest, write_part
from pipeline.places import Places
from pipeline.runs import RunSpec, item_id
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from producer.report import Card, FailureRow, ReportData, render_report
from producer.report.meanings import meaning
from producer.summary import Summary, summarise
from workers.lifecycle import die_with_parent
from workers.preview_sizes import ALL, SAMPLE, sample


def write_reports(run: RunId, settings: Settings, ledger: Ledger, store: S3Store) -> None:
    """Write the files below the run's reports folder; the parts of the manifest go when all else is there.

    Raises:
        MattemillError: when one cannot be written, or a line of the manifest is missing.
    """
    spec, counts = ledger.spec(run), ledger.counts(run)
    Places.parse(settings.allowed_targets).check(spec.reports, "target", "MATTEMILL_ALLOWED_TARGETS")
    with Rows() as rows:
        collect(rows, store, ledger, spec)
        if len(rows) != counts.listed:
            raise SetupError(
                f"The manifest of {run} has {len(rows)} lines for {counts.listed} listed keys.",
                "sweep again: what is right is skipped",
            )
        manifest = write_manifest(rows, store, spec)
        summary = summarise(spec, counts, rows)
        selection = json.loads(ledger.selection(run) or "null")
        about = {**asdict(summary), "manifest": manifest, "spec": asdict(spec), "selection": selection}
        _put(store, spec, "summary.json", json.dumps(about, ensure_ascii=False, indent=2) + "\n", "application/json")
        report = render_report(_report(spec, counts, summary, rows, ledger))
        # Somebody else who believed to lead may have closed it meanwhile: its pictures are gone, and theirs is whole.
        if ledger.counts(run).state != "finished":
            _put(store, spec, "report.html", report, "text/html; charset=utf-8")
    remember(store, spec)
    delete_parts(store, spec)


def _report(spec: RunSpec, counts: Counts, summary: Summary, rows: Rows, ledger: Ledger) -> ReportData:
    latencies: list[float] = []
    pictured: list[tuple[ItemId, dict[str, object]]] = []
    suspects, no_images = Counter[str](), 0
    previewed = ledger.previewed(spec.run)
    for row in rows:
        no_images += row["outcome"] == "skipped" and "code" in row
        if row["outcome"] == "done":
            latencies.append(sum(cast(dict[str, float], row.get("ms") or {}).values()))
            suspects.update(cast(list[str], row.get("suspects") or []))
            if (item := item_id(Key(str(row["output"])))) in previewed:
                pictured.append((item, row))
    chosen = sample([item for item, _ in pictured], len(pictured) if summary.done <= ALL else SAMPLE)
    return ReportData(
        run=spec.run,
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
        facts={
            "Weights": spec.weights[:16],
            "Recipe": spec.recipe,
            "Version": pipeline.__version__,
            "Suspicious mattes": ", ".join(f"{meaning(flag)} {count}" for flag, count in suspects.most_common())
            or "none",
        },
        latencies_ms=latencies,
        cards=[card for index in chosen if (card := _card(spec, *pictured[index], ledger)) is not None],
        failures=[FailureRow(str(row["key"]), str(row["code"]), str(row["reason"])) for row in summary.failures],
        no_images=no_images,
    )


def _card(spec: RunSpec, item: ItemId, row: dict[str, object], ledger: Ledger) -> Card | None:
    preview = ledger.preview(spec.run, item)
    return Card.of(row, preview) if preview is not None else None


def _put(store: S3Store, spec: RunSpec, name: str, text: str, content_type: str) -> None:
    place = spec.reports
    store.put(place.bucket, Key(place.key + name), text.encode(), content_type=content_type)


def main() -> int:
    """Write; one sentence on standard error and exit code 1 when it cannot now, 2 when it never will."""
    die_with_parent()
    try:
        settings = load_settings()
        configure(settings, role="finisher")
        client = connect(settings)
        ledger, run = Ledger(client, settings), RunId(sys.argv[1])
        with S3Store(settings) as store:
            if sys.argv[2:] == ["part"]:
                write_part(store, ledger, ledger.spec(run))
            else:
                write_reports(run, settings, ledger, store)
                if settings.sweeps is not None:
                    from workers.hook import call_hook  # brings Celery's timetables, 6 MB

                    call_hook(settings, ledger.spec(run), store)
        client.close()
    except MattemillError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the supervisor reads it
        return 1 if isinstance(error, TransientError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
