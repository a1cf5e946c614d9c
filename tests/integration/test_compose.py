"""What compose.yaml starts, started here: its commands, settings and health checks, with servers from wheels.

A container's read-only root file system is imitated with a mount namespace where this machine allows that. Not tried
here: images, networks, users, init.
"""

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import redis
from botocore.config import Config

from tests.command_line import temporary_folder
from tests.conftest import ROOT, WaitUntil
from tests.containers import DOCKER, compose, image_environment, seconds
from tests.processes import photo
from workers.local import seaweed as seaweed_module
from workers.local import valkey as valkey_module
from workers.local.ports import LOOPBACK, free_ports
from workers.local.process import Child, wait_ready

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_HOME = "/var/lib/mattemill"
_BIN = Path(sys.executable).parent
_PARTS = ("master", "volume", "filer", "s3")
# A read-only root, the volume at its place, and an empty /tmp.
_READ_ONLY = """
mount --bind "$1" /mnt && mount -t tmpfs -o size=2g,mode=1777 tmpfs /tmp && mount -o remount,bind,ro / || exit 99
shift; exec "$@"
"""


class Box:
    """The services of compose.yaml as processes on this machine."""

    def __init__(self, folder: Path, short: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.values = {
            name: secrets.token_hex(12)
            for name in (
                "MATTEMILL_REDIS_PASSWORD",
                "MATTEMILL_WEB_PASSWORD",
                "FLOWER_PASSWORD",
                "AWS_ACCESS_KEY_ID",
                "AWS_SECRET_ACCESS_KEY",
            )
        }
        self.file = compose(self.values)
        self.services = self.file["services"]
        *ports, self.web_port = free_ports(9, offsets=(0, 10_000))
        self.redis_port, self.flower_port = ports[:2]
        self.metrics_ports = dict(zip(("worker-gpu-role-on-cpu", "worker-cpu"), ports[2:4], strict=True))
        self.s3_ports = dict(zip(_PARTS, ports[4:], strict=True))
        self.prefix = self._read_only_prefix(self.home)
        self._short = short

    @property
    def s3_url(self) -> str:
        return f"http://{LOOPBACK}:{self.s3_ports['s3']}"

    def _read_only_prefix(self, volume: Path) -> list[str]:
        prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", _READ_ONLY, "sh", str(volume)]
        trial = [*prefix, str(_BIN / "python"), "-c", f"import os, producer; os.stat({str(ROOT)!r})"]
        with suppress(OSError):
            if subprocess.run(trial, cwd=ROOT, capture_output=True, check=False).returncode == 0:
                return prefix
        return []

    def placed(self, text: str) -> str:
        """A text of the compose file with this machine's addresses and folders in it."""
        places = {
            "valkey:6379": f"{LOOPBACK}:{self.redis_port}",
            "seaweedfs:8333": f"{LOOPBACK}:{self.s3_ports['s3']}",
            "127.0.0.1:8333": f"{LOOPBACK}:{self.s3_ports['s3']}",
            "127.0.0.1:9333": f"{LOOPBACK}:{self.s3_ports['master']}",
            "127.0.0.1:5555": f"{LOOPBACK}:{self.flower_port}",
            "--port=5555": f"--port={self.flower_port}",
            "127.0.0.1:8080": f"{LOOPBACK}:{self.web_port}",
            "--port=8080": f"--port={self.web_port}",
            "--host=0.0.0.0": f"--host={LOOPBACK}",
            "/etc/mattemill/sweeps.toml": "/mnt/sweeps.toml" if self.prefix else str(self.home / "sweeps.toml"),
            _HOME: "/mnt" if self.prefix else str(self.home),
        }
        for old, new in places.items():
            text = text.replace(old, new)
        return text

    def environment(self, service: str) -> dict[str, str]:
        """What the container of a service would see, and what this machine's pip and Python need."""
        allowed = ("PIP_", "SSL_", "REQUESTS_", "LANG", "LC_", "HTTP", "http", "no_proxy", "NO_PROXY", "ALL_PROXY")
        theirs = {name: value for name, value in os.environ.items() if name.startswith(allowed)}
        image = image_environment(DOCKER / "cpu.Dockerfile")
        given = {
            name: value for name, value in self.services[service].get("environment", {}).items() if value is not None
        }
        if service == "beat":
            given["MATTEMILL_SWEEPS"] = "/etc/mattemill/sweeps.toml"
        if service not in self.metrics_ports:
            given.pop("MATTEMILL_METRICS_PORT", None)
        else:
            assert (given["MATTEMILL_METRICS_PORT"], given["MATTEMILL_METRICS_HOST"]) == ("9464", "0.0.0.0")
            here_only = {"MATTEMILL_METRICS_HOST": LOOPBACK}
            given |= here_only | {"MATTEMILL_METRICS_PORT": str(self.metrics_ports[service])}
        inner = {**image, **given}
        home = self.placed(_HOME)
        here = {"PATH": f"{_BIN}:/usr/bin:/bin", "HOME": home, "PYTHONPATH": str(ROOT)}
        return {**theirs, **here, **{name: self.placed(value) for name, value in inner.items()}}

    def command(self, service: str, *arguments: str) -> list[str]:
        """Entry point and command of a service; `arguments` replace its command."""
        entry = self.services[service].get("entrypoint", ["mattemill"])
        words = [*entry, *(arguments or self.services[service]["command"])]
        return [*self.prefix, *map(self.placed, words)]

    def run(self, service: str, *arguments: str, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(service, *arguments), env=self.environment(service), cwd=self.home,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    @contextmanager
    def start(self, service: str) -> Iterator[Child]:
        with Child(
            self.command(service), name=service, log=self.folder / f"{service}.log", cwd=self.home,
            env=self.environment(service), death_signal=signal.SIGTERM,
        ) as child:  # fmt: skip
            try:
                yield child
            finally:
                child.stop(seconds(self.services[service]["stop_grace_period"]))

    def is_healthy(self, service: str) -> bool:
        """Whether the health check of a service says so now."""
        kind, *words = self.services[service]["healthcheck"]["test"]
        words = [self.placed(word) for word in words]
        check = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        timeout = 6 * seconds(self.services[service]["healthcheck"]["timeout"])  # a machine that others use too
        done = subprocess.run(
            [*self.prefix, *check], env=self.environment(service), cwd=self.home, capture_output=True, timeout=timeout,
            check=False,
        )  # fmt: skip
        return done.returncode == 0

    def server(self, service: str, program: Path, places: Mapping[str, str], options: Sequence[str] = ()) -> Child:
        """A server of the compose file, by its command line, with the embedded program and these places for its own."""
        data = self.folder / service
        data.mkdir()
        part = self.services[service]
        assert part["read_only"] is True
        prefix = self._read_only_prefix(data) if self.prefix else []
        # In this order: what is put in may lie below what comes before it.
        places = {"/tmp/": "/tmp/" if prefix else f"{data}/", "/data": "/mnt" if prefix else str(data), **places}
        words = [*part.get("entrypoint", []), *part["command"]]
        texts = {name: str(text) for name, text in part["environment"].items()}
        for old, new in places.items():
            words = [word.replace(old, new) for word in words]
            texts = {name: text.replace(old, new) for name, text in texts.items()}
        environment = {"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(data), "LC_ALL": "C", **texts}
        if not prefix:
            environment["TMPDIR"] = str(self._short)
        log = self.folder / f"{service}.log"
        return Child([*prefix, *words, *options], name=service, log=log, cwd=data, env=environment)

    @contextmanager
    def valkey(self) -> Iterator[None]:
        """The embedded program, with the configuration of the compose file."""
        program = valkey_module._binary()
        places = {"bind * -::*": f"bind {LOOPBACK}\nport {self.redis_port}", "exec valkey-server": f"exec {program}"}
        with self.server("valkey", program, places) as child:
            wait_ready(child, self._redis_answers, 60)
            self._keeps_to_itself(child, self.values["MATTEMILL_REDIS_PASSWORD"], "CONFIGURATION")
            yield

    def _keeps_to_itself(self, child: Child, password: str, variable: str) -> None:
        """What ran the server's script is the server now, and no other user of the machine reads its password."""
        process = Path(f"/proc/{child.pid}")
        assert password not in (process / "cmdline").read_text()
        assert f"{variable}=" not in (process / "environ").read_text()
        assert (process / "exe").resolve() != Path(sys.executable).resolve()

    def _redis_answers(self) -> bool:
        password = self.values["MATTEMILL_REDIS_PASSWORD"]
        with redis.Redis(port=self.redis_port, password=password) as client, suppress(redis.RedisError):
            return bool(client.ping())
        return False

    @contextmanager
    def seaweed(self) -> Iterator[None]:
        """The embedded program, with the command line of the compose file."""
        program = seaweed_module._binary()
        places = {
            "-ip=seaweedfs": f"-ip={LOOPBACK}",
            "-ip.bind=0.0.0.0": f"-ip.bind={LOOPBACK}",
            "exec weed": f"exec {program}",
        }
        options = []
        for part, port in self.s3_ports.items():
            options += [f"-{part}.port={port}", f"-{part}.port.grpc={port + 10_000}"]
        with self.server("seaweedfs", program, places, options) as child:
            check = self.services["seaweedfs"]["healthcheck"]["test"][1]
            wait_ready(child, lambda: self._s3_answers(check), 120)
            self._keeps_to_itself(child, self.values["AWS_SECRET_ACCESS_KEY"], "IDENTITIES")
            try:
                yield
            finally:
                child.stop(5)

    def _s3_answers(self, check: str) -> bool:
        """Ask what the health check asks; its wget may not be on this machine."""
        assert "/healthz" in check
        assert "/dir/status" in check
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with suppress(OSError):
            with direct.open(f"{self.s3_url}/healthz", timeout=5):
                pass
            with direct.open(f"http://{LOOPBACK}:{self.s3_ports['master']}/dir/status", timeout=5) as answer:
                return b"DataNodes" in answer.read()
        return False


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with temporary_folder() as short, ExitStack() as stack:
        box = Box(tmp_path_factory.mktemp("box"), short)
        stack.enter_context(box.valkey())
        stack.enter_context(box.seaweed())
        fetched = box.run("model")
        assert fetched.returncode == 0, fetched.stderr
        yield box


@pytest.fixture(scope="module")
def s3(box: Box) -> Iterator["S3Client"]:
    client = boto3.client(
        "s3",
        endpoint_url=box.s3_url,
        aws_access_key_id=box.values["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=box.values["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(signature_version="s3v4", proxies={}),
    )
    yield client
    client.close()


@pytest.mark.timeout(900)
def test_the_services_work_report_their_health_and_lose_nothing_when_restarted(
    box: Box, s3: "S3Client", wait_until: WaitUntil
) -> None:
    roles = ("worker-gpu-role-on-cpu", "worker-cpu")
    assert not any(map(box.is_healthy, roles))
    for number in range(20, 40):
        s3.put_object(Bucket="photos", Key=f"day/{number}.jpg", Body=photo(number))

    with ExitStack() as stack:
        workers = [stack.enter_context(box.start(role)) for role in roles]
        for role in roles:
            wait_until(lambda role=role: box.is_healthy(role), 300)
        assert box.run("cli").returncode == 0  # doctor
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for role in roles:
            with direct.open(f"http://{LOOPBACK}:{box.metrics_ports[role]}/metrics", timeout=20) as page:
                assert b"mattemill_worker_deaths_total" in page.read()
        swept = box.run("cli", "sweep", "s3://photos/day/3", "--to", "s3://cutouts/first/", "--wait", "--json")
        assert swept.returncode == 0, swept.stdout + swept.stderr
        assert json.loads(swept.stdout)["done"] == 10

        started = box.run("cli", "sweep", "s3://photos/day/", "--to", "s3://cutouts/second/", "--json")
        run = json.loads(started.stdout)["run"]
        for worker in workers:  # as `docker compose restart`: TERM, then KILL after the grace period
            worker.terminate()
        grace = seconds(box.services["worker-cpu"]["stop_grace_period"])
        wait_until(lambda: all(worker.poll() is not None for worker in workers), grace)
        assert [worker.poll() for worker in workers] == [0, 0]
    assert not any(map(box.is_healthy, roles))

    with ExitStack() as stack:
        for role in roles:
            stack.enter_context(box.start(role))
        followed = box.run("cli", "status", run, "--watch", "--json")
        assert followed.returncode == 0, followed.stdout + followed.stderr
        page = s3.list_objects_v2(Bucket="cutouts", Prefix="second/")
        cutouts = [entry["Key"] for entry in page["Contents"] if entry["Key"].endswith(".png")]
        assert len(cutouts) == 20
        wait_until(lambda: box.is_healthy("worker-cpu"), 120)  # Flower asks once which queues there are
        _look_at_pages(box, wait_until, run)


def _look_at_pages(box: Box, wait_until: WaitUntil, run: str) -> None:
    pages = (
        ("flower", f"{box.flower_port}/broker", "FLOWER_PASSWORD", "encode"),
        ("web", f"{box.web_port}/", "MATTEMILL_WEB_PASSWORD", run),
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for service, path, password, expected in pages:
        url = f"http://{LOOPBACK}:{path}"
        login = base64.b64encode(f"mattemill:{box.values[password]}".encode()).decode()
        with box.start(service) as child:
            wait_until(lambda service=service: box.is_healthy(service), 120)
            with pytest.raises(urllib.error.HTTPError) as refusal:
                direct.open(url, timeout=20)
            assert refusal.value.code == 401
            refusal.value.close()
            request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
            with direct.open(request, timeout=20) as page:
                assert expected in page.read().decode()
            assert box.values[password] not in child.output()


def test_the_ledger_is_kept_and_nothing_is_evicted(box: Box) -> None:
    with redis.Redis(port=box.redis_port, password=box.values["MATTEMILL_REDIS_PASSWORD"]) as client:
        wanted: Mapping[str, str] = {"appendonly": "yes", "maxmemory-policy": "noeviction", "maxmemory": str(2 << 30)}
        found: Any = client.config_get(*wanted)
        assert found == wanted


@pytest.mark.timeout(300)
def test_beat_starts_with_the_file_of_sweeps(box: Box, wait_until: WaitUntil) -> None:
    (box.home / "sweeps.toml").write_text((DOCKER / "sweeps" / "example.toml").read_text())
    with box.start("beat") as beat:
        # Its health is read from the ledger, which may be well before it is up.
        wait_until(lambda: beat.poll() is not None or ("beat_started" in beat.output() and box.is_healthy("beat")), 120)
        assert beat.poll() is None, beat.output()
    assert beat.poll() == 0
