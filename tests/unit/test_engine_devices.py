"""The two CUDA backends call their package as it wants to be called, and name its errors. Nothing here is a GPU."""

import importlib
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from model.engines.cuda.bindings import BindingsBackend
from model.engines.cuda.device import DeviceError, DeviceMemoryError
from model.engines.cuda.pycuda import PycudaBackend


class Status(int):
    name = "CUDA_ERROR_SOMETHING"


class Driver(ModuleType):
    """`cuda.bindings.driver` as far as it is used; `fails` maps a function to its status."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=Status(0), CUDA_ERROR_OUT_OF_MEMORY=Status(2))
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)

    def __init__(self) -> None:
        super().__init__("driver")
        self.fails: dict[str, int] = {}
        self.calls: list[tuple[object, ...]] = []
        self.host = np.zeros(64, np.uint8)

    def __getattr__(self, name: str) -> object:
        if not name.startswith("cu"):
            raise AttributeError(name)
        values = {
            "cuDeviceGet": 0,
            "cuDeviceGetName": b"NVIDIA Nothing\0\0\0",
            "cuDevicePrimaryCtxRetain": "context",
            "cuStreamCreate": 77,
            "cuMemAlloc": 4096,
            "cuMemHostAlloc": self.host.ctypes.data,
        }

        def call(*arguments: object) -> tuple[object, ...]:
            self.calls.append((name, *arguments))
            status = Status(self.fails.get(name, 0))
            return (status, values[name]) if name in values else (status,)

        return call


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_bindings_copy_on_a_stream_of_their_own_in_the_primary_context(driver: Driver) -> None:
    backend = BindingsBackend(driver, "12.9.10")
    backend.open()
    assert (backend.name, backend.device, backend.stream) == ("cuda-bindings 12.9.10", "NVIDIA Nothing", 77)
    assert ("cuCtxSetCurrent", "context") in driver.calls
    assert ("cuStreamCreate", 1) in driver.calls  # does not wait for the default stream
    memory, address = backend.allocate_host(16), backend.allocate(16)
    memory[:] = 9
    assert np.array_equal(driver.host[:17], [9] * 16 + [0])
    backend.upload(address, memory)
    backend.download(memory, address)
    backend.synchronise()
    backend.free(address)
    backend.free_host(memory)
    backend.close()
    assert driver.calls[-7:] == [
        ("cuMemcpyHtoDAsync", 4096, driver.host.ctypes.data, 16, 77),
        ("cuMemcpyDtoHAsync", driver.host.ctypes.data, 4096, 16, 77),
        ("cuStreamSynchronize", 77),
        ("cuMemFree", 4096),
        ("cuMemFreeHost", driver.host.ctypes.data),
        ("cuStreamDestroy", 77),
        ("cuDevicePrimaryCtxRelease", 0),
    ]


def test_bindings_tell_a_lack_of_memory_from_other_errors(driver: Driver) -> None:
    backend = BindingsBackend(driver, "12.9.10")
    backend.open()
    driver.fails = {"cuMemAlloc": 2, "cuMemHostAlloc": 2, "cuStreamSynchronize": 700}
    with pytest.raises(DeviceMemoryError, match=r"cuMemAlloc gave CUDA_ERROR_SOMETHING \(2\)"):
        backend.allocate(8)
    with pytest.raises(DeviceMemoryError):
        backend.allocate_host(8)
    with pytest.raises(DeviceError) as caught:
        backend.synchronise()
    assert not isinstance(caught.value, DeviceMemoryError)


def test_the_real_bindings_have_every_function_and_say_that_there_is_no_driver() -> None:
    real = importlib.import_module("cuda.bindings.driver")
    fake = Driver()
    backend = BindingsBackend(fake, "")
    backend.open()
    backend.allocate_host(1)
    backend.upload(backend.allocate(1), backend.allocate_host(1))
    backend.download(backend.allocate_host(1), 1)
    backend.synchronise()
    backend.free(1)
    backend.free_host(backend.allocate_host(1))
    backend.close()
    for name, *arguments in fake.calls:
        first_line = getattr(real, str(name)).__doc__.splitlines()[0]
        inside = first_line.split("(", 1)[1].rsplit(")", 1)[0]
        assert len(inside.split(",")) == len(arguments), first_line
    assert hasattr(real.CUresult, "CUDA_ERROR_OUT_OF_MEMORY")
    assert hasattr(real.CUstream_flags, "CU_STREAM_NON_BLOCKING")


class Pycuda(ModuleType):
    """`pycuda.driver` as far as it is used (https://documen.tician.de/pycuda/driver.html)."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    class LaunchError(Error):
        pass

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.pushed: list[int] = []
        self.freed: list[str] = []
        self.failure: Exception | None = None
        self.initialised = False

    def init(self) -> None:
        self.initialised = True

    def Device(self, number: int) -> SimpleNamespace:  # noqa: N802 - PyCUDA's name
        assert self.initialised
        assert number == 0
        # Its destructor calls cuCtxDetach unless `detach` was called, which alone knows that this is a primary context.
        context = SimpleNamespace(
            push=lambda: self.pushed.append(threading.get_ident()), detach=lambda: self.pushed.pop() and None
        )
        return SimpleNamespace(retain_primary_context=lambda: context, name=lambda: "NVIDIA Nothing")

    def Stream(self) -> SimpleNamespace:  # noqa: N802 - PyCUDA's name
        return SimpleNamespace(handle=99, synchronize=self._fail)

    def mem_alloc(self, size: int) -> "Allocation":
        self._fail()
        return Allocation(self, "device")

    def pagelocked_empty(self, size: int, dtype: type) -> np.ndarray:
        self._fail()
        return np.asarray(Pinned(self, size))

    def memcpy_htod_async(self, address: int, memory: np.ndarray, stream: SimpleNamespace) -> None:
        self._fail()

    def memcpy_dtoh_async(self, memory: np.ndarray, address: int, stream: SimpleNamespace) -> None:
        self._fail()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class Allocation:
    def __init__(self, cuda: Pycuda, kind: str) -> None:
        self._cuda, self._kind = cuda, kind

    def __int__(self) -> int:
        return 4096

    def free(self) -> None:
        self._cuda.freed.append(self._kind)


class Pinned(Allocation):
    """Becomes the `base` of the array over it, as PyCUDA's PagelockedHostAllocation is."""

    def __init__(self, cuda: Pycuda, size: int) -> None:
        super().__init__(cuda, "host")
        self._memory = np.zeros(size, np.uint8)
        self.__array_interface__ = self._memory.__array_interface__


def test_pycuda_pushes_the_primary_context_and_frees_what_it_took() -> None:
    cuda = Pycuda()
    backend = PycudaBackend(cuda, "2026.1")
    backend.open()
    assert cuda.pushed == [threading.get_ident()]
    assert (backend.name, backend.device, backend.stream) == ("pycuda 2026.1", "NVIDIA Nothing", 99)
    address, memory = backend.allocate(16), backend.allocate_host(16)
    assert address == 4096
    backend.upload(address, memory)
    backend.download(memory, address)
    backend.synchronise()
    backend.free(address)
    backend.free_host(memory)
    assert cuda.freed == ["device", "host"]
    backend.close()
    assert cuda.pushed == []


def test_pycudas_memory_error_is_a_lack_of_memory() -> None:
    cuda = Pycuda()
    backend = PycudaBackend(cuda, "2026.1")
    backend.open()
    cuda.failure = Pycuda.MemoryError("cuMemAlloc failed: out of memory")
    with pytest.raises(DeviceMemoryError, match="out of memory"):
        backend.allocate(1)
    cuda.failure = Pycuda.LaunchError("cuStreamSynchronize failed: an illegal memory access was encountered")
    with pytest.raises(DeviceError, match="illegal memory access") as caught:
        backend.synchronise()
    assert not isinstance(caught.value, DeviceMemoryError)
