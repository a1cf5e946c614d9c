"""Which devices the GPU role runs on, one process for each, and the engine that such a process opens."""

import fcntl
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import structlog

from model.engines.cuda.gpus import Gpu, Inventory, find_gpu, list_gpus
from model.engines.libraries import WHICH_TENSORRT, Runtime, installed
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.settings import Settings

if TYPE_CHECKING:
    from model.engines.base import Engine

log = structlog.get_logger(__name__)

CPU = "cpu"
ENGINES = ("tensorrt", "tensorrt-rtx", "torch", "onnx")
_CPU_ENGINES = ("onnx", "torch")
_BESIDE_MS = 40.0
"""Of processor time, for a photo of 1 to 2 megapixels: loading, encoding, uploading and the workers themselves
(`bench.throughput`)."""
_NO_GPU = "without a GPU: mattemill worker gpu --devices cpu"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one worker process runs on; written "tensorrt@GPU-…", with "+share" where it need not be alone.

    Attributes:
        engine: one of `ENGINES`, or "fake:MS".
        device: the UUID of a GPU or MIG instance, or "cpu".
        share: whether other workers may run on the device too.
    """

    engine: str
    device: str
    share: bool = False

    def __str__(self) -> str:
        if self.engine.startswith("fake:"):
            return self.engine
        return f"{self.engine}@{self.device}{'+share' if self.share else ''}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` gives; "cpu" alone is ONNX Runtime on the processor.

        Raises:
            SetupError: when it is anything else.
        """
        if text == CPU:
            return cls("onnx", CPU)
        if re.fullmatch(r"fake:\d+(\.\d+)?", text):
            return cls(text, CPU)
        engine, at, device = text.removesuffix("+share").partition("@")
        if engine not in ENGINES or not at or not device:
            raise SetupError(f"{text!r} is no device.", "write cpu, or fake:20 for 20 milliseconds a batch")
        return cls(engine, device, text.endswith("+share"))


def choose_devices(
    devices: str,
    engine: str | None = None,
    share: bool = False,
    inventory: Callable[[], Inventory] = list_gpus,
    is_installed: Callable[[Runtime], bool] = installed,
) -> list[str]:
    """The assignments that `--devices` and `--engine` ask for; never another device or engine in silence.

    Args:
        devices: "all", indices as in nvidia-smi, UUIDs of GPUs or MIG instances, with commas between; or "cpu", or
            "fake:20".
        engine: one of `ENGINES`; None: on a GPU the TensorRT that is installed, on the processor ONNX Runtime.
        share: let several workers run on one GPU.
        inventory: asks for the GPUs.
        is_installed: whether a runtime's packages are there.

    Raises:
        SetupError: names the device, driver or package that is missing, and what mends it.
    """
    if devices.startswith("fake:"):
        if engine is not None:
            raise SetupError(f"{devices} is an engine of its own.", f"leave out --engine {engine}")
        return [str(Assignment.parse(devices))]
    if devices == CPU:
        if engine not in (None, *_CPU_ENGINES):
            raise SetupError(f"{engine} does not run on the processor.", f"leave out --engine {engine}, or use a GPU")
        return [str(Assignment(engine or "onnx", CPU))]
    known = inventory()
    chosen = _gpus(devices, known.gpus)
    doubled = {gpu.uuid for gpu in chosen if chosen.count(gpu) > 1}
    if doubled and not share:
        raise SetupError(f"{', '.join(sorted(doubled))} is named twice.", "--share lets two workers run on one GPU")
    kind = engine or _usual_engine(is_installed)
    return [str(Assignment(kind, gpu.uuid, share)) for gpu in chosen]


def open_engine(argument: str, settings: Settings) -> "Engine":
    """The engine of one assignment; from here on CUDA sees no other device in this process.

    A TensorRT engine that is missing is built first, once on this machine, and kept.

    Args:
        argument: as `choose_devices` gave it.
        settings: model, home and batch.

    Raises:
        SetupError: when it cannot run here.
    """
    assignment = Assignment.parse(argument)
    if assignment.engine.startswith("fake:"):
        from model.engines.fake import FakeEngine

        milliseconds = float(assignment.engine.removeprefix("fake:"))
        sizes = ModelStore(settings.home).known(settings.model).size_buckets
        return FakeEngine(milliseconds, sizes, settings.max_batch)
    if assignment.device == CPU:
        return _open(assignment.engine, settings, None, None)
    inventory = list_gpus()
    gpu = find_gpu(inventory.gpus, assignment.device)
    if gpu is None:
        raise SetupError(f"The GPU {assignment.device} is not here any more.", "nvidia-smi -L")
    hold(settings.home, gpu, assignment.share)
    pin(gpu, os.environ)
    return _open(assignment.engine, settings, gpu, inventory)


