"""What `mattemill worker` runs on this machine: GPU workers, an encode pool with the housekeeping, or both."""

import contextlib
import os
from collections.abc import Sequence

from pipeline.errors import Code
from pipeline.ledger import Ledger, Taken, check, connect
from pipeline.settings import Settings
from workers.engine_record import EngineRecord
from workers.gpu_gauges import GpuGauges
from workers.memory import available_bytes, check_memory
from workers.metrics import Metrics
from workers.metrics_page import metrics_page
from workers.source_cache import SourceCache
from workers.supervisor import Command, Supervisor

_MALLOC = {
    # By its own rules glibc gives back what one photo leaves, and takes it page by page for the next: depending on how
    # the heap came to lie, 4 ms of the 23 that a photo of 1 to 2 megapixels takes. One of 12 takes 138 with 24 MB, 120
    # with 96.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(96 << 20),
    # A second heap is 64 MB of the address space that a child may have; its threads only upload.
    "MALLOC_ARENA_MAX": "1",
}
"""For encode processes, unless it is set. Loaders would hardly feel it."""


def run_workers(settings: Settings, devices: Sequence[str] = (), concurrency: int = 0) -> int:
    """Supervise a GPU worker for each device and, unless `concurrency` is 0, so many encode processes; keep house then.

    Returns:
        the exit code, as `Supervisor.run` gives it.

    Raises:
        SetupError: when Redis does not answer, there is too little memory for that many processes, or the page of
            metrics cannot be served.
    """
    if concurrency:
        check_memory(concurrency, available_bytes(), settings.max_megapixels)
    client = connect(settings)
    check(client, settings)
    ledger = Ledger(client, settings)
    # An engine on the processor that has its cores for itself takes a thread, and the memory for it, for each.
    shares = concurrency and "with_encoding" not in settings.model_fields_set
    shared = {"MATTEMILL_WITH_ENCODING": "1"} if shares else {}
    commands = [Command("workers.gpu", one, shared, EngineRecord()) for one in devices]
    with metrics_page(settings) as registry, contextlib.ExitStack() as house:
        metrics = Metrics()
        if devices:
            registry.register(GpuGauges(devices))
        if concurrency:
            from workers.house import housekeeping  # with Celery: 10 MB that GPU workers alone do without

            house.enter_context(SourceCache(settings).open_for_taking())
            house.enter_context(housekeeping(settings, registry, metrics))
            malloc = {name: value for name, value in _MALLOC.items() if name not in os.environ}
            commands.append(Command("workers.cpu", str(concurrency), malloc))

        def suspect(batch: Sequence[Taken], engine: str) -> list[str]:
            outcomes = ledger.suspect(batch, engine)
            for outcome in outcomes:
                metrics.failed(Code.ATTEMPTS_EXHAUSTED, outcome)
            return outcomes

        return Supervisor(commands, suspect, metrics=metrics, grace=settings.grace).run()
