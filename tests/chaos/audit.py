"""What is left of a run when the day is over: every listed picture explained, every output the right one."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.errors import SetupError
from pipeline.ids import Key
from pipeline.manifest import list_keys
from pipeline.runs import FINGERPRINT
from producer.run import Run
from producer.verify import verify
from tests.chaos.pictures import Picture, cutout, difference
from tests.chaos.system import BUCKET, System


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found.

    Attributes:
        listed: pictures that the run was asked for.
        done: with an output.
        failed: with a code and a reason.
        lost: pictures without a line in the manifest, or with one that says nothing.
        doubled: lines beyond one for each picture, or outcomes counted twice.
        wrong: outputs that are not there, not what this picture must become, or nobody's; and what `verify` says.
        again: feedings beyond one for each picture and stage, without harm.
        reasons: failures by code.
        repacked: outputs whose pixels are right to the last level, but whose bytes are others; see docs/decisions/0020.
    """

    listed: int
    done: int
    failed: int
    lost: int
    doubled: int
    wrong: list[str]
    again: int
    reasons: dict[str, int]
    repacked: list[str]

    @property
    def good(self) -> bool:
        """Whether the bar is met."""
        return not (self.lost or self.doubled or self.wrong)


def audit(system: System, run: Run, pictures: list[Picture]) -> Audit:
    """Compare a run that has ended with what it was asked for."""
    counts, spec = run.counts(), run.spec
    lines = Counter[str]()
    rows: dict[str, dict[str, object]] = {}
    for row in run.results():
        lines[str(row["key"])] += 1
        rows[str(row["key"])] = row
    asked = {str(picture.key): picture for picture in pictures}
    explained = {
        key for key, row in rows.items() if row["outcome"] == "done" or (row.get("code") and row.get("reason"))
    }
    lost = len(asked.keys() - explained) + abs(counts.pending)
    doubled = sum(lines.values()) - len(lines) + max(counts.finished - len(asked), 0)
    wrong = [f"{key}: nobody asked for it" for key in rows.keys() - asked.keys()]
    there = {row.key: row for row in list_keys(system.store, BUCKET, spec.target_prefix)}

    repacked: list[str] = []

    def look(key: str) -> str:
        output, picture = spec.output_key(Key(key)), asked[key]
        if output not in there:
            return f"{key}: its output is not there"
        if there[output].etag != picture.cutout:
            source, made = (system.store.get(BUCKET, Key(one), max_bytes=1 << 24).body for one in (key, output))
            levels, where = difference(cutout(source), made)
            if levels:
                return f"{key}: its output is another picture, by {levels} levels {where}"
            repacked.append(f"{key}: the same pixels in other bytes")
        head = system.store.head(BUCKET, output)
        stamp = f"fake {spec.fingerprint(picture.etag, picture.bytes)}"
        return "" if head is not None and head.metadata.get(FINGERPRINT) == stamp else f"{key}: wrong fingerprint"

    with ThreadPoolExecutor(4) as pool:
        wrong += filter(None, pool.map(look, (k for k, row in rows.items() if row["outcome"] == "done" and k in asked)))
    known = {spec.output_key(Key(key)) for key in asked}
    wrong += [f"{key}: an output of nothing" for key in there if key not in known and "_mattemill/" not in key]
    if counts.error or (error := system.ledger.report_error(run.id)):
        wrong.append(f"the run: {counts.error or error}")
    else:
        try:
            wrong += verify(system.store, spec.reports).wrong
        except SetupError as refused:
            wrong.append(str(refused))
    if sum(system.ledger.places(run.id).values()):
        wrong.append(f"left in the ledger: {system.ledger.places(run.id)}")
    return Audit(
        listed=counts.listed,
        done=counts.done,
        failed=counts.failed,
        lost=lost,
        doubled=doubled,
        wrong=wrong,
        again=counts.retried,
        reasons=dict(Counter(str(row["code"]) for row in rows.values() if row["outcome"] == "failed")),
        repacked=repacked,
    )
