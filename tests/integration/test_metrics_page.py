"""What Prometheus reads from real supervisors, their workers and the children of those."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pipeline.ledger import Ledger
from pipeline.settings import Settings
from tests.conftest import WaitUntil
from tests.processes import metrics, photo, put_run
from workers.local.ports import free_ports

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

ENGINE = 'device="fake:1"'


class Page:
    """A supervisor with a page of its own."""

    def __init__(self, child: "subprocess.Popen[bytes]", port: int) -> None:
        self.child = child
        self._port = port

    def values(self) -> dict[str, float]:
        return metrics(self._port)

    def folder(self) -> Path:
        """Where its processes share what they count."""
        (folder,) = {
            Path(file.path).parent
            for process in psutil.Process(self.child.pid).children(recursive=True)
            for file in process.open_files()
            if file.path.endswith(".db")
        }
        return folder


@contextmanager
def supervisor(environment: dict[str, str], *words: str) -> Iterator[Page]:
    (port,) = free_ports(1)
    env = environment | {"MATTEMILL_METRICS_PORT": str(port)}
    child = subprocess.Popen([sys.executable, "-m", "producer.commands", "worker", *words], env=env)
    try:
        yield Page(child, port)
    finally:
        child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@pytest.mark.timeout(170)
def test_every_image_is_counted_once_by_whichever_process(
    ledger: Ledger,
    settings: Settings,
    environment: dict[str, str],
    bucket: str,
    s3_client: "S3Client",
    wait_until: WaitUntil,
    tmp_path: Path,
) -> None:
    environment["TMPDIR"] = str(tmp_path)
    bodies = {f"in/{n}.jpg": photo(n) for n in range(20)} | {"in/same.jpg": photo(3), "in/bad.jpg": b"no image"}
    with supervisor(environment, "cpu", "--concurrency", "2") as cpu:
        wait_until(lambda: cpu.values().get("mattemill_leader") == 1, 60)
        spec = put_run(ledger, s3_client, bucket, bodies, chunk=4)
        wait_until(lambda: cpu.values().get('mattemill_queue_messages{queue="matte.u2netp.320x320"}') == 6, 60)
        waiting = cpu.values()
        assert waiting['mattemill_queue_oldest_seconds{queue="matte.u2netp.320x320"}'] > 0
        assert waiting['mattemill_open_run_places{place="waiting"}'] == 22
        assert waiting['mattemill_open_run_images{outcome="listed"}'] == 22
        assert waiting['mattemill_housekeeping_total{action="fed"}'] == 22
        assert waiting['mattemill_images_total{code="",outcome="done"}'] == 0
        with supervisor(environment, "gpu", "--devices", "fake:1") as gpu:
            wait_until(lambda: ledger.counts(spec.run).state == "finished", 90)
            made, folder = gpu.values(), gpu.folder()
        worked = cpu.values()
        assert worked["mattemill_encode_images"] == worked["mattemill_encode_bytes"] == 0
        # What a child that is killed has counted stays, and its file goes.
        child = next(
            process
            for process in psutil.Process(cpu.child.pid).children(recursive=True)
            if "workers.cpu" in process.cmdline() and process.parent().pid != cpu.child.pid  # type: ignore[union-attr]
        )
        os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda: not child.is_running())
        wait_until(lambda: cpu.values() and not list(cpu.folder().glob(f"*_{child.pid}.db")))
        after = cpu.values()
    done, failed = 'mattemill_images_total{code="",outcome="done"}', "mattemill_images_total"
    assert worked[done] == after[done] == 21
    assert made[f'{failed}{{code="not_an_image",outcome="failed"}}'] == 1
    assert made['mattemill_messages_total{queue="matte.u2netp.320x320"}'] == 6
    assert worked['mattemill_messages_total{queue="encode"}'] == 21
    assert made[f"mattemill_engine_images_total{{{ENGINE}}}"] == 20
    assert made[f"mattemill_recent_matte_hits_total{{{ENGINE}}}"] == 1
    assert 3 <= made[f"mattemill_engine_batches_total{{{ENGINE}}}"] <= 20
    assert made[f"mattemill_engine_places_total{{{ENGINE}}}"] == 8 * made[f"mattemill_engine_batches_total{{{ENGINE}}}"]
    assert made[f"mattemill_engine_busy_seconds_total{{{ENGINE}}}"] >= 0.003
    # 120 x 90 in a square: a quarter is padding.
    pixels = made[f"mattemill_engine_pixels_total{{{ENGINE}}}"]
    assert pixels == 20 * 320 * 320
    assert made[f"mattemill_engine_padding_pixels_total{{{ENGINE}}}"] == pixels / 4
    assert made[f"mattemill_in_hand_images{{{ENGINE}}}"] == made[f"mattemill_loader_bytes{{{ENGINE}}}"] == 0
    stages = dict.fromkeys(("fetch", "decode", "hand_over"), 21) | {"wait": 20, "infer": 20}
    assert {name: made[f'mattemill_stage_seconds_count{{stage="{name}"}}'] for name in stages} == stages
    for name in ("fetch_again", "decode_full", "refine", "encode", "preview", "upload"):
        assert after[f'mattemill_stage_seconds_count{{stage="{name}"}}'] == 21
        assert after[f'mattemill_stage_seconds_bucket{{le="60.0",stage="{name}"}}'] == 21
    assert after['mattemill_worker_deaths_total{worker="workers.cpu"}'] == 0
    assert not folder.exists()
    assert not list(tmp_path.glob("mattemill-metrics-*"))


@pytest.mark.timeout(120)
def test_a_worker_that_is_killed_is_counted_and_so_is_what_it_did(
    environment: dict[str, str], settings: Settings, wait_until: WaitUntil
) -> None:
    with supervisor(environment, "gpu", "--devices", "fake:1") as gpu:
        deaths = 'mattemill_worker_deaths_total{worker="workers.gpu"}'
        gauge = f"mattemill_in_hand_images{{{ENGINE}}}"
        wait_until(lambda: gpu.values().get(gauge) == 0, 60)
        psutil.Process(gpu.child.pid).children()[0].kill()
        wait_until(lambda: gpu.values().get(deaths) == 1, 60)
        wait_until(lambda: gpu.values().get(gauge) == 0, 60)


def test_a_port_that_is_taken_is_told_and_without_one_nothing_listens(
    environment: dict[str, str], settings: Settings, wait_until: WaitUntil
) -> None:
    with supervisor(environment, "gpu", "--devices", "fake:1") as first:
        wait_until(first.values, 60)
        port = next(
            connection.laddr.port
            for connection in psutil.Process(first.child.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        )
        line = [sys.executable, "-m", "producer.commands", "worker", "gpu", "--devices", "fake:1"]
        done = subprocess.run(
            line, env=environment | {"MATTEMILL_METRICS_PORT": str(port)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "MATTEMILL_METRICS_PORT of its own" in done.stderr
