"""The closing table of a run."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.ids import RunId
from pipeline.ledger import Counts
from pipeline.runs import RunSpec


@dataclass(frozen=True, slots=True)
class Summary:
    """The closing table of a run; `failures` are rows with key, code and reason."""

    run: RunId
    listed: int
    done: int
    skipped: int
    failed: int
    failures: tuple[dict[str, object], ...]
    seconds: float
    images_per_second: float
    engine: str
    model: str


def summarise(spec: RunSpec, counts: Counts, rows: Iterable[dict[str, object]]) -> Summary:
    """The closing table from the ledger's counts and the rows of the finished items."""
    failures: list[dict[str, object]] = []
    engine = ""
    for row in rows:
        if row["outcome"] == "failed":
            failures.append({name: row[name] for name in ("key", "code", "reason")})
        engine = str(row.get("engine") or engine)
    seconds = max(counts.moved - counts.created, 0.001)
    return Summary(
        run=spec.run,
        listed=counts.listed,
        done=counts.done,
        skipped=counts.skipped,
        failed=counts.failed,
        failures=tuple(failures),
        seconds=round(seconds, 3),
        images_per_second=round(counts.done / seconds, 3),
        engine=engine,
        model=spec.model,
    )
