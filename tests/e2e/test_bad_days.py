"""Servers away, disks full, folders that cannot be written: one sentence with a hint, exit code 2."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.command_line import COMMAND, on_a_small_disk, refused, run

CLOSED = "127.0.0.1:1"
NO_INDEX = {
    "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"https://{CLOSED}/simple", "PIP_RETRIES": "1",
    "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [
        ({}, ["sweep", "s3://no-such-bucket-at-all/", "--to", "s3://BUCKET/x/"], ["no-such-bucket-at-all"]),
        ({}, ["sweep", "photos/", "--to", "s3://BUCKET/x/"], ["s3://"]),
        ({}, ["sweep", "s3://BUCKET/", "--to", "s3://BUCKET/x/", "--model", "nope"], ["no model named 'nope'"]),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, ["sweep", "s3://BUCKET/", "--to", "s3://BUCKET/x/"], ["credentials"]),
        ({"AWS_ACCESS_KEY_ID": ""}, ["sweep", "s3://BUCKET/", "--to", "s3://BUCKET/x/"], ["AWS_ACCESS_KEY_ID"]),
        (
            {"MATTEMILL_S3_ENDPOINT_URL": f"http://{CLOSED}"},
            ["sweep", "s3://BUCKET/", "--to", "s3://BUCKET/x/"],
            [CLOSED, "cannot be reached", "MATTEMILL_S3_ENDPOINT_URL"],
        ),
        ({"MATTEMILL_REDIS_URL": f"redis://{CLOSED}/0"}, ["sweep", "s3://BUCKET/", "--to", "s3://BUCKET/x/"], [CLOSED]),
        ({"MATTEMILL_REDIS_URL": f"redis://{CLOSED}/0"}, ["worker", "cpu"], [CLOSED, "MATTEMILL_REDIS_URL"]),
        ({"MATTEMILL_REDIS_URL": f"redis://{CLOSED}/0"}, ["status"], [CLOSED, "MATTEMILL_REDIS_URL"]),
        ({"MATTEMILL_REDIS_URL": "localhost:6379"}, ["status"], ["MATTEMILL_REDIS_URL"]),
        ({"MATTEMILL_REDIS_URL": "WRONG PASSWORD"}, ["status"], ["refuses the password"]),
        ({"MATTEMILL_REDIS_URL": "WRONG PASSWORD"}, ["worker", "cpu"], ["refuses the password"]),
        ({"MATTEMILL_MAX_BATCH": "0"}, ["status"], ["MATTEMILL_MAX_BATCH"]),
        ({}, ["status", "no-such-run"], ["no-such-run", "mattemill status"]),
        ({}, ["status", "--watch"], ["no runs", "mattemill sweep"]),
        ({}, ["report", "no-such-run"], ["no-such-run"]),
        ({}, ["cancel", "no-such-run"], ["no-such-run"]),
    ],
)
def test_what_is_wrong_with_the_servers_is_one_sentence(
    change: dict[str, str], arguments: list[str], expected: list[str], environment: dict[str, str], s3_bucket: str
) -> None:
    if change.get("MATTEMILL_REDIS_URL") == "WRONG PASSWORD":
        change = {"MATTEMILL_REDIS_URL": f"redis://:guess@{environment['MATTEMILL_REDIS_URL'].rpartition('@')[2]}"}
    done = run(environment | change, *(argument.replace("BUCKET", s3_bucket) for argument in arguments))
    refused(done, *expected)
    assert done.stdout == ""


def test_a_worker_says_what_it_lacks(environment: dict[str, str]) -> None:
    for arguments, expected in (
        (["worker", "gpu"], "--devices cpu"),
        (["worker", "gpu", "--devices", "cpu"], "mattemill model fetch u2netp"),
    ):
        done = run(environment, *arguments)
        assert done.returncode == 2, done.stderr
        assert "Hint:" in done.stderr
        assert expected in done.stderr
        assert "Traceback" not in done.stderr


def test_a_demo_that_cannot_write_says_where(alone: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "below"
    refused(run(alone, "demo", "--out", str(below)), str(below), "Not a directory", "another place")
    no_pictures = tmp_path / "none"
    no_pictures.mkdir()
    refused(run(alone, "demo", "--photos", str(no_pictures), "--out", str(tmp_path / "o")), "no pictures")


def test_a_model_that_cannot_be_had_or_kept_says_why(alone: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    unwritable = alone | {"MATTEMILL_HOME": str(tmp_path / "file" / "home")}
    refused(run(unwritable, "model", "fetch", "u2netp"), "Not a directory", "MATTEMILL_HOME")
    offline = alone | NO_INDEX | {"MATTEMILL_HOME": str(tmp_path / "home")}
    refused(run(offline, "demo", "--out", str(tmp_path / "out")), "index cannot be reached", "--file")


@pytest.mark.parametrize(
    ("options", "arguments", "change", "expected"),
    [
        ("size=300k", ["demo", "--out", "DISK/out"], {}, ["DISK/out", "No space left", "free some space"]),
        ("ro", ["demo", "--out", "DISK/out"], {}, ["DISK/out", "Read-only", "another place"]),
        ("size=300k", ["demo", "--out", "OUT"], {"TMPDIR": "DISK"}, ["MB free", "TMPDIR"]),
        ("size=300k", ["model", "fetch", "u2netp"], {"MATTEMILL_HOME": "DISK"}, ["No space left", "MATTEMILL_HOME"]),
        ("ro", ["model", "fetch", "u2netp"], {"MATTEMILL_HOME": "DISK"}, ["Read-only", "MATTEMILL_HOME"]),
    ],
)
def test_a_full_or_read_only_disk_is_one_sentence(
    options: str,
    arguments: list[str],
    change: dict[str, str],
    expected: list[str],
    alone: dict[str, str],
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    prefix = on_a_small_disk(disk, options)
    if not prefix:
        pytest.skip("needs user and mount namespaces")

    def real(text: str) -> str:
        return text.replace("DISK", str(disk)).replace("OUT", str(tmp_path / "out"))

    done = subprocess.run(
        [*prefix, *COMMAND, *map(real, arguments)],
        env=alone | {name: real(value) for name, value in change.items()},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    refused(done, *map(real, expected))
    # The last line is what is left on that disk: no half files.
    assert [name for name in done.stdout.splitlines() if name.startswith((".", "mattemill-"))] == []
