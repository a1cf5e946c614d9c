"""Compare the engines that can run a model on this machine: latency, memory, throughput."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from engine_build.measure import TORCH_FP32
from pipeline import __version__
from workers.devices import CPU

CAVEATS = (
    "A latency is a whole call of the engine: uint8 images in this machine's memory to uint8 alpha there, copies "
    "included; median of the runs, after a warm-up.",
    "Each engine runs in a process of its own, one after the other. host_mb is that process's largest resident "
    "memory, interpreter and libraries included; gpu_mb is what the GPU had less free afterwards.",
    "On a GPU PyTorch FP32 convolves in TF32, as PyTorch does unless told otherwise; ONNX Runtime FP32 does not.",
    "On the processor, images of a batch run side by side or one after the other: a batch gains nothing there.",
)
_TIMEOUT = 3600


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine to be measured.

    Attributes:
        label: as in the table.
        engine: of its assignment.
        needs_gpu: whether it cannot run on the processor.
    """

    label: str
    engine: str
    needs_gpu: bool


CANDIDATES = (
    Candidate("PyTorch FP32", TORCH_FP32, False),
    Candidate("PyTorch FP16", "torch", True),
    Candidate("ONNX Runtime FP32", "onnx", False),
    Candidate("TensorRT FP16", "tensorrt", True),
    Candidate("TensorRT for RTX FP16", "tensorrt-rtx", True),
)


def bench(
    model: str,
    device: str,
    batches: tuple[int, ...],
    seconds: float,
    report: Callable[[str], None],
    run: Callable[[list[str]], subprocess.CompletedProcess[str]] | None = None,
) -> dict[str, object]:
    """Measure every candidate; what cannot run is left out, with the reason.

    Args:
        model: its name.
        device: UUID of a GPU, or "cpu".
        batches: images in a call.
        seconds: that each size bucket and batch is timed for.
        report: takes the name of the candidate that is measured now.
        run: runs a command; replaced in tests.

    Returns:
        What `--json` prints: model, machine, engines (each with rows), left_out, caveats.
    """
    run = run or _run
    engines, left_out = [], {}
    for candidate in CANDIDATES:
        if candidate.needs_gpu and device == CPU:
            left_out[candidate.label] = "It needs a GPU."
            continue
        report(candidate.label)
        words = [f"{candidate.engine}@{device}", model, ",".join(map(str, batches)), str(seconds)]
        done = run([sys.executable, "-m", "engine_build.measure", *words])
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            left_out[candidate.label] = lines[-1] if lines else f"It ended with status {done.returncode}."
            continue
        engines.append({"label": candidate.label, **json.loads(done.stdout.strip().splitlines()[-1])})
    return {
        "model": model,
        "device": device,
        "machine": machine(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "engines": engines,
        "left_out": left_out,
        "caveats": list(CAVEATS),
    }


def machine() -> dict[str, object]:
    """What it was measured on."""
    return {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}


def table(result: dict[str, object]) -> Iterator[tuple[str, ...]]:
    """The rows of the table, as text, the head first."""
    yield ("engine", "size bucket", "batch", "latency ms", "10-90 %", "images/s", "host MB", "GPU MB")
    engines = result["engines"]
    assert isinstance(engines, list)
    for engine in engines:
        gpu = "" if engine["gpu_mb"] is None else str(engine["gpu_mb"])
        for row in engine["rows"]:
            yield (
                engine["label"],
                row["size_bucket"],
                str(row["batch"]),
                f"{row['latency_ms']:.1f}",
                f"{row['low_ms']:.1f}-{row['high_ms']:.1f}",
                f"{row['images_per_second']:.1f}",
                str(engine["host_mb"]),
                gpu,
            )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - no file of ours
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
