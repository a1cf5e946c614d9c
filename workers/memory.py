"""How much memory this machine, or this container, still has."""

from pathlib import Path

from pipeline.errors import SetupError

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
