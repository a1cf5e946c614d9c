"""The command line as a user types it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import WaitUntil

COMMAND = [sys.executable, "-m", "producer.commands"]


@pytest.mark.timeout(170)
def test_the_demo_shows_every_sample_and_leaves_nothing_behind(
    environment: dict[str, str], tmp_path: Path, wait_until: WaitUntil
) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [*COMMAND, "demo", "--out", str(out)], env=environment, capture_output=True, text=True, timeout=160, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "listed 21 = done 17 + skipped 0 + failed 4" in done.stdout
    for code in ("truncated", "empty_object", "not_an_image", "too_large"):
        assert f": {code}: " in done.stdout
    assert "onnxruntime" in done.stdout
    assert len(list((out / "cutouts").rglob("*.png"))) == 17
    assert len((out / "manifest.jsonl").read_text("utf-8").splitlines()) == 21
    assert json.loads((out / "summary.json").read_text("utf-8"))["done"] == 17
    assert "产品 照片 01.jpg" in (out / "report.html").read_text("utf-8")

    def nothing_left() -> bool:
        mark = f"MATTEMILL_HOME={environment['MATTEMILL_HOME']}"
        return not any(mark in _environ(process) for process in psutil.process_iter())

    wait_until(nothing_left, 20)


def _environ(process: psutil.Process) -> list[str]:
    try:
        return [f"{name}={value}" for name, value in process.environ().items()]
    except psutil.Error:
        return []


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["demo"], ["enqueue"], ["sweep"], ["status"], ["failures"], ["report"], ["cancel"], ["worker", "gpu"],
        ["worker", "cpu"], ["model", "list"], ["model", "fetch"], ["doctor"],
    ],
)  # fmt: skip
def test_every_face_has_help(arguments: list[str], environment: dict[str, str]) -> None:
    done = run(environment, *arguments, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage:")


def test_set_up_errors_are_one_sentence_with_a_hint(environment: dict[str, str], s3_bucket: str) -> None:
    cases = [
        (
            environment,
            ["sweep", "s3://no-such-bucket-at-all/", "--to", f"s3://{s3_bucket}/x/"],
            "no-such-bucket-at-all",
        ),
        (environment | {"AWS_SECRET_ACCESS_KEY": "wrong"}, ["sweep", f"s3://{s3_bucket}/", "--to", "s3://o/x/"], ""),
        (environment | {"MATTEMILL_REDIS_URL": "redis://127.0.0.1:1/0"}, ["worker", "cpu"], "Redis"),
        (environment | {"MATTEMILL_REDIS_URL": "redis://127.0.0.1:1/0"}, ["status"], "Redis"),
        (environment, ["worker", "gpu"], "--devices cpu"),
        (environment, ["worker", "gpu", "--devices", "cpu"], "mattemill model fetch u2netp"),
        (environment | {"MATTEMILL_MAX_BATCH": "0"}, ["status"], "MATTEMILL_MAX_BATCH"),
        (environment, ["status", "no-such-run"], "no-such-run"),
    ]
    for env, arguments, expected in cases:
        done = run(env, *arguments)
        assert done.returncode == 2, (arguments, done.stdout, done.stderr)
        assert "Hint:" in done.stderr, (arguments, done.stderr)
        assert expected in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.timeout(120)
@pytest.mark.parametrize("ending", ["SIGINT", "SIGKILL"])
def test_up_prints_what_to_paste_and_leaves_nothing_behind(
    ending: str, environment: dict[str, str], tmp_path: Path, wait_until: WaitUntil
) -> None:
    mark = f"MATTEMILL_HOME={environment['MATTEMILL_HOME']}"
    printed = tmp_path / "printed"
    with printed.open("wb") as output:
        parent = subprocess.Popen([*COMMAND, "up", "--devices", "fake:1"], env=environment, stdout=output)
    try:
        wait_until(lambda: "Ctrl-C" in printed.read_text(), 60)
        text = printed.read_text()
        theirs = dict(
            line.removeprefix("export ").replace("'", "").split("=", 1)
            for line in text.splitlines()
            if "export" in line
        )
        wait_until(lambda: sum(mark in _environ(process) for process in psutil.process_iter()) >= 7, 60)
        assert not any(
            theirs["AWS_SECRET_ACCESS_KEY"] in " ".join(_cmdline(process)) for process in psutil.process_iter()
        )
        done = run(environment | theirs, "sweep", "s3://photos/", "--to", "s3://cutouts/", "--wait", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["listed"] == 0
    finally:
        parent.send_signal(getattr(signal, ending))
        parent.wait(60)
    wait_until(lambda: not any(mark in _environ(process) for process in psutil.process_iter()), 30)


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
