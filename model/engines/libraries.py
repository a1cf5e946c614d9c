"""Find TensorRT, or TensorRT for RTX, among the installed packages, and load it."""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType

from pipeline.errors import SetupError

OLDEST = {"tensorrt": (10, 12), "tensorrt-rtx": (1, 4)}
"""From these on a strongly typed FP16 graph is all there is to say; older ones want flags that newer ones removed."""

WHICH_TENSORRT = "pip install tensorrt-cu12 (data-centre GPUs) or pip install 'mattemill[gpu]' (RTX GPUs)"


class Runtime(StrEnum):
    """NVIDIA's two runtimes. Their Python interfaces are the same."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded runtime.

    Attributes:
        runtime: which of the two.
        module: what `import tensorrt` gives.
        version: such as "11.4.0.106".
        cuda: the major version of CUDA that it was made for; None where its packages do not tell.
    """

    runtime: Runtime
    module: ModuleType
    version: str
    cuda: int | None = None


@dataclass(frozen=True, slots=True)
class _Wheels:
    """Where a runtime may come from.

    Attributes:
        modules: importable names, the first one found is taken.
        carriers: packages that carry the shared libraries without loading them, for bindings that come alone.
        libraries: shared libraries in the order in which they need one another.
        hint: how to install it.
    """

    modules: tuple[str, ...]
    carriers: tuple[str, ...]
    libraries: tuple[str, ...]
    hint: str


_WHEELS = {
    Runtime.TENSORRT: _Wheels(
        ("tensorrt", "tensorrt_bindings"),
        (),
        (),
        "pip install tensorrt-cu12 (or tensorrt-cu13 for a driver that has CUDA 13)",
    ),
    Runtime.TENSORRT_RTX: _Wheels(
        ("tensorrt_rtx", "tensorrt_rtx_bindings"),
        ("onnxruntime_ep_nv_tensorrt_rtx",),
        ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"),
        "pip install 'mattemill[gpu]'",
    ),
}


def load_library(
    runtime: Runtime,
    importer: Callable[[str], ModuleType] = importlib.import_module,
    locate: Callable[[str], Path | None] | None = None,
) -> Library:
    """Load a runtime's Python module, and before it the shared libraries that lie in a wheel of another name.

    Loading needs no GPU and no driver. A user sets no LD_LIBRARY_PATH: a library that is in the process already is
    found by its own name (its SONAME, "libtensorrt_rtx.so.1").

    Args:
        runtime: which one.
        importer: imports a module by name.
        locate: the folder of an installed package, or None; by default as Python itself finds it.

    Raises:
        SetupError: when it is not installed, cannot be loaded, or is too old.
    """
    wheels = _WHEELS[runtime]
    locate = locate or _folder
    name = next((module for module in wheels.modules if locate(module) is not None), None)
    if name is None:
        raise SetupError(f"{runtime} is not installed here.", wheels.hint)
    try:
        if name.endswith("_bindings"):
            _preload(wheels, locate)
        module = importer(name)
    except (ImportError, OSError) as error:
        raise SetupError(f"{runtime} is installed but cannot be loaded: {error}.", wheels.hint) from error
    version = str(getattr(module, "__version__", "0"))
    oldest = OLDEST[runtime]
    if _numbers(version)[:2] < oldest:
        expected = ".".join(map(str, oldest))
        raise SetupError(f"{runtime} {version} is too old, expected {expected} or newer.", wheels.hint)
    return Library(runtime, module, version, _cuda(runtime))


def installed(runtime: Runtime, locate: Callable[[str], Path | None] | None = None) -> bool:
    """Whether packages of this runtime are there; says nothing of whether they work."""
    return any((locate or _folder)(module) is not None for module in _WHEELS[runtime].modules)


def _cuda(runtime: Runtime) -> int | None:
    for major in (11, 12, 13):
        with suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(f"{runtime}-cu{major}-bindings")
            return major
    return None


def _preload(wheels: _Wheels, locate: Callable[[str], Path | None]) -> None:
    for carrier in wheels.carriers:
        folder = locate(carrier)
        if folder is None:
            continue
        for library in wheels.libraries:
            for path in sorted(folder.glob(f"{library}.*")):
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        return


def _folder(package: str) -> Path | None:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or []) or ([spec.origin] if spec.origin else [])
    return Path(places[0]) if places else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
