"""How much memory this machine, or this container, still has, and how a process gives some back."""

import ctypes
import sys
from pathlib import Path

from pipeline.errors import SetupError

_MADV_DONTNEED = 4

CHILD_BYTES = 400 << 20
"""What an encode child takes for photos to 24 megapixels: 150 MB of libraries, 10 bytes a pixel (`bench/stage.py`)."""


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that can still be had: the kernel's estimate, or less where a cgroup allows less; None when unknown."""
    found = []
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        pass
    try:
        limit = (root / "sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int((root / "sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return max(min(found), 0) if found else None


def check_memory(processes: int, available: int | None) -> None:
    """Refuse to start more encode children than memory allows: the kernel would end them in the middle of the night.

    Raises:
        SetupError: says how many fit.
    """
    if available is None or processes * CHILD_BYTES <= available:
        return
    fit = available // CHILD_BYTES
    hint = f"--concurrency {fit}" if fit else "free some memory"
    raise SetupError(
        f"{processes} encode processes need {processes * CHILD_BYTES / 1e9:.1f} GB, {available / 1e9:.1f} GB is free.",
        hint,
    )


def drop_code(library: str) -> None:
    """Give back the pages of a library's code, 50 MB for LLVM once numba has compiled; what runs again is read again.

    Nothing happens where there is no /proc/self/maps.

    Args:
        library: a part of its file's name.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, mode, *_, name = line.split(maxsplit=5)
        if mode == "r-xp" and library in Path(name).name:
            start, end = (int(address, 16) for address in span.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
