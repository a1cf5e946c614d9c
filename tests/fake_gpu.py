"""A GPU that is none: memory, one stream whose work waits until it is synchronised, and a TensorRT that computes greys.

The classes have exactly the methods of the protocols in `model.engines.api` and `model.engines.cuda.device`.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from model.engines.cuda.device import DeviceError, DeviceMemoryError
from pipeline.ids import SizeBucket

STREAM = 7
SCRATCH_AN_IMAGE = 1000


class FakeDevice:
    """`DeviceBackend`; `capacity` is its memory in bytes, `broken` makes every call fail, as a sticky error does."""

    name = "fake-cuda 1.0"

    def __init__(self, capacity: int = 1 << 30) -> None:
        self.device = ""
        self.capacity = capacity
        self.broken = False
        self.is_open = False
        self.stream = 0
        self.allocations = 0
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.pinned: list[NDArray[np.uint8]] = []
        self.queue: list[Callable[[], None]] = []
        self._next = 1 << 20
        self._thread: int | None = None

    def open(self) -> None:
        self._thread = threading.get_ident()
        self._check()
        self.is_open, self.device, self.stream = True, "Fake GPU", STREAM

    def close(self) -> None:
        self._check()
        self.is_open, self.stream = False, 0

    def allocate(self, size: int) -> int:
        self._check()
        if sum(one.size for one in self.memory.values()) + size > self.capacity:
            raise DeviceMemoryError("CUDA's cuMemAlloc gave CUDA_ERROR_OUT_OF_MEMORY (2).")
        address, self._next = self._next, self._next + (size + 255) // 256 * 256
        self.memory[address] = np.zeros(size, np.uint8)
        self.allocations += 1
        return address

    def free(self, address: int) -> None:
        self._check()
        del self.memory[address]

    def allocate_host(self, size: int) -> NDArray[np.uint8]:
        self._check()
        self.pinned.append(np.zeros(size, np.uint8))
        self.allocations += 1
        return self.pinned[-1]

    def free_host(self, memory: NDArray[np.uint8]) -> None:
        self._check()
        self.pinned = [one for one in self.pinned if one is not memory]

    def upload(self, address: int, memory: NDArray[np.uint8]) -> None:
        self._check()
        assert any(np.shares_memory(memory, one) for one in self.pinned), "not pinned"

        def copy() -> None:
            self.memory[address][: memory.size] = memory

        self.queue.append(copy)

    def download(self, memory: NDArray[np.uint8], address: int) -> None:
        self._check()
        assert any(np.shares_memory(memory, one) for one in self.pinned), "not pinned"

        def copy() -> None:
            memory[:] = self.memory[address][: memory.size]

        self.queue.append(copy)

    def synchronise(self) -> None:
        self._check()
        while self.queue:
            self.queue.pop(0)()

    def _check(self) -> None:
        assert self._thread == threading.get_ident(), "not the thread that opened the device"
        if self.broken:
            raise DeviceError("CUDA gave CUDA_ERROR_ILLEGAL_ADDRESS (700).")


@dataclass
class FakeTensorRT:
    """`Api`, and what its engines do. `faults` names methods of the context that answer falsely."""

    device: FakeDevice
    profiles: Sequence[tuple[SizeBucket, int]]
    loads: bool = True
    contexts: bool = True
    tensors: Sequence[tuple[str, str, str]] = (("images", "uint8", "in"), ("alpha", "uint8", "out"))
    faults: dict[str, object] = field(default_factory=dict)
    said: str = ""
    batches: list[int] = field(default_factory=list)

    def runtime(self) -> "FakeRuntime":
        return FakeRuntime(self)

    def memory_is_ours(self) -> object:
        return "USER_MANAGED"

    def is_image(self, dtype: object) -> bool:
        return dtype == "uint8"

    def is_input(self, mode: object) -> bool:
        return mode == "in"

    def complaint(self) -> str:
        said, self.said = self.said, ""
        return said or "it gives no reason"

    def lacks_memory(self) -> bool:
        return "out of memory" in self.said


class FakeRuntime:
    def __init__(self, api: FakeTensorRT) -> None:
        self._api = api

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "FakeCudaEngine | None":
        return FakeCudaEngine(self._api) if self._api.loads else None


class FakeCudaEngine:
    def __init__(self, api: FakeTensorRT) -> None:
        self._api = api

    @property
    def num_io_tensors(self) -> int:
        return len(self._api.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._api.profiles)

    def get_tensor_name(self, index: int) -> str:
        return self._api.tensors[index][0]

    def get_tensor_dtype(self, name: str) -> object:
        return next(dtype for one, dtype, _ in self._api.tensors if one == name)

    def get_tensor_mode(self, name: str) -> object:
        return next(mode for one, _, mode in self._api.tensors if one == name)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Sequence[int]]:
        size, largest = self._api.profiles[profile_index]
        return [(batch, size.height, size.width, 3) for batch in (1, (largest + 1) // 2, largest)]

    def create_execution_context(self, strategy: object) -> "FakeContext | None":
        assert strategy == "USER_MANAGED"
        return FakeContext(self._api) if self._api.contexts else None


class FakeContext:
    """`IExecutionContext`: complains when it is used as the real one must not be."""

    def __init__(self, api: FakeTensorRT) -> None:
        self._api = api
        self._profile = 0
        self._shape: tuple[int, ...] = ()
        self._scratch = (0, 0)
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle == STREAM
        self._profile = profile_index
        return self._answer("set_optimization_profile_async")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        size, largest = self._api.profiles[self._profile]
        self._shape = shape
        fits = name == "images" and shape[0] <= largest and shape[1:] == (size.height, size.width, 3)
        return fits and self._answer("set_input_shape")

    def infer_shapes(self) -> list[str]:
        return list(self._api.faults.get("infer_shapes", []))  # type: ignore[call-overload]

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        return self._api.faults.get("get_tensor_shape", self._shape[:3])  # type: ignore[return-value]

    def update_device_memory_size_for_shapes(self) -> int:
        return self._shape[0] * SCRATCH_AN_IMAGE

    def set_device_memory(self, memory: int, size: int) -> None:
        self._scratch = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory in self._api.device.memory
        self._addresses[name] = memory
        return self._answer("set_tensor_address")

    def execute_async_v3(self, stream_handle: int) -> bool:
        device, shape = self._api.device, self._shape
        assert stream_handle == STREAM
        address, size = self._scratch
        assert size >= shape[0] * SCRATCH_AN_IMAGE
        assert device.memory[address].size >= size
        if not self._answer("execute_async_v3"):
            return False
        source, target = self._addresses["images"], self._addresses["alpha"]

        def compute() -> None:
            pixels = device.memory[source][: int(np.prod(shape))].reshape(-1, shape[2], 3)
            grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
            device.memory[target][: grey.size] = grey.ravel()

        self._api.batches.append(shape[0])
        device.queue.append(compute)
        return True

    def _answer(self, name: str) -> bool:
        fault = self._api.faults.get(name, True)
        return bool(fault(self._shape)) if callable(fault) else bool(fault)
