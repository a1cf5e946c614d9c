"""The GPU worker: one process, one engine, a threads pool of Celery tasks.

DEVICE is an assignment of `workers.devices`: "tensorrt@GPU-…", "cpu", "fake:20".
"""

import os
import sys
from collections.abc import Sequence

import structlog
from celery.signals import task_received
from celery.worker.request import Request
from celery.worker.state import SOFTWARE_INFO

from model.engines.fake import FAKE
from model.store import ModelStore
from pipeline.jobs import Job, MessageError
from pipeline.ledger import Ledger, check, connect
from pipeline.runs import matte_queue
from pipeline.settings import Settings
from workers.app import MATTE, add_task, make_app, publish
from workers.departure import Departure
from workers.devices import open_engine
from workers.engine_record import EngineRecord
from workers.flow import Flow
from workers.last_words import say
from workers.lifecycle import LOST, start
from workers.matte import MatteStage
from workers.memory import drop_code
from workers.metrics import MatteMetrics

log = structlog.get_logger(__name__)


def run(device: str, settings: Settings, record: EngineRecord) -> None:
    """Open and warm the engine, then take work until told to stop."""
    client = connect(settings)
    check(client, settings)
    app = make_app(settings)
    with open_engine(device, settings) as engine:
        engine.warm_up()
        drop_code("onnxruntime")  # half of it only loads models
        metrics = MatteMetrics(device, engine.max_batch)

        def send(jobs: Sequence[Job], priority: int) -> None:
            publish(app, jobs, priority)
            flow.moved(len(jobs))

        stage = MatteStage(
            Ledger(client, settings),
            send,
            engine,
            settings,
            os.cpu_count() or 1,
            record,
            None if engine.name.startswith(FAKE) else ModelStore(settings.home).spec(settings.model).weights,
            metrics=metrics,
        )
        Departure(stage.give_back, settings.grace).install()

        def stuck() -> None:
            say("the consumer takes nothing from queues that are not empty")
            os._exit(LOST)

        queues = [matte_queue(settings.model, str(size)) for size in engine.size_buckets]
        flow = Flow(
            client,
            queues,
            stage.in_hand,
            2 * stage.slots,
            settings.encode_mark,
            settings.stuck_timeout,
            stuck,
        )

        @task_received.connect(weak=False)
        def pulled(request: Request, **_: object) -> None:
            # Here and not where its thread begins: before that the event loop asks whether it may pull the next one.
            if (job := asked(request)) is not None:
                stage.expect(len(job.items))

        def matte(message: object) -> None:
            job = None
            try:
                job = Job.parse(message)
                stage.process(job)
            except MessageError as error:
                log.warning("message_refused", error=str(error))
            except Exception:  # no exception leaves a task body; the ledger brings the items back
                log.exception("matte_task_failed")
            finally:
                flow.ended()
                metrics.worked_off(job.queue if job is not None else "")
                metrics.follow(stage.figures())

        add_task(app, MATTE, matte)
        flow.install(app)
        SOFTWARE_INFO["engine"] = engine.name  # goes out with every heartbeat: the live page shows it
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


def asked(request: Request) -> Job | None:
    """What a pulled message asks for; None where that never comes to the task, or is refused there."""
    if request.name != MATTE or request.args or list(request.kwargs) != ["job"]:
        return None
    try:
        return Job.parse(request.kwargs["job"])
    except MessageError:
        return None


def main() -> int:
    """`python -m workers.gpu DEVICE PARENT RECORD_FD`; the last two only where a supervisor starts it."""
    record = EngineRecord(int(sys.argv[3]) if len(sys.argv) > 3 else None)
    return start("gpu", lambda device, settings: run(device, settings, record))


if __name__ == "__main__":
    sys.exit(main())
