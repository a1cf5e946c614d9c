"""What `mattemill doctor` says of GPUs, their packages and the engine files; on a machine without a GPU only notes."""

import importlib.metadata
from collections.abc import Callable

from model.engines.cuda.gpus import Inventory, list_gpus
from model.engines.libraries import WHICH_TENSORRT, Runtime, installed, load_library
from model.engines.opener import check_driver, open_backend
from model.engines.plans import PlanStore
from pipeline.errors import SetupError
from pipeline.settings import Settings
from producer.finding import Finding

_PACKAGES = (
    "pycuda",
    "cuda-bindings",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx-cu12-bindings",
    "tensorrt-rtx-cu13-bindings",
    "torch",
    "onnxruntime-gpu",
)


def gpus(look: Callable[[], Inventory] = list_gpus) -> list[Finding]:
    """A line for each GPU, with driver and CUDA, and whether `worker gpu` can run there; a note where there is none."""
    try:
        inventory = look()
    except SetupError as error:
        return [Finding("gpu", "note", f"No GPU can be used: {error.args[0]}", "worker gpu --devices cpu needs none")]
    if not inventory.gpus:
        return [Finding("gpu", "note", "The driver shows no GPU.", "worker gpu --devices cpu needs none")]
    about = f"driver {inventory.driver}, CUDA {inventory.cuda}"
    return [
        Finding(
            "gpu",
            "ok",
            f"{gpu.index}: {gpu.name}, {gpu.memory >> 20} MB, compute capability {gpu.compute_capability}, {gpu.uuid}"
            + (f", MIG with {len(gpu.instances)} instances" if gpu.mig else "")
            + f"; {about}.",
        )
        for gpu in inventory.gpus
    ] + [_usual_engine(inventory)]


def _usual_engine(inventory: Inventory) -> Finding:
    """What `worker gpu` takes when it is told of no engine, and whether it can run."""
    from engine_build.capabilities import check_capability

    runtime = next((one for one in Runtime if installed(one)), None)
    if runtime is None:
        return Finding("gpu engine", "note", "No TensorRT is installed.", WHICH_TENSORRT)
    try:
        library = load_library(runtime)
        check_driver(library, inventory)
        for gpu in inventory.gpus:
            check_capability(library, gpu)
        backend = open_backend()
    except SetupError as error:
        return Finding("gpu engine", "bad", str(error.args[0]), error.hint)
    return Finding("gpu engine", "ok", f"worker gpu runs {runtime} {library.version}, with {backend.name}.")


def packages() -> Finding:
    """The packages that GPU engines can use."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if not found:
        return Finding(
            "gpu packages", "note", "None is installed.", "pip install 'mattemill[gpu]' where there is a GPU"
        )
    return Finding("gpu packages", "ok", f"{', '.join(found)}.")


def engines(settings: Settings) -> list[Finding]:
    """A line for each engine file and whether it can run here."""
    from engine_build.inspect import inspect, verdicts

    findings = []
    for path in PlanStore(settings.home).paths():
        try:
            judged = verdicts(inspect(path), settings.home)
        except SetupError as error:
            findings.append(Finding("engine file", "note", f"{path.name}: {error.args[0]}", error.hint))
            continue
        told = "; ".join(f"{one.where}: {'fits' if one.fits else one.reason}" for one in judged)
        name = f"{path.parent.name}/{path.name}"
        fits = any(one.fits for one in judged)
        findings.append(Finding("engine file", "ok" if fits else "note", f"{name}: {told}"))
    return findings
