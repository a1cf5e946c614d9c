"""What workers, beat and the live page write into a pipe: every line is JSON, and tells whose it is."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import redis

from pipeline.ledger import Ledger, connect
from pipeline.settings import Settings
from tests.conftest import WaitUntil
from tests.processes import empty, photo, put_run
from workers.local.ports import free_ports

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_SWEEPS = """
[sweeps.yearly]
source = "s3://photos/"
to = "s3://cutouts/"
cron = "0 3 1 1 *"
time_zone = "UTC"
"""


@contextmanager
def logging(environment: Mapping[str, str], log: Path, *arguments: str) -> Iterator[psutil.Popen]:
    """`mattemill ARGUMENTS` with its log in a file, ended with TERM."""
    with log.open("wb") as file:
        child = psutil.Popen(
            [sys.executable, "-m", "producer.commands", *arguments], env=environment, stdout=file, stderr=file
        )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def events(log: Path) -> list[dict[str, Any]]:
    """The lines so far; JSONDecodeError for one that is none."""
    whole = log.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def test_every_line_is_json_and_says_who_when_and_which_image(
    environment: dict[str, str],
    settings: Settings,
    s3_client: "S3Client",
    s3_bucket: str,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    (tmp_path / "sweeps.toml").write_text(_SWEEPS)
    environment |= {"MATTEMILL_SWEEPS": str(tmp_path / "sweeps.toml")}
    names = ("gpu", "cpu", "beat", "web")
    logs = {name: tmp_path / f"{name}.log" for name in names}
    client = connect(settings)
    ledger = Ledger(client, settings)
    bodies = {f"in/{number}.jpg": photo(number) for number in range(6)} | {"in/cut-off.jpg": photo(7)[:500]}
    with ExitStack() as stack:
        stack.callback(client.close)
        stack.callback(empty, s3_client, s3_bucket)
        workers = [
            stack.enter_context(logging(environment, logs["gpu"], "worker", "gpu", "--devices", "fake:1")),
            stack.enter_context(logging(environment, logs["cpu"], "worker", "cpu", "--concurrency", "1")),
        ]
        stack.enter_context(logging(environment, logs["beat"], "beat"))
        stack.enter_context(logging(environment, logs["web"], "web", "--no-password", f"--port={free_ports(1)[0]}"))
        run = put_run(ledger, s3_client, s3_bucket, bodies).run
        wait_until(lambda: ledger.counts(run).done == 6 and ledger.counts(run).failed == 1, 90)
        wait_until(lambda: any(line["event"] == "beat_started" for line in events(logs["beat"])), 60)

        # What the libraries say of a dead child and of a broker that is away.
        (pool,) = [child for child in workers[1].children() if "workers.cpu" in child.cmdline()]
        pool.children()[0].kill()
        with redis.Redis.from_url(settings.redis_url.get_secret_value()) as admin:
            admin.client_kill_filter(_type="normal", skipme=True)
        for name, said in (("gpu", "Connection to broker lost"), ("cpu", "ForkPoolWorker")):
            wait_until(lambda name=name, said=said: said in logs[name].read_text(), 60)
            wait_until(lambda name=name, said=said: any(said in line["event"] for line in events(logs[name])), 20)

    lines = {name: events(log) for name, log in logs.items()}
    for name in names:
        for line in lines[name]:
            assert line["role"] in (name, "finisher")
            assert line["level"] in ("debug", "info", "warning", "error", "critical")
            assert line["timestamp"].endswith("Z")
    images = [line for name in names for line in lines[name] if "key" in line]
    stages = sorted((line["event"], line["key"]) for line in images)
    made = [key for key in bodies if key != "in/cut-off.jpg"]
    assert stages == sorted(
        [("matte", key) for key in made] + [("encode", key) for key in made] + [("matte_failed", "in/cut-off.jpg")]
    )
    for line in images:
        assert line["run"] == run
        assert line["task"]
        assert line["worker"].startswith(f"{line['role']}-")
