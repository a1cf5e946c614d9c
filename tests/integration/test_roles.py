"""`mattemill worker all`: both roles of one machine under one supervisor."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import workers.roles
from pipeline.ledger import Ledger
from pipeline.settings import Settings, load_settings
from tests.conftest import WaitUntil
from tests.processes import metrics, photo, process, put_run
from workers.devices import open_engine
from workers.local.ports import free_ports
from workers.roles import run_workers
from workers.supervisor import Command

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

COMMAND = ("producer.commands", "worker", "all")


@pytest.mark.timeout(120)
def test_one_command_does_a_whole_run_and_shows_its_numbers_on_one_page(
    ledger: Ledger, environment: dict[str, str], bucket: str, s3_client: "S3Client", wait_until: WaitUntil
) -> None:
    (port,) = free_ports(1)
    environment["MATTEMILL_METRICS_PORT"] = str(port)
    with process(environment, *COMMAND, "--devices", "fake:1", "--concurrency", "2") as worker:
        spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(5)})
        wait_until(lambda: ledger.counts(spec.run).state == "finished", 90)
        shown = metrics(port)
        roles = {child.cmdline()[2]: child for child in psutil.Process(worker.pid).children()}
        encoders = [child.nice() for child in roles["workers.cpu"].children()]
        loaders = [child.nice() for child in roles["workers.gpu"].children(recursive=True)]
        own = psutil.Process(worker.pid).nice()
        worker.terminate()
        assert worker.wait(30) == 0
    assert roles.keys() == {"workers.gpu", "workers.cpu"}
    assert encoders == [min(own + 5, 19)] * 2  # what feeds them goes first
    assert set(loaders) == {own}
    assert ledger.counts(spec.run).done == 5
    assert shown["mattemill_leader"] == 1
    assert shown['mattemill_stage_seconds_count{stage="fetch"}'] == 5
    assert shown['mattemill_stage_seconds_count{stage="upload"}'] == 5
    deaths = [f'mattemill_worker_deaths_total{{worker="workers.{role}"}}' for role in ("gpu", "cpu")]
    assert [shown[name] for name in deaths] == [0, 0]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Mapping[str, str]]:
    """What `run_workers` would start, and the variables that each module gets."""
    started: dict[str, Mapping[str, str]] = {}

    class NoSupervisor:
        def __init__(self, commands: Sequence[Command], *_: object, **__: object) -> None:
            started.update({command.module: command.environment for command in commands})

        def run(self) -> int:
            return 0

    monkeypatch.setattr(workers.roles, "Supervisor", NoSupervisor)
    return started


@pytest.mark.parametrize(("concurrency", "said", "expected"), [(1, None, "1"), (1, False, None), (0, None, None)])
def test_only_an_engine_beside_encode_processes_is_told_to_leave_them_cores(
    started: dict[str, Mapping[str, str]],
    settings: Settings,
    concurrency: int,
    said: bool | None,
    expected: str | None,
) -> None:
    if said is not None:
        settings = settings.model_copy(update={"with_encoding": said})
    assert run_workers(settings, ["cpu"], concurrency) == 0
    assert started["workers.gpu"].get("MATTEMILL_WITH_ENCODING") == expected


def test_encode_processes_keep_the_memory_of_a_photo_unless_the_user_says_otherwise(
    started: dict[str, Mapping[str, str]], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"):
        monkeypatch.delenv(name, raising=False)
    run_workers(settings, ["cpu"], 1)
    assert started["workers.cpu"] == {
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(96 << 20), "MALLOC_ARENA_MAX": "1",
    }  # fmt: skip
    assert not [name for name in started["workers.gpu"] if name.startswith("MALLOC")]
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    run_workers(settings, ["cpu"], 1)
    assert "MALLOC_TRIM_THRESHOLD_" not in started["workers.cpu"]


def test_an_engine_beside_encode_processes_takes_fewer_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    names = []
    for beside in (False, True):
        with open_engine("cpu", load_settings(model="cvunet-lite-s", with_encoding=beside)) as engine:
            if beside:
                engine.warm_up()
            names.append(engine.name)
    assert names[0].endswith("CPU, 8 threads")
    assert names[1] != names[0]


@pytest.mark.timeout(120)
def test_it_ends_when_one_role_cannot_run(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *COMMAND, "--devices", "cpu", "--concurrency", "1"],
        env=environment | {"MATTEMILL_MODEL": "no-such-model", "MATTEMILL_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "There is no model named 'no-such-model'" in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    given_up = [line for line in lines if line["event"] == "worker_given_up"]
    assert [line["command"] for line in given_up] == ["workers.gpu"]
