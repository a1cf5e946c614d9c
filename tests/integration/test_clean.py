"""`mattemill clean`: what is old goes where a rule says so, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.ids import RunId
from pipeline.ledger import Ledger
from pipeline.runs import FINGERPRINT
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from producer import Producer
from tests.command_line import refused, run
from tests.conftest import WaitUntil
from tests.integration.test_sweeps import work_off
from tests.processes import empty, process

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

FIRST, SECOND, LAST = (RunId(f"2026010{day}-020000-aaaaaa") for day in (1, 2, 3))
RULES = """
[sweeps.shoes]
source = "s3://{bucket}/in/"
to = "s3://{bucket}/out/"
cron = "0 2 * * *"
{retention}
[clean]
cron = "0 0 * * *"
older_than = "30d"
"""


@pytest.fixture
def bucket(
    s3_bucket: str,
    s3_client: "S3Client",
    settings: Settings,
    ledger: Ledger,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """Three old runs of a sweep; after the first, two of its sources went, and one came back under another name."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for key in ("a", "b", "gone", "foreign", "renamed"):
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{key}.jpg", Body=key.encode())
    with S3Store(settings) as store:
        producer = Producer(settings, store)
        for id in (FIRST, SECOND, LAST):
            swept = producer.sweep(f"s3://{s3_bucket}/in/", f"s3://{s3_bucket}/out/", name="shoes", run=id)
            work_off(swept, ledger, settings, store)
            if id == FIRST:
                for key in ("gone", "foreign", "renamed"):
                    s3_client.delete_object(Bucket=s3_bucket, Key=f"in/{key}.jpg")
                s3_client.put_object(Bucket=s3_bucket, Key="in/renamed.webp", Body=b"renamed")
        by_hand = producer.sweep(f"s3://{s3_bucket}/in/", f"s3://{s3_bucket}/out/", run=RunId("20260101-030000-bbbbbb"))
        work_off(by_hand, ledger, settings, store)
    for key in (f"_mattemill/{FIRST}/notes.txt", "_mattemill/20250101-000000-cccccc/report.html", "mine.png"):
        s3_client.put_object(Bucket=s3_bucket, Key=f"out/{key}", Body=b"not Mattemill's")
    s3_client.put_object(Bucket=s3_bucket, Key="out/foreign.png", Body=b"mine now", Metadata={FINGERPRINT: "0" * 32})
    environment["MATTEMILL_SWEEPS"] = str(tmp_path / "sweeps.toml")
    yield s3_bucket
    empty(s3_client, s3_bucket)


def rules(environment: dict[str, str], bucket: str, retention: str) -> None:
    Path(environment["MATTEMILL_SWEEPS"]).write_text(RULES.format(bucket=bucket, retention=retention))


def keys(s3_client: "S3Client", bucket: str) -> set[str]:
    return {entry["Key"] for entry in s3_client.list_objects_v2(Bucket=bucket).get("Contents", [])}


@pytest.mark.timeout(300)
def test_only_what_a_rule_names_goes_and_only_with_yes(
    environment: dict[str, str], ledger: Ledger, bucket: str, s3_client: "S3Client"
) -> None:
    before = keys(s3_client, bucket)
    rules(environment, bucket, "")
    done = run(environment, "clean", "--yes")
    assert (done.returncode, done.stdout) == (0, "0 runs, 0 reports, 0 outputs removed\n"), done.stderr

    rules(environment, bucket, 'retention = { reports = "30d", outputs = "30d" }')
    told = run(environment, "clean", "--json")
    assert told.returncode == 0, told.stderr
    rows = [(row["kind"], row["where"]) for row in json.loads(told.stdout)]
    files = {f"out/_mattemill/{id}/{name}" for id in (FIRST, SECOND, LAST) for name in
             ("manifest.jsonl", "report.html", "summary.json")}  # fmt: skip
    going = {"out/gone.png"} | {key for key in files if key in before}
    assert {where for _, where in rows} == {f"s3://{bucket}/{key}" for key in going}
    assert keys(s3_client, bucket) == before  # nothing went yet
    done = run(environment, "clean", "--yes")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "0 runs, 9 reports, 1 outputs removed")
    assert keys(s3_client, bucket) == before - going
    assert run(environment, "clean", "--yes").stdout == "0 runs, 0 reports, 0 outputs removed\n"
    # The next sweep knows what is right, by the last manifest, which stays.
    swept = run(environment, "sweep", f"s3://{bucket}/in/", "--to", f"s3://{bucket}/out/")
    assert ledger.counts(RunId(swept.stdout.strip())).skipped == 3
    assert "kept    shoes  Run" in run(environment, "clean").stdout


@pytest.mark.timeout(300)
def test_the_last_manifest_of_a_sweep_stays_however_old(
    environment: dict[str, str], settings: Settings, ledger: Ledger, bucket: str, s3_client: "S3Client"
) -> None:
    with S3Store(settings) as store:
        swept = Producer(settings, store).sweep(
            f"s3://{bucket}/in/", f"s3://{bucket}/out/", name="shoes", run=RunId("20260104-020000-aaaaaa")
        )
        work_off(swept, ledger, settings, store)
    rules(environment, bucket, 'retention = { reports = "30d" }')
    assert run(environment, "clean", "--yes").stdout.splitlines()[-1] == "0 runs, 9 reports, 0 outputs removed"
    assert f"out/_mattemill/{swept.id}/summary.json" in keys(s3_client, bucket)
    assert "out/gone.png" in keys(s3_client, bucket)
    environment["MATTEMILL_ALLOWED_TARGETS"] = "elsewhere"
    rules(environment, bucket, 'retention = { outputs = "30d" }')
    assert "removed" in run(environment, "clean", "--yes").stdout
    assert "out/gone.png" in keys(s3_client, bucket)


@pytest.mark.timeout(300)
def test_beat_cleans_up_at_night_and_finished_runs_leave_redis(
    environment: dict[str, str], settings: Settings, ledger: Ledger, bucket: str, wait_until: WaitUntil
) -> None:
    rules(environment, bucket, "")
    for id in (FIRST, SECOND):
        ledger.client.hset(f"mm:{{{id}}}", "moved", 1_700_000_000_000_000)
    settings.home.mkdir(exist_ok=True)
    seen = {"(clean)": ["0 0 * * * UTC", 1.0]}
    (settings.home / "sweeps.json").write_text(json.dumps(seen))
    with process(environment, "producer.commands", "beat"):
        wait_until(lambda: not {FIRST, SECOND} & set(ledger.runs()), 60)
    assert LAST in ledger.runs()
    assert run(environment, "clean", "--due").stdout == "Nothing is due.\n"
    del environment["MATTEMILL_SWEEPS"]
    refused(run(environment, "clean"), "MATTEMILL_SWEEPS")
