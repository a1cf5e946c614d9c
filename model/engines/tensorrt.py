"""TensorRT, and TensorRT for RTX: the engine of a GPU worker."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.engines.api import Api, CudaEngine, ExecutionContext, RuntimeObject
from model.engines.base import EngineError, EngineLostError, check_alpha, check_images
from model.engines.cuda.buffers import Buffers
from model.engines.cuda.device import DeviceBackend, DeviceError, DeviceMemoryError
from model.engines.plans import Plan
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

_INPUT, _OUTPUT = "images", "alpha"
_WHO_HAS_MEMORY = "nvidia-smi shows which processes have the GPU's memory"


@dataclass(slots=True)
class _Lane:
    """One optimization profile: its context, the largest batch it takes, and the largest that memory has room for."""

    context: ExecutionContext
    largest: int
    fits: int


class TensorRTEngine:
    """Runs one plan on one device. Everything that touches CUDA happens in one thread of its own.

    A call of `infer` copies the images into pinned memory, and from there to the device; runs the profile of their
    size bucket; copies the alpha back and waits. One batch is in flight at a time.

    When memory runs out, the batch is halved, and stays halved for that size bucket, until it fits: the device may be
    shared. After any other error of CUDA the stream is synchronised: if that fails too, the context is gone.

    Args:
        plan: the engine file.
        api: the library that built it, loaded.
        backend: not yet open.
        size_buckets: the model's; each needs a profile.
        max_batch: the most images in one call; the profiles may say fewer.

    Raises:
        SetupError: when the plan cannot be loaded here, takes or gives something else, or lacks a size bucket.
    """

    def __init__(
        self, plan: Plan, api: Api, backend: DeviceBackend, size_buckets: tuple[SizeBucket, ...], max_batch: int
    ) -> None:
        self._plan = plan
        self._api = api
        self._backend = backend
        self._buffers = Buffers(backend)
        self._runtime: RuntimeObject | None = None  # lives as long as its engine, and that as long as its contexts
        self._engine: CudaEngine | None = None
        self._lanes: dict[SizeBucket, _Lane] = {}
        self._lost = ""
        self._owner: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix="cuda-owner")
        try:
            self._owner.submit(self._load, size_buckets).result()
        except BaseException:
            self._close()
            raise
        self.size_buckets = size_buckets
        self.max_batch = min(max_batch, *(lane.largest for lane in self._lanes.values()))
        side = plan.sidecar
        self.name = f"{side.runtime} {side.runtime_version} {side.precision.upper()}, {backend.device}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def warm_up(self) -> None:
        """See `Engine.warm_up`; the largest batch comes first, so that memory is allocated once."""
        for size_bucket in sorted(self.size_buckets, key=lambda size: -size.height * size.width):
            for batch in sorted({1, self.max_batch}, reverse=True):
                self.infer(np.zeros((batch, size_bucket.height, size_bucket.width, 3), np.uint8))

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Engine.infer`."""
        check_images(images, self.size_buckets, self.max_batch)
        if self._owner is None:
            raise EngineError("The engine is closed.")
        alpha = self._owner.submit(self._infer, images).result()
        check_alpha(alpha, images)
        return alpha

    def _load(self, size_buckets: tuple[SizeBucket, ...]) -> None:
        try:
            self._backend.open()
            self._runtime = self._api.runtime()
            engine = self._runtime.deserialize_cuda_engine(self._plan.data)
            if engine is None:
                raise self._cannot_run()
            self._engine = engine
            self._check_ends(engine)
            profiles = self._profiles(engine)
            for size_bucket in size_buckets:
                if size_bucket not in profiles:
                    built = ", ".join(map(str, profiles)) or "none"
                    raise self._refused(f"has no profile for size bucket {size_bucket}; it has {built}")
                index, largest = profiles[size_bucket]
                self._lanes[size_bucket] = _Lane(self._context(engine, index), largest, largest)
            self._backend.synchronise()
        except EngineError as error:
            hint = _WHO_HAS_MEMORY if isinstance(error, DeviceMemoryError) else ""
            raise self._refused(f"cannot run here: {error}", hint) from error

    def _check_ends(self, engine: CudaEngine) -> None:
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        ends = {
            (
                name,
                self._api.is_input(engine.get_tensor_mode(name)),
                self._api.is_image(engine.get_tensor_dtype(name)),
            )
            for name in names
        }
        if ends != {(_INPUT, True, True), (_OUTPUT, False, True)}:
            raise self._refused(
                f"has the tensors {', '.join(names)}; expected {_INPUT} (uint8, in) and {_OUTPUT} (uint8, out)"
            )

    def _profiles(self, engine: CudaEngine) -> dict[SizeBucket, tuple[int, int]]:
        """By size bucket: the number of its profile, and the largest batch."""
        found = {}
        for index in range(engine.num_optimization_profiles):
            smallest, _, largest = (tuple(one) for one in engine.get_tensor_profile_shape(_INPUT, index))
            if smallest[0] == 1 and smallest[1:] == largest[1:]:
                found[SizeBucket(largest[1], largest[2])] = (index, largest[0])
        return found

    def _context(self, engine: CudaEngine, profile: int) -> ExecutionContext:
        context = engine.create_execution_context(self._api.memory_is_ours())
        if context is None:
            raise self._cannot_run()
        if not context.set_optimization_profile_async(profile, self._backend.stream):
            raise self._refused(f"does not let its profile {profile} be chosen: {self._api.complaint()}")
        return context

    def _cannot_run(self) -> SetupError:
        hint = _WHO_HAS_MEMORY if self._api.lacks_memory() else ""
        return self._refused(f"cannot run here: {self._api.complaint()}", hint)

    def _refused(self, why: str, hint: str = "") -> SetupError:
        side = self._plan.sidecar
        again = f"mattemill engine build {side.model} --runtime {side.runtime}"
        return SetupError(f"Engine {self._plan.path} {why.rstrip('.')}.", hint or again)

    def _infer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._lost:
            raise EngineLostError(self._lost)
        alpha = np.empty(images.shape[:3], np.uint8)
        lane = self._lanes[SizeBucket(images.shape[1], images.shape[2])]
        done = 0
        while done < len(images):
            count = min(lane.fits, len(images) - done)
            try:
                self._run(lane.context, images[done : done + count], alpha[done : done + count])
            except DeviceMemoryError as error:
                self._free()
                if count == 1:
                    raise EngineError(
                        f"The GPU has not enough memory for one image: {error} Hint: {_WHO_HAS_MEMORY}"
                    ) from error
                lane.fits = count // 2
            except DeviceError as error:
                self._look_after(error)
                raise
            else:
                done += count
        return alpha

    def _run(self, context: ExecutionContext, images: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> None:
        """One batch, [n, H, W, 3] to [n, H, W], through a context whose profile takes it."""
        backend, buffers = self._backend, self._buffers
        self._must(context.set_input_shape(_INPUT, images.shape), f"does not take the shape {list(images.shape)}")
        if lacking := context.infer_shapes():
            raise EngineError(f"TensorRT lacks the shapes of {', '.join(lacking)}.")
        shape = tuple(context.get_tensor_shape(_OUTPUT))
        if shape != alpha.shape:
            raise EngineError(f"The engine gives alpha of {list(shape)}, expected {list(alpha.shape)}.")
        scratch = context.update_device_memory_size_for_shapes()
        address = buffers.device("scratch", scratch)
        context.set_device_memory(address, scratch)
        to_device, from_device = buffers.host("in", images.size), buffers.host("out", alpha.size)
        entrance, exit_ = buffers.device("in", images.size), buffers.device("out", alpha.size)
        self._must(context.set_tensor_address(_INPUT, entrance), "does not take the address of its input")
        self._must(context.set_tensor_address(_OUTPUT, exit_), "does not take the address of its output")
        np.copyto(to_device.reshape(images.shape), images)
        backend.upload(entrance, to_device)
        self._must(context.execute_async_v3(backend.stream), "failed")
        backend.download(from_device, exit_)
        backend.synchronise()
        np.copyto(alpha, from_device.reshape(alpha.shape))

    def _must(self, worked: bool, what: str) -> None:
        if worked:
            return
        error = DeviceMemoryError if self._api.lacks_memory() else DeviceError
        raise error(f"TensorRT {what}: {self._api.complaint()}.")

    def _free(self) -> None:
        """Give all buffers back, after whatever still uses them."""
        try:
            self._backend.synchronise()
            self._buffers.release()
        except DeviceError as error:
            self._look_after(error)
            raise

    def _look_after(self, error: DeviceError) -> None:
        """After an error: is the context still there?

        Raises:
            EngineLostError: when it is not.
        """
        try:
            self._backend.synchronise()
        except DeviceError as second:
            self._lost = f"The GPU's context is gone: {error} Then, waiting for the stream: {second}"
            raise EngineLostError(self._lost) from error

    def _close(self) -> None:
        owner, self._owner = self._owner, None
        if owner is None:
            return
        owner.submit(self._unload).result()
        owner.shutdown()

    def _unload(self) -> None:
        self._lanes.clear()
        self._engine = None
        self._runtime = None
        steps = (self._backend.close,) if self._lost else (self._buffers.release, self._backend.close)
        for step in steps:  # the second one whatever became of the first
            with suppress(DeviceError):  # the process is about to end, or has said already what is wrong
                step()
