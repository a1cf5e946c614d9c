"""Memory that is free within this process, for others."""

import ctypes
import sys


def trim() -> None:
    """Give what is free between glibc's allocations back to the machine; nothing where there is another libc."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
