"""Memory and one stream on one CUDA device, behind a protocol small enough to be faked."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.engines.base import EngineError


class DeviceError(EngineError):
    """CUDA refused a call. The context may be gone: a `synchronise` that fails too says so."""


class DeviceMemoryError(DeviceError):
    """There is not enough memory left, on the device or pinned on the host. The context is well."""


class DeviceBackend(Protocol):
    """Device 0 of those that CUDA_VISIBLE_DEVICES leaves; used by the thread that opened it, and by no other.

    It holds the device's primary context, which TensorRT shares. Every method raises `DeviceError` on failure.
    """

    @property
    def name(self) -> str:
        """Package and version."""
        ...

    @property
    def device(self) -> str:
        """The device's name, such as "NVIDIA L4"; "" before `open`."""
        ...

    @property
    def stream(self) -> int:
        """Handle of the one stream; never the default stream."""
        ...

    def open(self) -> None:
        """Make the primary context current in this thread, and the stream."""
        ...

    def close(self) -> None:
        """Let go of both. Memory has to be given back before."""
        ...

    def allocate(self, size: int) -> int:
        """Address of `size` new bytes on the device, aligned to at least 256.

        Raises:
            DeviceMemoryError: when there is not enough.
        """
        ...

    def free(self, address: int) -> None:
        """Give device memory back."""
        ...

    def allocate_host(self, size: int) -> NDArray[np.uint8]:
        """Pinned memory of this machine, uint8 [size]: only from such can copies run beside other work.

        Raises:
            DeviceMemoryError: when there is not enough.
        """
        ...

    def free_host(self, memory: NDArray[np.uint8]) -> None:
        """Give pinned memory back; the array must not be used again."""
        ...

    def upload(self, address: int, memory: NDArray[np.uint8]) -> None:
        """Queue a copy of the whole of `memory` (pinned, contiguous) to the device, on the stream."""
        ...

    def download(self, memory: NDArray[np.uint8], address: int) -> None:
        """Queue a copy from the device that fills `memory`, on the stream."""
        ...

    def synchronise(self) -> None:
        """Wait until the stream is empty; raises what went wrong in it."""
        ...