def pin(gpu: Gpu, environment: dict[str, str] | os._Environ[str]) -> None:
    """Leave CUDA this device alone, which is its number 0 then; only works before CUDA is first used."""
    environment["CUDA_VISIBLE_DEVICES"] = gpu.uuid
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"


def hold(home: Path, gpu: Gpu, share: bool) -> int:
    """Take a GPU for this process until it ends, and give the descriptor that holds it.

    The lock is a file in `home`: workers of another home, or on the same GPU in a container that does not share it,
    are not seen.

    Raises:
        SetupError: when another worker has it.
    """
    folder = home / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"{gpu.uuid.replace('/', '-')}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SetupError(
            f"{folder} cannot be written: {error.strerror}.", "set MATTEMILL_HOME to a folder that can be written"
        ) from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if share else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise SetupError(
            f"Another worker runs on GPU {gpu.index} ({gpu.uuid}).",
            "stop it, choose another with --devices, or give both --share (each takes its own memory)",
        ) from error
    return descriptor


def _gpus(devices: str, gpus: tuple[Gpu, ...]) -> list[Gpu]:
    there = ", ".join(f"{index}: {gpu.uuid} {gpu.name}" for index, gpu in enumerate(gpus)) or "none"
    if not gpus:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f" CUDA_VISIBLE_DEVICES={hidden!r} hides what there is." if hidden is not None else ""
        raise SetupError(f"The NVIDIA driver lists no GPU.{why}", f"nvidia-smi -L must list it; {_NO_GPU}")
    chosen = []
    for wanted in [str(index) for index in range(len(gpus))] if devices == "all" else devices.split(","):
        gpu = find_gpu(gpus, wanted.strip())
        if gpu is None:
            raise SetupError(f"There is no GPU {wanted.strip()!r}.", f"GPUs here: {there}; {_NO_GPU}")
        if not gpu.mig:
            chosen.append(gpu)
        elif devices == "all" and gpu.instances:
            chosen.extend(gpu.instances)
        else:
            instances = ", ".join(one.uuid for one in gpu.instances) or "it has none"
            raise SetupError(
                f"GPU {wanted.strip()} is in MIG mode: only its instances can run anything.",
                f"name them: {instances}; nvidia-smi mig -cgi makes some",
            )
    return chosen


def _usual_engine(is_installed: Callable[[Runtime], bool]) -> str:
    for runtime in Runtime:
        if is_installed(runtime):
            return str(runtime)
    raise SetupError(
        "Neither TensorRT nor TensorRT for RTX is installed.",
        f"{WHICH_TENSORRT}; or choose another: --engine torch, --engine onnx",
    )


def _open(engine: str, settings: Settings, gpu: Gpu | None, inventory: Inventory | None) -> "Engine":
    if engine == "onnx":
        from model.engines.onnx import OnnxEngine

        store = ModelStore(settings.home)
        path, threads = store.path(settings.model), 1 if gpu else os.cpu_count() or 1
        # A processor gains nothing from batches; small ones bring the first cutout sooner.
        batch = settings.max_batch if gpu is not None else min(settings.max_batch, threads)
        beside = _BESIDE_MS if settings.with_encoding and gpu is None else 0.0
        return OnnxEngine(path, store.spec(settings.model), batch, threads, gpu is not None, beside)
    if engine == "torch":
        return _open_torch(settings, gpu is not None)
    if gpu is None or inventory is None:
        raise SetupError(f"{engine} does not run on the processor.", _NO_GPU)
    from workers.plans import open_or_build

    return open_or_build(Runtime(engine), settings, gpu, inventory)


def _open_torch(settings: Settings, cuda: bool) -> "Engine":
    card = ModelStore(settings.home).card(settings.model)
    try:
        from engine_build.trained import trained_network
        from model.engines.torch import TorchEngine
    except ImportError as error:
        raise SetupError(f"PyTorch is not installed here: {error}.", "pip install 'mattemill[train]'") from error
    return TorchEngine(trained_network(card), card.spec.size_buckets, settings.max_batch, cuda)
