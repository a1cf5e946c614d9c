"""The CPU worker: a prefork pool of children, each makes one cutout at a time.

`python -m workers.cpu CONCURRENCY [PARENT]`.
"""

import gc
import os
import re
import resource
import signal
import sys
import threading

import cv2
import structlog
from billiard.einfo import ExceptionInfo
from celery import Celery, Task
from celery.exceptions import WorkerLostError
from celery.signals import worker_before_create_process, worker_process_init, worker_process_shutdown, worker_ready
from celery.worker import state
from celery.worker.request import Request

from model.cutout import warm_up
from model.heap import trim
from pipeline.errors import Code
from pipeline.ids import ETag, Key
from pipeline.jobs import ENCODE_QUEUE, Job, MessageError
from pipeline.ledger import Ledger, Taken, check, connect
from pipeline.runs import Item
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from workers.app import ENCODE, add_task, make_app
from workers.departure import Departure
from workers.encode_stage import EncodeStage
from workers.last_words import ending
from workers.lifecycle import die_with_parent, start
from workers.memory import drop_code
from workers.metrics import EncodeMetrics, Metrics
from workers.uploads import MOST

log = structlog.get_logger(__name__)
_NICE = 5
"""How far encode processes stand back behind an engine and loaders on the same cores: 3 % more images/s, because they
wait for mattes less often."""
_STACK_BYTES = 1 << 20
"""Of a thread that uploads; the usual 8 MB would be taken off what a child may have for its photo."""
_STATUS = re.compile(r"(signal|exitcode) (\d+)")
_TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""How a child ends that somebody has told to: that says nothing of its image."""


def run(concurrency: str, settings: Settings) -> None:
    """Take work until told to stop."""
    parent = Ledger(connect(settings), settings)
    check(parent.client, settings)
    app = make_app(settings)
    cv2.setNumThreads(1)
    # What is made before the children are forked is in memory once.
    warm_up()
    drop_code("libllvmlite")
    store = S3Store(settings, pool=MOST + 1)  # the first connection is opened by a child
    child: list[EncodeStage] = []
    metrics = EncodeMetrics()

    @worker_before_create_process.connect(weak=False)
    def share(**_: object) -> None:
        gc.collect()
        trim()
        gc.freeze()  # a collection in a child would write to every object, and so copy its page

    @worker_process_init.connect(weak=False)
    def begin(**_: object) -> None:
        die_with_parent()
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # a terminal's reaches the whole group; the parent decides
        resource.setrlimit(resource.RLIMIT_AS, (settings.child_memory, settings.child_memory))
        threading.stack_size(_STACK_BYTES)
        os.nice(_NICE)
        cv2.setNumThreads(1)
        child[:] = [EncodeStage(Ledger(connect(settings), settings), store, settings, metrics)]

    @worker_process_shutdown.connect(weak=False)
    def end(**_: object) -> None:
        for stage in child:
            stage.close()

    Departure(lambda: _give_back(parent), settings.grace).install()

    @worker_ready.connect(weak=False)
    def ready(**_: object) -> None:
        threading.Thread(target=_touch, args=(parent, settings), name="touch", daemon=True).start()

    class BlamingRequest(Request):
        """Counts the death of a child against the one item it held; both run in the parent."""

        def on_timeout(self, soft: bool, timeout: float) -> None:
            super().on_timeout(soft, timeout)
            if not soft:
                _blame(parent, metrics, self, f"it took more than {timeout:g} s")

        def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> None:
            super().on_failure(exc_info, send_failed_event, return_ok)
            error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it for its traceback
            if isinstance(error, WorkerLostError):
                _lost(parent, metrics, self, str(error))

    class BlamingTask(Task):  # type: ignore[type-arg]
        Request = BlamingRequest  # type: ignore[assignment]

    def encode_task(job: object) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Billiard's handlers, set after worker_process_init, would end with 70 as after a fault.
            signal.signal(number, signal.SIG_DFL)
        try:
            (stage,) = child
            stage.encode(Job.parse(job))
        except MessageError as error:
            log.warning("message_refused", error=str(error))
        except Exception:  # no exception leaves a task body, MemoryError least of all; the ledger brings the item back
            log.exception("encode_task_failed")
        finally:
            metrics.worked_off(ENCODE_QUEUE)

    add_task(app, ENCODE, encode_task, BlamingTask, time_limit=int(settings.encode_deadline))
    _work(app, concurrency)


def _work(app: Celery, concurrency: str) -> None:
    app.worker_main(
        [
            "worker",
            "--pool=prefork",
            f"--concurrency={concurrency}",
            f"--queues={ENCODE_QUEUE}",
            f"--hostname=cpu-{os.getpid()}@%h",
            "--without-mingle",
            "--without-gossip",
            "--loglevel=WARNING",
        ]
    )


def _held(request: Request) -> list[Taken]:
    """What a request holds, as far as its message tells."""
    try:
        job = Job.parse(request.kwargs["job"])
    except (MessageError, KeyError, TypeError):
        return []
    items = zip(job.item_ids, job.keys, strict=False)
    return [Taken(job.run_id, Item(id, Key(key), ETag(""), 0, ""), job.fed, None) for id, key in items]


def status_of(said: str) -> int | None:
    """How a child has ended, as `Popen.returncode` says it, from Celery's sentence: it is kept nowhere else.

    "Worker exited prematurely: signal 11 (SIGSEGV) Job: 3." is -11, "… exitcode 70 Job: 3." is 70.
    """
    found = _STATUS.search(said)
    if found is None:
        return None
    return -int(found[2]) if found[1] == "signal" else int(found[2])


def _lost(ledger: Ledger, metrics: Metrics, request: Request, said: str) -> None:
    status = status_of(said)
    if status is not None and -status in _TOLD:
        ledger.give_back(_held(request))
    else:
        how = said if status is None else ending(status)
        _blame(ledger, metrics, request, f"the encode process ended with {how}")


def _blame(ledger: Ledger, metrics: Metrics, request: Request, reason: str) -> None:
    # None or False while it works; an exit code, 0 too, while it stops.
    stopping: tuple[object, object] = (state.should_stop, state.should_terminate)
    if any(flag is not None and flag is not False for flag in stopping):
        return  # a child that dies while its worker stops says nothing of its image; the ledger takes it back
    for taken in _held(request):
        outcome = ledger.blame(taken, reason)
        metrics.failed(Code.ATTEMPTS_EXHAUSTED, outcome)
        log.warning("child_died", run=taken.run, key=taken.item.key, reason=reason, outcome=outcome)


def _give_back(ledger: Ledger) -> int:
    held = [taken for request in list(state.active_requests) for taken in _held(request)]
    ledger.give_back(held)
    return len(held)


def _touch(ledger: Ledger, settings: Settings) -> None:
    pause = threading.Event()
    while not pause.wait(settings.touch_interval):
        for request in list(state.active_requests):
            try:
                for taken in _held(request):
                    ledger.touch(taken.run, [(taken.item.id, taken.fed)])
            except Exception as error:  # noqa: BLE001 - Redis may be away for a while; the next touch may get through
                log.warning("touch_failed", error=str(error))


if __name__ == "__main__":
    sys.exit(start("cpu", run))
