"""The Celery application, and what has to be known of its queues in Redis."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, cast

import redis
import structlog
from celery import Celery, Task

import celeryconfig
from pipeline.jobs import ENCODE_QUEUE, Job
from pipeline.settings import Settings
from workers import broker

MATTE, ENCODE = "mattemill.matte", "mattemill.encode"
_SHOWN = 300
_SEPARATOR = "\x06\x16"
"""What kombu puts between a queue's name and a priority other than 0."""


class _Batching(Protocol):  # kombu's types are older than its Producer.batch
    def batch(self) -> AbstractContextManager[object]: ...


def make_app(settings: Settings) -> Celery:
    """The application; the broker's address comes from the settings, everything else from celeryconfig."""
    broker.install()
    app = Celery("mattemill", set_as_current=False, broker=settings.redis_url.get_secret_value())
    app.config_from_object(celeryconfig)
    return app


def publish(app: Celery, jobs: Sequence[Job], priority: int) -> None:
    """Send messages in one go; each one's fed number stands in the header too, where housekeeping reads it cheaply."""
    with app.producer_pool.acquire(block=True) as producer, cast(_Batching, producer).batch():
        for job in jobs:
            app.send_task(
                ENCODE if job.queue == ENCODE_QUEUE else MATTE,
                kwargs=job.message(),
                argsrepr=_shown(job),
                kwargsrepr=f"run {job.run}",
                queue=job.queue,
                priority=priority,
                headers={"fed": job.fed},
                ignore_result=True,
                producer=producer,
            )


def _shown(job: Job) -> str:
    """A message as Flower's rows show it: its size bucket, or encode, and its first key."""
    more = f" and {len(job.keys) - 1} more" if len(job.keys) > 1 else ""
    return f"{job.queue.rpartition('.')[2]}: {job.keys[0][:_SHOWN]}{more}"


def add_task(
    app: Celery, name: str, work: Callable[[object], None], base: type[Task[..., None]] = Task, **options: object
) -> None:
    """Register `work`, which takes the message's `job`, as a task; every line that it logs has the task's id.

    Options are checked: Celery takes any in silence.

    Raises:
        TypeError: names the options that no task has.
    """
    unknown = sorted(option for option in options if not hasattr(Task, option))
    if unknown:
        raise TypeError(f"no Celery task has the option {', '.join(unknown)}")

    def task(self: Task[..., None], job: object) -> None:
        with structlog.contextvars.bound_contextvars(task=self.request.id):
            work(job)

    register = cast(Callable[..., Callable[[Callable[..., None]], object]], app.task)
    register(name=name, base=base, bind=True, **options)(task)


def lists(queue: str) -> list[str]:
    """The Redis lists of a queue, one for each priority."""
    steps = celeryconfig.broker_transport_options["priority_steps"]
    return [queue if step == 0 else f"{queue}{_SEPARATOR}{step}" for step in cast(list[int], steps)]


def length(client: redis.Redis, queue: str) -> int:
    """Messages that wait in a queue, of all priorities."""
    with client.pipeline(transaction=False) as pipe:
        for name in lists(queue):
            pipe.llen(name)
        return sum(cast(list[int], pipe.execute()))


def oldest(client: redis.Redis, queue: str) -> int | None:
    """The smallest fed number among the queue's oldest messages; None when the queue is empty.

    Raises:
        ValueError: when a message has no readable header; nothing can be said of the queue then.
    """
    with client.pipeline(transaction=False) as pipe:
        for name in lists(queue):
            pipe.lindex(name, -1)
        last = cast(list[bytes | None], pipe.execute())
    try:
        return min((int(json.loads(raw)["headers"]["fed"]) for raw in last if raw is not None), default=None)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the oldest message of {queue} has no fed number") from error
