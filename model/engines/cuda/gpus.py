"""The GPUs of this machine, as the driver's management library (NVML) tells of them. CUDA is not touched."""

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from pipeline.errors import SetupError

_WITHOUT = "Without a GPU: mattemill worker gpu --devices cpu"
_NO_PACKAGE = f"pip install 'mattemill[gpu]'. {_WITHOUT}"
_NO_DRIVER = f"install the driver (nvidia-smi must list the GPU); in a container: docker run --gpus all. {_WITHOUT}"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or one instance of a GPU in MIG mode.

    Attributes:
        index: its place in nvidia-smi; of an instance its GPU's.
        uuid: "GPU-…", of an instance "MIG-…"; what CUDA_VISIBLE_DEVICES takes.
        name: such as "NVIDIA L4".
        memory: in bytes; 0 where it is the machine's own, as on a GB10.
        compute_capability: such as "8.9".
        instances: of a GPU in MIG mode; nothing runs on such a GPU itself.
        mig: whether the GPU is in MIG mode.
    """

    index: int
    uuid: str
    name: str
    memory: int
    compute_capability: str
    instances: tuple["Gpu", ...] = ()
    mig: bool = False

    @property
    def model(self) -> str:
        """As it stands in the names of engine files, such as "sm89-nvidia-l4".

        The name too: TensorRT chooses kernels by a GPU's processors and memory, and says of a plan from another
        model of the same compute capability that it "is likely to affect performance or even cause errors".
        """
        name = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        return f"sm{self.compute_capability.replace('.', '')}-{name}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What NVML knows.

    Attributes:
        driver: its version, such as "580.65.06".
        cuda: the newest CUDA that the driver has, such as "13.0".
        gpus: in nvidia-smi's order, those left out that CUDA_VISIBLE_DEVICES hides or a container or scheduler forbids.
    """

    driver: str
    cuda: str
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """What a GPU or MIG instance does now.

    Attributes:
        used: bytes in use, by whatever process; 0 where the memory is the machine's own.
        memory: bytes there are; likewise.
        busy: share of the driver's last sample period in which anything ran, 0 to 1; None for a MIG instance.
    """

    used: int
    memory: int
    busy: float | None


def list_gpus(environment: Mapping[str, str] = os.environ, nvml: ModuleType | None = None) -> Inventory:
    """Ask NVML.

    Args:
        environment: CUDA_VISIBLE_DEVICES, which a scheduler may have set, chooses and orders what is listed.
        nvml: the module pynvml; imported when left out.

    Raises:
        SetupError: when the driver or the package is missing, or NVML fails.
    """
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError as error:
            raise SetupError("The package nvidia-ml-py is missing.", _NO_PACKAGE) from error
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise SetupError(f"There is no working NVIDIA driver here: {error}.", _NO_DRIVER) from error
    try:
        version = nvml.nvmlSystemGetCudaDriverVersion_v2()
        found = [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        everything = tuple(gpu for gpu in found if gpu is not None)
        return Inventory(
            nvml.nvmlSystemGetDriverVersion(),
            f"{version // 1000}.{version % 1000 // 10}",
            _visible(everything, environment.get("CUDA_VISIBLE_DEVICES")),
        )
    except nvml.NVMLError as error:
        raise SetupError(f"The NVIDIA driver does not answer: {error}.", _NO_DRIVER) from error
    finally:
        nvml.nvmlShutdown()


def used_memory(uuid: str) -> int:
    """Bytes in use on the GPU or MIG instance, by whatever process.

    Raises:
        SetupError: when NVML cannot tell.
    """
    return gpu_loads([uuid])[uuid].used


def gpu_loads(uuids: Sequence[str], nvml: ModuleType | None = None) -> dict[str, GpuLoad]:
    """What these GPUs and MIG instances do now, by UUID.

    Raises:
        SetupError: when NVML cannot tell.
    """
    try:
        nvml = nvml or importlib.import_module("pynvml")
    except ImportError as error:
        raise SetupError("The package nvidia-ml-py is missing.", "pip install 'mattemill[gpu]'") from error
    try:
        nvml.nvmlInit()
        try:
            return {uuid: _load(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid)) for uuid in uuids}
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        raise SetupError(f"The NVIDIA driver does not answer: {error}.", _NO_DRIVER) from error


def _load(nvml: ModuleType, handle: object) -> GpuLoad:
    used, memory = _memory(nvml, handle)
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except nvml.NVMLError:  # a MIG instance has none of its own
        busy = None
    return GpuLoad(used, memory, busy)


def _memory(nvml: ModuleType, handle: object) -> tuple[int, int]:
    """Bytes in use, and bytes there are; 0 where a GPU has none of its own (GB10 of the DGX Spark)."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_NOT_SUPPORTED:
            raise
        return 0, 0
    return memory.used, memory.total


def find_gpu(gpus: tuple[Gpu, ...], wanted: str) -> Gpu | None:
    """The GPU or MIG instance that an index, a UUID or the beginning of one names; None when none or several do."""
    if wanted.isdecimal():
        return gpus[int(wanted)] if int(wanted) < len(gpus) else None
    everything = [one for gpu in gpus for one in (gpu, *gpu.instances)]
    found = [one for one in everything if wanted and one.uuid.startswith(wanted)]
    return found[0] if len(found) == 1 else None


def usable_gpu(gpus: tuple[Gpu, ...], wanted: str) -> Gpu:
    """What `find_gpu` finds; of a GPU in MIG mode its first instance, for such a GPU runs nothing itself.

    Raises:
        SetupError: when there is none.
    """
    gpu = find_gpu(gpus, wanted)
    if gpu is not None and gpu.mig:
        gpu = gpu.instances[0] if gpu.instances else None
    if gpu is None:
        raise SetupError(f"There is no GPU {wanted!r} here that could run anything.", "nvidia-smi -L lists them")
    return gpu


def _visible(gpus: tuple[Gpu, ...], said: str | None) -> tuple[Gpu, ...]:
    """What CUDA would see: it stops at the first name that it does not know."""
    if said is None:
        return gpus
    seen: list[Gpu] = []
    for wanted in said.split(","):
        gpu = find_gpu(gpus, wanted.strip())
        if gpu is None:
            break
        seen.append(gpu)
    return tuple(seen)


def _gpu(nvml: ModuleType, index: int) -> Gpu | None:
    """None for a GPU of this machine that this process may not use: NVML counts those too."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        if error.value not in (nvml.NVML_ERROR_NO_PERMISSION, nvml.NVML_ERROR_OPERATING_SYSTEM):  # the latter: cgroups
            raise
        return None
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    capability = f"{major}.{minor}"
    try:
        mig = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:  # a GPU that knows no MIG
        mig = False
    instances = []
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if mig else 0):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
        except nvml.NVMLError:  # places may be empty
            continue
        instances.append(_described(nvml, instance, index, capability))
    gpu = _described(nvml, handle, index, capability)
    return Gpu(gpu.index, gpu.uuid, gpu.name, gpu.memory, capability, tuple(instances), mig)


def _described(nvml: ModuleType, handle: object, index: int, capability: str) -> Gpu:
    return Gpu(
        index,
        nvml.nvmlDeviceGetUUID(handle),
        nvml.nvmlDeviceGetName(handle),
        _memory(nvml, handle)[1],
        capability,
    )
