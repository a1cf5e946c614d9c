"""Build an engine from a model, with NVIDIA's builder; needs no PyTorch, and for TensorRT for RTX no GPU either."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from engine_build.capabilities import CAPABILITIES, set_capabilities
from engine_build.contract import check_contract
from engine_build.half import half
from engine_build.parity import Bound, check_parity, compare, onnx_runner
from engine_build.progress import Progress, monitor
from engine_build.rounding import rounded
from engine_build.trtexec import trtexec_line
from model.catalogue import ModelSpec
from model.engines.cuda.gpus import Gpu, Inventory
from model.engines.libraries import Library, Runtime
from model.engines.messages import Messages
from model.engines.opener import check_driver
from model.engines.plans import ANY_GPU, PlanKey, PlanStore, write_whole
from model.engines.sidecar import Profile, Sidecar
from model.store import ModelStore
from pipeline import __version__
from pipeline.errors import SetupError


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the builder is told.

    Attributes:
        precision: "fp16", or "fp32" for a network that FP16 harms.
        batches: images in a batch, at least, usually, at most.
        optimization_level: 0 (builds fast) to 5 (tries everything).
        workspace_bytes: of GPU memory for a layer's intermediate results; None: all there is.
        compute_capabilities: GPU architectures, for TensorRT for RTX only.
        parity_photos: golden photos of each size bucket that FP16 is compared with the model on; 0: not compared.
    """

    precision: str = "fp16"
    batches: tuple[int, int, int] = (1, 4, 8)
    optimization_level: int = 3
    workspace_bytes: int | None = None
    compute_capabilities: tuple[str, ...] = CAPABILITIES
    parity_photos: int = 2


@dataclass(frozen=True, slots=True)
class Built:
    """An engine file, its sidecar, and the line for NVIDIA's own tool that builds the same."""

    path: Path
    sidecar: Sidecar
    line: str


class BuildCancelledError(SetupError):
    """The builder was told to give up; nothing was written."""


class EngineBuilder:
    """Builds engines into one home folder.

    Args:
        home: MATTEMILL_HOME.
        library: the runtime to build with.
        inventory: driver and GPUs of this machine; None where there is none. Its first GPU is built for.
    """

    def __init__(self, home: Path, library: Library, inventory: Inventory | None) -> None:
        self._library = library
        self._models = ModelStore(home)
        self._plans = PlanStore(home)
        self._inventory = inventory

    def key(self, model: str, precision: str = "fp16") -> PlanKey:
        """What an engine of `model` from this builder is for.

        Raises:
            SetupError: when TensorRT has no GPU to build for.
        """
        return plan_key(model, self._library, self._gpu(), precision)

    def build(self, model: str, options: BuildOptions, progress: Progress) -> Built:
        """Build one engine and install it, in place of an older one for the same version and GPU.

        Runs the builder in a thread, so that Ctrl-C is answered at the builder's next step.

        Raises:
            SetupError: when the model, its network or the options cannot be built from, or FP16 harms the network.
            BuildCancelledError: when `progress` was cancelled.
            KeyboardInterrupt: on Ctrl-C; nothing was written then either.
        """
        key = self.key(model, options.precision)
        if key.runtime is Runtime.TENSORRT and self._inventory is not None:
            check_driver(self._library, self._inventory)
        spec = self._models.spec(model)
        source = self._models.path(model).read_bytes()
        check_contract(source, spec.size_buckets, model)
        network = half(source) if options.precision == "fp16" else source
        parity = None
        if options.precision == "fp16" and options.parity_photos:
            parity = compare(
                onnx_runner(source), onnx_runner(rounded(network)), spec.size_buckets, options.parity_photos
            )
            hint = f"mattemill engine build {model} --runtime {key.runtime} --precision fp32"
            check_parity(parity, Bound(), f"{model} in FP16", hint)
        profiles = tuple(Profile(size_bucket, *options.batches) for size_bucket in spec.size_buckets)
        started = time.monotonic()
        cache = self._timing_cache()
        made = _in_thread(lambda: self._plan(spec, network, profiles, options, progress, cache), progress)
        gpu = self._gpu()
        sidecar = Sidecar(
            model=model,
            weights=spec.weights,
            onnx_sha256=hashlib.sha256(source).hexdigest(),
            network_sha256=hashlib.sha256(network).hexdigest(),
            plan_sha256=hashlib.sha256(made.plan).hexdigest(),
            runtime=str(key.runtime),
            runtime_version=self._library.version,
            parser_version=made.parser,
            cuda=self._inventory.cuda if self._inventory else "",
            driver=self._inventory.driver if self._inventory else "",
            gpu=gpu.name if gpu else "",
            compute_capabilities=self._capabilities(options),
            precision=options.precision,
            profiles=profiles,
            tensors=made.tensors,
            flags={
                "strongly_typed": True,
                "optimization_level": options.optimization_level,
                "workspace_bytes": options.workspace_bytes,
            },
            parity=parity,
            seconds=round(time.monotonic() - started, 2),
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
        )
        path = self._plans.install(key, made.plan, network, sidecar)
        if cache is not None and made.timings:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_whole(cache, made.timings)
        line = trtexec_line(
            key.runtime,
            path.with_suffix(".onnx"),
            path,
            profiles,
            options.optimization_level,
            options.workspace_bytes,
            cache,
        )
        return Built(path, sidecar, line)

    def _gpu(self) -> Gpu | None:
        if self._inventory and self._inventory.gpus:
            return self._inventory.gpus[0]
        return None

    def _capabilities(self, options: BuildOptions) -> tuple[str, ...]:
        gpu = self._gpu()
        if self._library.runtime is Runtime.TENSORRT:
            return (gpu.compute_capability,) if gpu else ()
        return options.compute_capabilities

    def _timing_cache(self) -> Path | None:
        gpu = self._gpu()
        if self._library.runtime is Runtime.TENSORRT and gpu is not None:
            return self._plans.timing_cache(self._library.runtime, self._library.version, gpu.name)
        return None  # TensorRT for RTX times nothing when it builds

    def _plan(
        self,
        spec: ModelSpec,
        network: bytes,
        profiles: tuple[Profile, ...],
        options: BuildOptions,
        progress: Progress,
        cache: Path | None,
    ) -> "_Made":
        trt, messages = self._library.module, Messages(self._library.module)
        try:
            builder = trt.Builder(messages.logger)
        except TypeError as error:  # what the bindings make of a null pointer
            raise SetupError(
                f"{self._library.runtime} cannot build here: {messages.take()}.",
                "build on the machine with the GPU; only --runtime tensorrt-rtx builds without one",
            ) from error
        definition = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(definition, messages.logger)
        if not parser.parse(network):
            raise SetupError(
                f"{self._library.runtime} cannot take the network of {spec.name}: {_complaints(parser)}.",
                "run it without TensorRT: mattemill worker gpu --engine onnx",
            )
        config = builder.create_builder_config()
        config.builder_optimization_level = options.optimization_level
        config.progress_monitor = monitor(trt, progress)
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if self._library.runtime is Runtime.TENSORRT_RTX:
            set_capabilities(trt, config, options.compute_capabilities)
        for profile in profiles:
            shapes = builder.create_optimization_profile()
            shapes.set_shape("images", *profile.shapes())
            if config.add_optimization_profile(shapes) < 0:
                raise SetupError(f"The size bucket {profile.size_bucket} cannot be: {messages.take()}.")
        if cache is not None:
            known = config.create_timing_cache(cache.read_bytes() if cache.is_file() else b"")
            if known is None or not config.set_timing_cache(known, False):  # cut off, or of another driver
                config.set_timing_cache(config.create_timing_cache(b""), False)
        plan = builder.build_serialized_network(definition, config)
        if progress.cancelled:
            raise BuildCancelledError("The build was cancelled; nothing was written.")
        if plan is None:
            raise SetupError(
                f"{self._library.runtime} cannot build {spec.name}: {messages.take()}.",
                "smaller batches (--batches 1,2,4) or a lower --optimization-level need less memory",
            )
        timings = bytes(config.get_timing_cache().serialize()) if cache is not None else b""
        tensors = [definition.get_input(i) for i in range(definition.num_inputs)]
        tensors += [definition.get_output(i) for i in range(definition.num_outputs)]
        described = {one.name: (one.dtype.name.lower(), tuple(one.shape)) for one in tensors}
        version = trt.get_nv_onnx_parser_version()
        parser_version = f"{version // 10000}.{version // 100 % 100}.{version % 100}"
        return _Made(bytes(plan), described, parser_version, timings)


