"""Open the engine of a model on a device, or say in a sentence why it cannot run and what to do."""

from collections.abc import Callable
from pathlib import Path

from model.engines.api import LoadedApi
from model.engines.cuda.bindings import BindingsBackend
from model.engines.cuda.device import DeviceBackend
from model.engines.cuda.gpus import Gpu, Inventory
from model.engines.cuda.pycuda import PycudaBackend
from model.engines.libraries import Library, Runtime
from model.engines.plans import ANY_GPU, Plan, PlanKey, PlanStore, read_plan
from model.engines.tensorrt import TensorRTEngine
from model.store import ModelStore
from pipeline.errors import SetupError


class OutdatedPlanError(SetupError):
    """An engine file is well, but of another model or for other GPUs; building it again makes it right."""


PRECISIONS = ("fp16", "fp32")
_OLDEST_CUDA = 12
"""The oldest major version that the newest packages are made for."""
_BACKENDS: tuple[Callable[[], DeviceBackend], ...] = (PycudaBackend.load, BindingsBackend.load)


def open_backend(backends: tuple[Callable[[], DeviceBackend], ...] = _BACKENDS) -> DeviceBackend:
    """The first device backend whose package is installed: PyCUDA, or else cuda-bindings.

    Raises:
        SetupError: when there is none.
    """
    for load in backends:
        try:
            return load()
        except ImportError:
            continue
    raise SetupError("Neither pycuda nor cuda-bindings is installed.", "pip install 'mattemill[gpu]'")


def check_driver(library: Library, inventory: Inventory) -> None:
    """Refuse a library that the driver is too old for: CUDA would fail in it, or crash.

    Raises:
        SetupError: names both versions.
    """
    newest = int(inventory.cuda.split(".")[0])
    if library.cuda is None or newest >= library.cuda:
        return
    hint, name = "install a newer driver", f"{library.runtime}-cu"
    if newest >= _OLDEST_CUDA:
        # Both packages bring the module of the same name: one has to go first.
        old = " ".join(f"{name}{library.cuda}{part}" for part in ("", "-bindings", "-libs"))
        hint += f", or the packages for CUDA {newest}: pip uninstall {old}, then pip install {name}{newest}"
    raise SetupError(
        f"{library.runtime} {library.version} is made for CUDA {library.cuda}, "
        f"the driver {inventory.driver} has CUDA {inventory.cuda}.",
        hint,
    )


def plan_keys(model: str, library: Library, gpu: Gpu) -> list[PlanKey]:
    """The engine files of a model that may run on `gpu`, the fastest first."""
    target = gpu.model if library.runtime is Runtime.TENSORRT else ANY_GPU
    return [PlanKey(model, library.runtime, library.version, target, precision) for precision in PRECISIONS]


def find_plan(model: str, home: Path, library: Library, gpu: Gpu) -> Plan | None:
    """The engine file that fits model, library and GPU; None when it has to be built.

    Raises:
        SetupError: when there is one, but it is damaged.
        OutdatedPlanError: when it is of another model or not for this GPU.
    """
    plans = PlanStore(home)
    key = next((one for one in plan_keys(model, library, gpu) if plans.path(one).exists()), None)
    if key is None:
        return None
    plan = read_plan(plans.path(key), key.command)
    check_plan(plan, library, gpu, ModelStore(home).card(model).model_sha256, key.command)
    return plan


def check_plan(plan: Plan, library: Library, gpu: Gpu, model_sha256: str, command: str) -> None:
    """Refuse an engine file that was built by another version, for another GPU, or from another model.

    Args:
        plan: the engine file.
        library: what would run it.
        gpu: what it would run on.
        model_sha256: of the model.onnx as it is now.
        command: what builds it, for the hint.

    Raises:
        SetupError: when another version built it.
        OutdatedPlanError: when it is of another model or not for this GPU.
    """
    side = plan.sidecar
    built_by, here = f"{side.runtime} {side.runtime_version}", f"{library.runtime} {library.version}"
    if built_by != here:
        raise SetupError(f"Engine {plan.path} was built by {built_by}; installed here is {here}.", command)
    if gpu.compute_capability not in side.compute_capabilities:
        wanted = (*side.compute_capabilities, gpu.compute_capability) if library.runtime is Runtime.TENSORRT_RTX else ()
        raise OutdatedPlanError(
            f"Engine {plan.path} cannot run here: {gpu.name} has compute capability {gpu.compute_capability}, "
            f"it was built for {', '.join(side.compute_capabilities) or 'none'}.",
            " ".join([command, *(f"--compute-capability {one}" for one in wanted)]),
        )
    if library.runtime is Runtime.TENSORRT and side.gpu != gpu.name:
        raise OutdatedPlanError(f"Engine {plan.path} was built on {side.gpu}; the GPU here is {gpu.name}.", command)
    if side.onnx_sha256 != model_sha256:
        raise OutdatedPlanError(
            f"Engine {plan.path} was built from another {side.model}: ONNX {side.onnx_sha256[:12]}…, "
            f"installed is {model_sha256[:12]}….",
            command,
        )


def open_tensorrt(model: str, home: Path, library: Library, gpu: Gpu, max_batch: int) -> TensorRTEngine:
    """Open an engine file that is there.

    Args:
        model: its name.
        home: MATTEMILL_HOME.
        library: loaded.
        gpu: what CUDA's device 0 is.
        max_batch: the most images in one call.

    Raises:
        SetupError: when there is none, or it cannot run here.
    """
    plan = find_plan(model, home, library, gpu)
    if plan is None:
        command = plan_keys(model, library, gpu)[0].command
        raise SetupError(f"There is no engine of {model} for {library.runtime} {library.version} here.", command)
    return run_plan(plan, home, library, max_batch)


def run_plan(plan: Plan, home: Path, library: Library, max_batch: int) -> TensorRTEngine:
    """Open this very engine file, which `check_plan` has found to fit.

    Raises:
        SetupError: when it cannot run here.
    """
    spec = ModelStore(home).spec(plan.sidecar.model)
    return TensorRTEngine(plan, LoadedApi(library), open_backend(), spec.size_buckets, max_batch)
