"""Time one engine in a process of its own, so that its memory is its own. Prints one JSON object; used by `bench`."""

import json
import os
import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass

from engine_build.photos import golden_photos
from model.engines.base import Engine
from model.engines.cuda.gpus import find_gpu, list_gpus, used_memory
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.settings import Settings, load_settings
from workers.devices import CPU, Assignment, hold, open_engine, pin

TORCH_FP32 = "torch-fp32"
"""The article's baseline; a worker's PyTorch is FP16 on a GPU."""
_FEWEST, _MOST = 5, 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One size bucket and batch: a whole call, copies included.

    Attributes:
        size_bucket: as text.
        batch: images in a call.
        latency_ms: median.
        low_ms: the fastest tenth ends here.
        high_ms: the slowest tenth begins here.
        images_per_second: at the median.
        runs: calls that were timed.
    """

    size_bucket: str
    batch: int
    latency_ms: float
    low_ms: float
    high_ms: float
    images_per_second: float
    runs: int


def measure(engine: Engine, batches: tuple[int, ...], seconds: float) -> list[Row]:
    """Time every size bucket and batch that the engine takes, after warming up.

    Args:
        engine: open.
        batches: those larger than the engine takes are left out.
        seconds: that each is timed for; at least five calls.
    """
    engine.warm_up()
    rows = []
    for size_bucket in engine.size_buckets:
        for batch in (one for one in batches if one <= engine.max_batch):
            images = golden_photos(size_bucket, batch)
            times: list[float] = []
            began = time.perf_counter()
            while len(times) < _FEWEST or (time.perf_counter() - began < seconds and len(times) < _MOST):
                started = time.perf_counter()
                engine.infer(images)
                times.append((time.perf_counter() - started) * 1000)
            cuts = statistics.quantiles(times, n=10)
            median = statistics.median(times)
            rows.append(
                Row(
                    str(size_bucket),
                    batch,
                    round(median, 3),
                    round(cuts[0], 3),
                    round(cuts[-1], 3),
                    round(1000 * batch / median, 2),
                    len(times),
                )
            )
    return rows


def _open(assignment: str, settings: Settings) -> Engine:
    engine, _, device = assignment.partition("@")
    if engine != TORCH_FP32:
        return open_engine(assignment, settings)
    if device == CPU:
        return open_engine(str(Assignment("torch", CPU)), settings)
    gpu = find_gpu(list_gpus().gpus, device)
    if gpu is None:
        raise SetupError(f"The GPU {device} is not here any more.", "nvidia-smi -L")
    hold(settings.home, gpu, share=False)
    pin(gpu, os.environ)
    from engine_build.trained import trained_network
    from model.engines.torch import TorchEngine

    card = ModelStore(settings.home).card(settings.model)
    return TorchEngine(trained_network(card), card.spec.size_buckets, settings.max_batch, cuda=True, half=False)


def _gpu_bytes(device: str) -> int | None:
    """Memory in use on the whole GPU; the caller sees that it is alone there."""
    if device == CPU:
        return None
    return used_memory(device)


def main() -> int:
    """`python -m engine_build.measure ASSIGNMENT MODEL BATCHES SECONDS`; 2 and a sentence when it cannot run."""
    assignment, model, batches, seconds = sys.argv[1:]
    wanted = tuple(int(one) for one in batches.split(","))
    device = assignment.partition("@")[2]
    try:
        settings = load_settings(model=model, max_batch=max(wanted))
        before = _gpu_bytes(device)
        with _open(assignment, settings) as engine:
            rows = measure(engine, wanted, float(seconds))
            after = _gpu_bytes(device)
            told = {
                "engine": engine.name,
                "rows": [asdict(row) for row in rows],
                "host_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "gpu_mb": round((after - before) / 2**20) if before is not None and after is not None else None,
            }
    except (SetupError, ImportError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the sentence for whoever started it
        return 2
    print(json.dumps(told))  # noqa: T201 - the answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
