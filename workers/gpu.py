"""The GPU worker: one process, one engine, a threads pool of Celery tasks.

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
from workers.engine_record import EngineRecord
from workers.flow import Flow
from workers.lifecycle import LOST, start
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


def run(device: str, settings: Settings, record: EngineRecord) -> None:
    """Open and warm the engine, then take work until told to stop."""
    client = connect(settings)
    check(client, settings)
    app = make_app(settings)
    with open_engine(device, settings) as engine:
        engine.warm_up()
        stage = MatteStage(
            Ledger(client, settings),
            lambda job, priority: publish(app, job, priority),
            engine,
            settings,
            os.cpu_count() or 1,
            record,
        )
        queues = [matte_queue(settings.model, str(size)) for size in engine.size_buckets]
        flow = Flow(
            client,
            queues,
            stage.in_hand,
            2 * stage.slots,
            settings.encode_mark,
            settings.stuck_timeout,
            lambda: os._exit(LOST),
        )

        def matte(job: object) -> None:
            try:
                stage.process(Job.parse(job))
            except MessageError as error:
                log.warning("message_refused", error=str(error))
            except Exception:  # no exception leaves a task body; the ledger brings the items back
                log.exception("matte_task_failed")
            finally:
                flow.moved()

        add_task(app, MATTE, matte)
        flow.install(app)
        threads = settings.gpu_threads or min(max(2 * stage.slots, 16), 64)
        with stage, flow:
            app.worker_main(
                [
                    "worker",
                    "--pool=threads",
                    f"--concurrency={threads}",
                    f"--queues={','.join(queues)}",
                    f"--hostname=gpu-{os.getpid()}@%h",
                    "--without-mingle",
                    "--without-gossip",
                    "--loglevel=WARNING",
                ]
            )


def main() -> int:
    """`python -m workers.gpu DEVICE PARENT RECORD_FD`; the last two only where a supervisor starts it."""
    record = EngineRecord(int(sys.argv[3]) if len(sys.argv) > 3 else None)
    return start("gpu", lambda device, settings: run(device, settings, record))


if __name__ == "__main__":
    sys.exit(main())
