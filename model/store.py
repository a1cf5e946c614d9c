"""Where models lie on a machine: `<home>/models/<name>/model.onnx` and a sidecar that says what it is."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from model.catalogue import CONTRACT, ModelSpec, find
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class ModelStore:
    """The installed models of one home folder.

    A model is there when its sidecar model.json is: that is written last. Nothing is created before `install`.
    """

    def __init__(self, home: Path) -> None:
        self._models = home / "models"

    def installed(self) -> list[ModelSpec]:
        """What is installed, by name; sidecars are read, weights are not verified.

        Raises:
            SetupError: when the folder or a sidecar cannot be read.
        """
        with _readable(self._models):
            names = sorted(sidecar.parent.name for sidecar in self._models.glob("*/model.json"))
        return [self.spec(name) for name in names]

    def spec(self, name: str) -> ModelSpec:
        """What the sidecar of an installed model says.

        Raises:
            SetupError: when the model is unknown, not installed, or its sidecar is damaged or of another contract.
        """
        return self._sidecar(name)[0]

    def path(self, name: str) -> Path:
        """The model.onnx of an installed model, after comparing its sha256 with the sidecar's.

        Raises:
            SetupError: as `spec`, and when model.onnx is missing or is not what was installed.
        """
        _, expected = self._sidecar(name)
        path = self._models / name / "model.onnx"
        with _readable(path):
            if not path.is_file():
                raise _damaged(name, "model.onnx is missing")
            with path.open("rb") as file:
                got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != expected:
            raise _damaged(name, f"model.onnx has sha256 {got[:12]}…, expected {expected[:12]}…")
        return path

    def install(self, spec: ModelSpec, onnx: bytes) -> Path:
        """Write a model that fulfils the contract; gives the path of its model.onnx.

        Whatever interrupts it, a reader finds the old model, the new one, or one that it knows to be damaged.

        Raises:
            SetupError: when the home folder cannot be written or is full.
        """
        if not _NAME.fullmatch(spec.name):
            raise SetupError(f"A model cannot be named {spec.name!r}.", "use a-z, 0-9, dot, dash and underscore")
        folder = self._models / spec.name
        sidecar = {
            "contract": CONTRACT,
            **asdict(spec),
            "size_buckets": [str(size_bucket) for size_bucket in spec.size_buckets],
            "model_sha256": hashlib.sha256(onnx).hexdigest(),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / "model.onnx", onnx)
            _write(folder / "model.json", (json.dumps(sidecar, indent=2) + "\n").encode())
        except OSError as error:
            raise SetupError(
                f"The model cannot be written to {folder}: {error.strerror}.",
                "set MATTEMILL_HOME to a folder that can be written and has room",
            ) from error
        return folder / "model.onnx"

    def _sidecar(self, name: str) -> tuple[ModelSpec, str]:
        """The spec and the sha256 of model.onnx."""
        path = self._models / name / "model.json"
        with _readable(path):
            # A name that is no name must not lead out of the folder.
            data = path.read_bytes() if _NAME.fullmatch(name) and path.is_file() else None
        if data is None:
            find(name)
            raise SetupError(f"Model {name} is not installed.", f"mattemill model fetch {name}")
        try:
            entry = json.loads(data)
            if entry["contract"] != CONTRACT:
                raise _damaged(name, f"it has contract {entry['contract']}, expected {CONTRACT}")
            buckets = tuple(SizeBucket.parse(size_bucket) for size_bucket in entry["size_buckets"])
            spec = ModelSpec(name, entry["weights"], buckets, entry["licence"], entry["origin"])
            return spec, str(entry["model_sha256"])
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(name, "model.json cannot be read") from error


def _damaged(name: str, why: str) -> SetupError:
    return SetupError(f"Model {name} cannot be used: {why}.", f"mattemill model fetch {name}")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read: {error.strerror}.", "set MATTEMILL_HOME to a folder that can be read"
        ) from error


def _write(path: Path, data: bytes) -> None:
    """Replace a file as a whole: a reader, and a machine that loses power, find the old or the new one."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
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
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
