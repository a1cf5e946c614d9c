"""Where engine files lie: `<home>/engines/<model>/<runtime>-<version>-<gpu>-<precision>.engine`, a sidecar beside."""

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from model.engines.libraries import Runtime
from model.engines.sidecar import Sidecar, read_sidecar, write_sidecar
from pipeline.errors import SetupError

ANY_GPU = "any"
"""TensorRT for RTX compiles for the GPU when it runs: one file serves all."""


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What an engine file is for. Another version or GPU means another file, never the same one replaced.

    Attributes:
        model: the model's name.
        runtime: which runtime built it and must run it.
        version: of the runtime.
        gpu: `Gpu.model`, such as "sm89-nvidia-l4", or `ANY_GPU`.
        precision: "fp16" or "fp32".
    """

    model: str
    runtime: Runtime
    version: str
    gpu: str
    precision: str

    @property
    def stem(self) -> str:
        """The name of its files, without suffix."""
        return f"{self.runtime}-{self.version}-{self.gpu}-{self.precision}"

    @property
    def command(self) -> str:
        """What builds it."""
        precision = "" if self.precision == "fp16" else f" --precision {self.precision}"
        return f"mattemill engine build {self.model} --runtime {self.runtime}{precision}"


@dataclass(frozen=True, slots=True)
class Plan:
    """An engine file that is what its sidecar says."""

    path: Path
    sidecar: Sidecar
    data: bytes


class PlanStore:
    """The engine files of one home folder. Nothing is created before `lock` or `install`.

    Args:
        home: MATTEMILL_HOME.
    """

    def __init__(self, home: Path) -> None:
        self._engines = home / "engines"
        self._locks = home / "locks"

    def path(self, key: PlanKey) -> Path:
        """Where the engine file lies, or would lie."""
        return self._engines / key.model / f"{key.stem}.engine"

    def timing_cache(self, runtime: Runtime, version: str, gpu: str) -> Path:
        """Where the builder keeps its timings of one version on one GPU."""
        return self._engines / "timing" / f"{runtime}-{version}-{re.sub(r'[^A-Za-z0-9]+', '-', gpu).lower()}.cache"

    def paths(self) -> list[Path]:
        """All engine files, in order."""
        return sorted(self._engines.glob("*/*.engine"))

    @contextmanager
    def lock(self, key: PlanKey) -> Iterator[None]:
        """Hold the right to build an engine file on this machine; waits for whoever holds it.

        Raises:
            SetupError: when the home folder cannot be written.
        """
        with _writable(self._locks), (self._locks / f"{key.model}-{key.stem}.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def install(self, key: PlanKey, plan: bytes, network: bytes, sidecar: Sidecar) -> Path:
        """Write an engine file, the network it was built from, and last its sidecar.

        Whatever interrupts it, a reader finds the old engine, the new one, or one that does not fit its sidecar.

        Raises:
            SetupError: when the home folder cannot be written or is full.
        """
        path = self.path(key)
        with _writable(path.parent):
            for stale in path.parent.glob(f".{path.stem}.*.part"):  # left by a process that was killed
                stale.unlink(missing_ok=True)
            write_whole(path.with_suffix(".onnx"), network)
            write_whole(path, plan)
            write_whole(path.with_suffix(".json"), write_sidecar(sidecar))
        return path


def read_plan(path: Path, command: str = "mattemill engine build MODEL") -> Plan:
    """Read an engine file and compare it with its sidecar.

    Args:
        path: of the engine file.
        command: what builds it, for the hint.

    Raises:
        SetupError: when it is missing, damaged, cut off, or not what its sidecar speaks of.
    """
    beside = path.with_suffix(".json")
    try:
        data = path.read_bytes()
        said = beside.read_bytes()
    except FileNotFoundError as error:
        what = "Engine" if Path(str(error.filename)) == path else "The sidecar of an engine,"
        raise SetupError(f"{what} {error.filename} is missing.", command) from error
    except OSError as error:
        raise SetupError(f"{error.filename} cannot be read: {error.strerror}.", "mattemill doctor") from error
    try:
        sidecar = read_sidecar(said)
    except ValueError as error:
        raise SetupError(f"Engine {path} cannot be trusted: {error}.", command) from error
    got = hashlib.sha256(data).hexdigest()
    if got != sidecar.plan_sha256:
        raise SetupError(
            f"Engine {path} is damaged or another's: {len(data)} bytes with sha256 {got[:12]}…, "
            f"its sidecar expects {sidecar.plan_sha256[:12]}….",
            command,
        )
    return Plan(path, sidecar, data)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file as a whole: a reader, and a machine that loses power, find the old or the new one."""
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise SetupError(
            f"The engine cannot be written to {folder}: {error.strerror}.",
            "set MATTEMILL_HOME to a folder that can be written and has room",
        ) from error
