"""The device through PyCUDA, where it is installed. It has no wheel: pip compiles it."""

import importlib
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.engines.cuda.device import DeviceError, DeviceMemoryError


class PycudaBackend:
    """`DeviceBackend` on `pycuda.driver`.

    Args:
        driver: the module `pycuda.driver`.
        version: of the package.
    """

    def __init__(self, driver: ModuleType, version: str) -> None:
        self.name = f"pycuda {version}"
        self.device = ""
        self._cuda = driver
        self._context: Any = None
        self._stream: Any = None
        # PyCUDA frees what nobody refers to any more.
        self._device_memory: dict[int, Any] = {}

    @classmethod
    def load(cls) -> Self:
        """Import the package.

        Raises:
            ImportError: when it is not there, or there is no driver.
        """
        version = importlib.import_module("pycuda").VERSION_TEXT
        return cls(importlib.import_module("pycuda.driver"), version)

    @property
    def stream(self) -> int:
        """See `DeviceBackend.stream`."""
        return int(self._stream.handle) if self._stream is not None else 0

    def open(self) -> None:
        """See `DeviceBackend.open`."""
        try:
            self._cuda.init()
            device = self._cuda.Device(0)
            # The primary context, and no other: TensorRT uses that one, and a second beside it breaks.
            context = device.retain_primary_context()
            context.push()
            self._context = context
            self.device = device.name()
            self._stream = self._cuda.Stream()
        except self._cuda.Error as error:
            raise self._named(error) from error

    def close(self) -> None:
        """See `DeviceBackend.close`."""
        self._stream = None
        if self._context is not None:
            context, self._context = self._context, None
            try:
                # Takes it off this thread's stack and lets go of it. After `pop` alone PyCUDA's destructor would call
                # cuCtxDetach, which a primary context refuses; on the stack it would abort the process with its thread.
                context.detach()
            except self._cuda.Error as error:
                raise self._named(error) from error

    def allocate(self, size: int) -> int:
        """See `DeviceBackend.allocate`."""
        try:
            memory = self._cuda.mem_alloc(size)
        except self._cuda.Error as error:
            raise self._named(error) from error
        self._device_memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """See `DeviceBackend.free`."""
        try:
            self._device_memory.pop(address).free()
        except self._cuda.Error as error:
            raise self._named(error) from error

    def allocate_host(self, size: int) -> NDArray[np.uint8]:
        """See `DeviceBackend.allocate_host`."""
        try:
            memory: NDArray[np.uint8] = self._cuda.pagelocked_empty(size, np.uint8)
        except self._cuda.Error as error:
            raise self._named(error) from error
        return memory

    def free_host(self, memory: NDArray[np.uint8]) -> None:
        """See `DeviceBackend.free_host`."""
        try:
            self._base(memory).free()
        except self._cuda.Error as error:
            raise self._named(error) from error

    def upload(self, address: int, memory: NDArray[np.uint8]) -> None:
        """See `DeviceBackend.upload`."""
        try:
            self._cuda.memcpy_htod_async(address, memory, self._stream)
        except self._cuda.Error as error:
            raise self._named(error) from error

    def download(self, memory: NDArray[np.uint8], address: int) -> None:
        """See `DeviceBackend.download`."""
        try:
            self._cuda.memcpy_dtoh_async(memory, address, self._stream)
        except self._cuda.Error as error:
            raise self._named(error) from error

    def synchronise(self) -> None:
        """See `DeviceBackend.synchronise`."""
        try:
            self._stream.synchronize()
        except self._cuda.Error as error:
            raise self._named(error) from error

    def _base(self, memory: NDArray[np.uint8]) -> Any:
        """The object behind a pinned array: PyCUDA's PagelockedHostAllocation."""
        return memory.base

    def _named(self, error: Exception) -> DeviceError:
        # PyCUDA's MemoryError is one of its own errors, not Python's.
        kind = DeviceMemoryError if isinstance(error, self._cuda.MemoryError) else DeviceError
        return kind(f"PyCUDA: {str(error).rstrip('.')}.")
