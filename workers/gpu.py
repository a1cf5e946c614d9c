"""The GPU worker: one process, one engine, a threads pool of Celery tasks. `python -m workers.gpu DEVICE [PARENT]`.

DEVICE is "cpu" (ONNX Runtime on the processor) or "fake:MS" (an engine that takes MS milliseconds a batch).
"""

import os
import sys

import structlog

from model.catalogue import find
from model.engines.base import Engine
from model.engines.fake import FakeEngine
from model.engines.onnx import OnnxEngine
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.jobs import Job, MessageError
from pipeline.ledger import Ledger, check, connect
from pipeline.runs import matte_queue
from pipeline.settings import Settings
from workers.app import MATTE, add_task, make_app, publish
from workers.lifecycle import start
from workers.matte import MatteStage

log = structlog.get_logger(__name__)


def open_engine(device: str, settings: Settings) -> Engine:
    """The engine that this device was asked to run; never another in silence.

    Raises:
        SetupError: when it cannot run here.
    """
    if device.startswith("fake:"):
        try:
            milliseconds = float(device.removeprefix("fake:"))
        except ValueError as error:
            raise SetupError(f"{device!r} is no device.", "write fake:20 for 20 milliseconds a batch") from error
        return FakeEngine(milliseconds, find(settings.model).size_buckets, settings.max_batch)
    if device == "cpu":
        store = ModelStore(settings.home)
        path = store.path(settings.model)
        return OnnxEngine(path, store.spec(settings.model), settings.max_batch, os.cpu_count() or 1)
    raise SetupError(f"This version has no engine for device {device!r}.", "use --devices cpu, which needs no GPU")


def run(device: str, settings: Settings) -> None:
    """Open and warm the engine, then take work until told to stop."""
    client = connect(settings)
    check(client, settings)
    app = make_app(settings)
    with open_engine(device, settings) as engine:
        engine.warm_up()
        ledger = Ledger(client, settings)
        stage = MatteStage(
            ledger, lambda job, priority: publish(app, job, priority), engine, settings, os.cpu_count() or 1
        )

        def matte(job: object) -> None:
            try:
                stage.process(Job.parse(job))
            except MessageError as error:
                log.warning("message_refused", error=str(error))
            except Exception:  # no exception leaves a task body; the ledger brings the items back
                log.exception("matte_task_failed")

        add_task(app, MATTE, matte)
        queues = ",".join(matte_queue(settings.model, str(size)) for size in engine.size_buckets)
        with stage:
            app.worker_main(
                [
                    "worker",
                    "--pool=threads",
                    f"--concurrency={settings.gpu_threads}",
                    f"--queues={queues}",
                    f"--hostname=gpu-{os.getpid()}@%h",
                    "--without-mingle",
                    "--without-gossip",
                    "--loglevel=WARNING",
                ]
            )


if __name__ == "__main__":
    sys.exit(start("gpu", run))
