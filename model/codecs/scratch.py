"""Memory for the pixels of one photo after another."""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]

_MOST: Final = 48 << 20


class Scratch:
    """Lends the same memory again and again: to decode 12 megapixels into fresh pages takes an eighth longer.

    It grows with the photos, and lends none to larger ones than `most`.

    Args:
        most: bytes.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._memory = np.empty(0, np.uint8)

    def lend(self, *shape: int) -> UInt8 | None:
        """An array of this shape, good until the next call; None where it would be too large."""
        size = math.prod(shape)
        if size > self._most:
            self.drop()
            return None
        if size > len(self._memory):
            self.drop()  # first, or both would be there at once
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size].reshape(shape)

    def drop(self) -> None:
        """Give the memory back: a photo that cannot use it needs its own."""
        self._memory = np.empty(0, np.uint8)
