"""The device through NVIDIA's own `cuda-bindings`: a wheel for every Python, which imports without a driver."""

import ctypes
import importlib
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.engines.cuda.device import DeviceError, DeviceMemoryError


class BindingsBackend:
    """`DeviceBackend` on CUDA's driver interface (https://docs.nvidia.com/cuda/cuda-driver-api/).

    Args:
        driver: the module `cuda.bindings.driver`.
        version: of the package.
    """

    def __init__(self, driver: ModuleType, version: str) -> None:
        self.name = f"cuda-bindings {version}"
        self.device = ""
        self.stream = 0
        self._cuda = driver
        self._ordinal: Any = None

    @classmethod
    def load(cls) -> Self:
        """Import the package.

        Raises:
            ImportError: when it is not there.
        """
        version = importlib.import_module("cuda.bindings").__version__
        return cls(importlib.import_module("cuda.bindings.driver"), version)

    def open(self) -> None:
        """See `DeviceBackend.open`."""
        self._call("cuInit", 0)
        ordinal = self._call("cuDeviceGet", 0)
        self.device = self._call("cuDeviceGetName", 128, ordinal).split(b"\0")[0].decode()
        context = self._call("cuDevicePrimaryCtxRetain", ordinal)
        self._ordinal = ordinal
        self._call("cuCtxSetCurrent", context)
        self.stream = int(self._call("cuStreamCreate", self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING))

    def close(self) -> None:
        """See `DeviceBackend.close`."""
        if self.stream:
            self._call("cuStreamDestroy", self.stream)
            self.stream = 0
        if self._ordinal is not None:
            self._call("cuDevicePrimaryCtxRelease", self._ordinal)
            self._ordinal = None

    def allocate(self, size: int) -> int:
        """See `DeviceBackend.allocate`."""
        return int(self._call("cuMemAlloc", size))

    def free(self, address: int) -> None:
        """See `DeviceBackend.free`."""
        self._call("cuMemFree", address)

    def allocate_host(self, size: int) -> NDArray[np.uint8]:
        """See `DeviceBackend.allocate_host`."""
        address = int(self._call("cuMemHostAlloc", size, 0))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_host(self, memory: NDArray[np.uint8]) -> None:
        """See `DeviceBackend.free_host`."""
        self._call("cuMemFreeHost", memory.ctypes.data)

    def upload(self, address: int, memory: NDArray[np.uint8]) -> None:
        """See `DeviceBackend.upload`."""
        self._call("cuMemcpyHtoDAsync", address, memory.ctypes.data, memory.size, self.stream)

    def download(self, memory: NDArray[np.uint8], address: int) -> None:
        """See `DeviceBackend.download`."""
        self._call("cuMemcpyDtoHAsync", memory.ctypes.data, address, memory.size, self.stream)

    def synchronise(self) -> None:
        """See `DeviceBackend.synchronise`."""
        self._call("cuStreamSynchronize", self.stream)

    def _call(self, name: str, *arguments: object) -> Any:
        """Call a function of the driver; its answer is (status, value)."""
        try:
            answer = getattr(self._cuda, name)(*arguments)
        except RuntimeError as error:  # what the bindings raise when libcuda is not there at all
            raise DeviceError(f"CUDA's {name} cannot be called: {error}.") from error
        status = answer[0]
        if status == self._cuda.CUresult.CUDA_SUCCESS:
            return answer[1] if len(answer) > 1 else None
        kind = DeviceMemoryError if status == self._cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY else DeviceError
        raise kind(f"CUDA's {name} gave {status.name} ({int(status)}).")
