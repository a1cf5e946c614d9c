"""What a figure is worth nothing without: the machine, the versions, the commit."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
_LIBRARIES = (
    "celery",
    "kombu",
    "redis",
    "boto3",
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "simplejpeg",
    "isal",
    "pillow",
    "numba",
)


def facts() -> dict[str, object]:
    """Processor, cores, memory, versions, commit and date."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = {line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")}
    commit = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": subprocess.run(commit, capture_output=True, text=True, check=False).stdout.strip() or "unknown",
        "processor": ", ".join(sorted(names)) or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _LIBRARIES},
    }