def plan_key(model: str, library: Library, gpu: Gpu | None, precision: str = "fp16") -> PlanKey:
    """What an engine of `model` on `gpu` is called; TensorRT for RTX has one for all GPUs.

    Raises:
        SetupError: when TensorRT has no GPU.
    """
    if library.runtime is Runtime.TENSORRT and gpu is None:
        raise SetupError(
            "TensorRT builds for the GPU that it finds, and there is none here.",
            "build on the machine with the GPU; only --runtime tensorrt-rtx builds without one",
        )
    target = gpu.model if gpu and library.runtime is Runtime.TENSORRT else ANY_GPU
    return PlanKey(model, library.runtime, library.version, target, precision)


@dataclass(frozen=True, slots=True)
class _Made:
    plan: bytes
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    parser: str
    timings: bytes


def _strongly_typed(trt: ModuleType) -> int:
    """The creation flags; where there is no such flag, every network is strongly typed."""
    flag = trt.NetworkDefinitionCreationFlag.__members__.get("STRONGLY_TYPED")
    return 0 if flag is None else 1 << int(flag)


def _complaints(parser: Any) -> str:
    """The parser's errors, each with the node it is about."""
    said = []
    for index in range(min(parser.num_errors, 3)):
        error = parser.get_error(index)
        where = f"{error.node_operator()} {error.node_name()!r}" if error.node_operator() else "the file"
        said.append(f"{where}: {' '.join(error.desc().split())}")
    return "; ".join(said).rstrip(".") or "it gives no reason"


def _in_thread(work: Callable[[], _Made], progress: Progress) -> _Made:
    """The result of `work`. Python answers Ctrl-C in its main thread only, which must not be inside the builder."""
    result: list[_Made] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="builder")
    thread.start()
    interrupted: KeyboardInterrupt | None = None
    while not done.is_set():
        # Not thread.join: interrupted, Python 3.11 takes the thread for finished.
        try:
            done.wait()
        except KeyboardInterrupt as error:
            interrupted = error
            progress.cancel()
    thread.join()
    if interrupted is not None:
        raise interrupted
    if errors:
        raise errors[0]
    return result[0]
