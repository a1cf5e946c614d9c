"""Runs from the command line, from their start to their report, with real workers."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine_build.wrap import wrap
from model.catalogue import ModelSpec
from model.store import ModelStore
from pipeline.ids import SizeBucket
from pipeline.settings import Settings
from tests.command_line import COMMAND, on_a_small_disk, refused, run
from tests.processes import empty, photo, process
from tests.tiny_network import tiny_network

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

SUMMARY = ["run", "listed", "done", "skipped", "failed", "failures", "seconds", "images_per_second", "engine", "model"]


@pytest.fixture
def bucket(s3_bucket: str, s3_client: "S3Client") -> Iterator[str]:
    """A bucket with three photos below in/."""
    for number, key in enumerate(("in/a.jpg", "in/b 产品.jpg", "in/sub/c.jpg")):
        s3_client.put_object(Bucket=s3_bucket, Key=key, Body=photo(number))
    yield s3_bucket
    empty(s3_client, s3_bucket)


@contextlib.contextmanager
def workers(environment: dict[str, str], devices: str) -> Iterator[None]:
    command = ("producer.commands", "worker")
    with (
        process(environment, *command, "gpu", "--devices", devices),
        process(environment, *command, "cpu", "--concurrency", "1"),
    ):
        yield


def sweep(environment: dict[str, str], bucket: str, *options: str) -> dict[str, object]:
    """`sweep --wait --json`: one JSON object on standard output, and nothing else."""
    done = run(environment, "sweep", f"s3://{bucket}/in/", "--to", f"s3://{bucket}/out/", "--wait", "--json", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
    summary = json.loads(done.stdout)
    assert list(summary) == SUMMARY
    assert isinstance(summary, dict)
    return summary


@pytest.mark.timeout(400)
def test_a_run_can_be_followed_read_and_cancelled(environment: dict[str, str], bucket: str, tmp_path: Path) -> None:
    photos, target = f"s3://{bucket}/in/", f"s3://{bucket}/out/"

    # No worker is there yet: a run waits, and can be cancelled.
    started = run(environment, "sweep", photos, "--to", target)
    assert started.returncode == 0, started.stderr
    first = started.stdout.strip()
    assert f"failed 0 + pending 3  {photos} -> {target}\n" in run(environment, "status").stdout
    refused(
        run(environment, "report", first), "not finished: 3 images are pending", f"mattemill status {first} --watch"
    )
    cancelled = run(environment, "cancel", first)
    assert cancelled.returncode == 0, cancelled.stderr
    assert f"Run {first} is cancelled: 3 images" in cancelled.stdout

    with workers(environment, "fake:5"):
        watched = run(environment, "status", first, "--watch")
        assert watched.returncode == 1, watched.stderr
        assert "listed 3 = done 0 + skipped 0 + failed 3" in watched.stdout
        assert watched.stdout.count(": cancelled: ") == 3

        some = [f"s3://{bucket}/in/{name}" for name in ("a.jpg", "sub/c.jpg", "missing.jpg")]
        enqueued = run(environment, "enqueue", *some, "--to", target, "--wait")
        assert enqueued.returncode == 1, enqueued.stderr
        assert "listed 3 = done 2 + skipped 0 + failed 1" in enqueued.stdout
        assert "  in/missing.jpg: not_found: " in enqueued.stdout
        second = json.loads(run(environment, "status", "--json").stdout)[0]["run"]
        assert f"mattemill report {second} -o report.html\n" in enqueued.stdout
        assert f"mattemill retry {second} --wait\n" in enqueued.stdout

        nothing = run(environment, "sweep", f"{photos}nothing/", "--to", target, "--wait")
        assert nothing.returncode == 0, nothing.stderr
        assert "listed 0 = done 0 + skipped 0 + failed 0" in nothing.stdout
        assert f"There is no image below {photos}nothing/. Hint:" in nothing.stderr

        # What a fake engine made never counts as right.
        assert sweep(environment, bucket)["done"] == 3
        assert sweep(environment, bucket)["done"] == 3

    rows = json.loads(run(environment, "status", "--json").stdout)
    assert [(row["listed"], row["done"], row["state"]) for row in rows] == [
        (3, 3, "finished"), (3, 3, "finished"), (0, 0, "finished"), (3, 2, "finished"), (3, 0, "finished"),
    ]  # fmt: skip
    assert (rows[0]["source"], rows[0]["to"]) == (photos, target)
    assert rows[3]["run"] == second
    for place in (f"{target}_mattemill/{second}/", f"{target}_mattemill/{second}"):
        assert run(environment, "verify", place).stdout.startswith(
            "listed 3 = done 2 + skipped 0 + failed 1: the proof"
        )
    refused(run(environment, "verify", "s3://"), "'s3://' is no S3 address")
    assert json.loads(run(environment, "status", second, "--json").stdout)["failed"] == 1
    watched = run(environment, "status", second, "--watch", "--json")
    assert watched.returncode == 1
    assert list(json.loads(watched.stdout)) == SUMMARY
    assert json.loads(run(environment, "failures", second, "--json").stdout) == [
        {"key": "in/missing.jpg", "code": "not_found", "reason": "There is no such object."}
    ]
    assert "in/missing.jpg: not_found: " in run(environment, "failures", second).stdout
    assert "finished already" in run(environment, "cancel", second).stdout
    assert json.loads(run(environment, "status", second, "--json").stdout)["state"] == "finished"
    _fetch_report(environment, second, tmp_path)


def _fetch_report(environment: dict[str, str], run_id: str, tmp_path: Path) -> None:
    page = tmp_path / "new folder" / "report.html"
    fetched = run(environment, "report", run_id, "-o", str(page))
    assert (fetched.returncode, fetched.stdout.strip()) == (0, str(page))
    assert "in/missing.jpg" in page.read_text("utf-8")
    refused(run(environment, "report", run_id, "-o", str(tmp_path)), "Is a directory")
    refused(run(environment, "report", run_id, "-o", "/dev/full"), "/dev/full", "No space left", "free some space")
    disk = tmp_path / "disk"
    disk.mkdir()
    if prefix := on_a_small_disk(disk, "size=8k"):
        done = subprocess.run(
            [*prefix, *COMMAND, "report", run_id, "-o", str(disk / "report.html")],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        refused(done, "No space left")
        assert done.stdout == ""  # not even a part of it is left there


@pytest.mark.timeout(400)
def test_a_second_sweep_skips_what_is_right_unless_forced(
    environment: dict[str, str], settings: Settings, bucket: str, s3_client: "S3Client"
) -> None:
    size = SizeBucket(320, 320)
    ModelStore(settings.home).install(
        ModelSpec("u2netp", "7" * 64, (size,), "Apache-2.0", "made for this test"),
        wrap(tiny_network(size), input_size=size),
    )
    with workers(environment, "cpu"):
        first = sweep(environment, bucket)
        assert (first["listed"], first["done"], first["skipped"]) == (3, 3, 0)
        assert "onnxruntime" in str(first["engine"])
        again = sweep(environment, bucket)
        assert (again["listed"], again["done"], again["skipped"]) == (3, 0, 3)
        assert again["failures"] == []
        s3_client.put_object(Bucket=bucket, Key="in/a.jpg", Body=photo(9))
        changed = sweep(environment, bucket)
        assert (changed["done"], changed["skipped"]) == (1, 2)
        forced = sweep(environment, bucket, "--force")
        assert (forced["done"], forced["skipped"]) == (3, 0)
