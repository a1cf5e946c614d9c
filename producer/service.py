"""Which workers answer, which queues they serve, and what waits where none does."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import redis

from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.jobs import ENCODE_QUEUE
from pipeline.ledger import Ledger
from pipeline.runs import matte_queue
from pipeline.settings import Settings
from producer.finding import Finding
from workers.app import length, make_app, oldest

_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """What was found.

    Attributes:
        workers: the names of those that answer, and which queues each serves.
        waiting: messages in each queue of this model and of the open runs.
        ages: seconds that the oldest message of a queue has waited, of queues that are not empty.
    """

    workers: Mapping[str, frozenset[str]]
    waiting: Mapping[str, int]
    ages: Mapping[str, float]

    def unserved(self) -> list[Finding]:
        """A finding for each queue in which messages wait and which no worker serves."""
        served = frozenset().union(*self.workers.values())
        return [
            Finding(
                "queues",
                "bad",
                f"{count} messages wait in {queue}, {self.ages.get(queue, 0):.0f} s so far; no worker serves it.",
                _worker_for(queue),
            )
            for queue, count in self.waiting.items()
            if count and queue not in served
        ]


def look_at_service(settings: Settings, client: redis.Redis) -> Service:
    """Ask all workers, for a second, and Redis.

    Raises:
        RedisError: when Redis does not answer.
    """
    ledger = Ledger(client, settings)
    queues: dict[str, None] = {}
    with contextlib.suppress(SetupError):  # a model that is not here, which `doctor` tells beside this
        sizes = ModelStore(settings.home).known(settings.model).size_buckets
        queues = {matte_queue(settings.model, str(size)): None for size in sizes}
    for run in ledger.runs(active=True):
        queues |= dict.fromkeys(ledger.queues(run))
    queues.pop(ENCODE_QUEUE, None)
    waiting = {queue: length(client, queue) for queue in (*queues, ENCODE_QUEUE)}
    seconds, micros = client.time()
    ages = {}
    for queue in (queue for queue, count in waiting.items() if count):
        try:
            fed = oldest(client, queue)
        except ValueError:
            continue  # nothing can be said of a message that is none of ours
        if fed is not None:
            ages[queue] = max(seconds + (micros - fed) / 1e6, 0.0)
    return Service(_workers(settings), waiting, ages)


def _workers(settings: Settings) -> dict[str, frozenset[str]]:
    app = make_app(settings)
    try:
        answers = app.control.inspect(timeout=_SECONDS).active_queues() or {}
    finally:
        app.close()
    return {name: frozenset(str(queue["name"]) for queue in queues) for name, queues in sorted(answers.items())}


def _worker_for(queue: str) -> str:
    if queue == ENCODE_QUEUE:
        return "mattemill worker cpu"
    model = queue.removeprefix("matte.").rpartition(".")[0]
    return f"MATTEMILL_MODEL={model} mattemill worker gpu"
