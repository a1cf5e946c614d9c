"""The memory of one engine: five pieces that only grow, so that a warm engine allocates nothing."""

import numpy as np
from numpy.typing import NDArray

from model.engines.cuda.device import DeviceBackend


class Buffers:
    """Memory for one batch: pinned and on the device, in and out, and the network's scratch.

    All size buckets share it: one batch runs at a time.

    Args:
        backend: open; used by its thread.
    """

    def __init__(self, backend: DeviceBackend) -> None:
        self._backend = backend
        self._device: dict[str, tuple[int, int]] = {}  # name: address, size
        self._host: dict[str, NDArray[np.uint8]] = {}

    def device(self, name: str, size: int) -> int:
        """Address of at least `size` bytes on the device; what was there before is lost when it has to grow.

        Raises:
            DeviceMemoryError: when there is not enough.
        """
        address, there = self._device.get(name, (0, 0))
        if there < max(size, 1):
            if there:
                del self._device[name]
                self._backend.free(address)
            address = self._backend.allocate(max(size, 1))
            self._device[name] = (address, max(size, 1))
        return address

    def host(self, name: str, size: int) -> NDArray[np.uint8]:
        """Pinned memory, uint8 [size]; likewise.

        Raises:
            DeviceMemoryError: when there is not enough.
        """
        if name in self._host and self._host[name].size < size:
            self._backend.free_host(self._host.pop(name))
        if name not in self._host:
            self._host[name] = self._backend.allocate_host(size)
        return self._host[name][:size]

    def release(self) -> None:
        """Give everything back; `device` and `host` take it anew."""
        while self._device:
            self._backend.free(self._device.popitem()[1][0])
        while self._host:
            self._backend.free_host(self._host.popitem()[1])
