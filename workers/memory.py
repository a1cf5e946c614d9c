"""How much memory this machine, or this container, still has, and how a process gives some back."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

from pipeline.errors import SetupError
from workers.uploads import MOST_BYTES

_MADV_DONTNEED = 4

SHARED_BYTES = 110 << 20
"""What encode children share with their parent."""
_OWN_BYTES = (25 << 20) + MOST_BYTES
_PIXEL_BYTES = 16
"""For each pixel of a photo: measured 4 of a JPEG of 24 megapixels, 8 of an RGBA PNG, 16 of a WebP (docs/tune.md)."""
_MEGAPIXELS = 24
"""The photo that every child may have at once. Larger ones are few; MATTEMILL_CHILD_MEMORY bounds what each takes."""


def child_bytes(max_megapixels: int) -> int:
    """What an encode child has to itself at the most, with a photo of 24 megapixels, or as large as any may be."""
    return _OWN_BYTES + _PIXEL_BYTES * min(max_megapixels, _MEGAPIXELS) * 1_000_000


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


def check_memory(processes: int, available: int | None, max_megapixels: int) -> None:
    """Refuse to start more encode children than memory allows: the kernel would end them in the middle of the night.

    Raises:
        SetupError: says how many fit.
    """
    each = child_bytes(max_megapixels)
    needed = SHARED_BYTES + processes * each
    if available is None or needed <= available:
        return
    fit = (available - SHARED_BYTES) // each
    less = f"--concurrency {fit}" if fit > 0 else "free some memory"
    raise SetupError(
        f"{processes} encode processes need {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB is free.",
        f"{less}, or a lower MATTEMILL_MAX_MEGAPIXELS: below {_MEGAPIXELS} a process counts with less",
    )


def drop_code(library: str) -> None:
    """Give back the pages of a library's file, 60 MB for LLVM once numba has compiled; any is read again when used.

    Only mappings that hold nothing but the file's own bytes: others have been written to when the library was loaded.
    Nothing happens where the kernel does not tell.

    Args:
        library: a part of its file's name.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    span, written = "", 0
    with suppress(OSError), Path("/proc/self/smaps").open() as lines:
        for line in lines:
            words = line.split(maxsplit=5)
            if not words[0].endswith(":"):
                span = words[0] if len(words) == 6 and library in Path(words[5]).name else ""
                written = 0
            elif words[0] in ("Anonymous:", "Swap:"):
                written += int(words[1])
            elif span and words[0] == "VmFlags:" and not written:  # the last line of a mapping
                start, end = (int(address, 16) for address in span.split("-"))
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
