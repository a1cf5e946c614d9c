"""Celery's consumer, that outlives a message which is none."""

from collections.abc import Callable
from typing import Any, Final

import structlog
from celery.worker.consumer import Consumer as CeleryConsumer
from redis.exceptions import DataError

log = structlog.get_logger()
_SHOWN = 200
_BROKEN: Final = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, DataError)
"""What Celery, kombu and redis-py raise over texts and envelopes that no Celery has written."""
_TELL_EVERY: Final = 0.5


class Consumer(CeleryConsumer):
    """Refuses whatever Celery cannot read; without it such a thing, wherever it was pushed, ends the worker.

    Flower is told of tasks twice a second, or of 24 events at once: each alone took a third of a message's cost here.
    """

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[object], None]:
        """The callback for one message, for one connection; see Celery's."""
        handle = super().create_task_handler(*args, **kwargs)
        consumer: Any = self  # Celery's types leave out what it has
        poller = consumer.connection.transport.cycle  # of this connection alone; remote control comes through it too
        poller.on_readable = _refusing(poller.on_readable)
        if consumer.hub is not None:  # which forgets the timers of a connection with it
            consumer.hub.call_repeatedly(_TELL_EVERY, self._tell)

        def on_task_received(message: object) -> None:
            try:
                handle(message)
            except _BROKEN as error:
                _refuse(error)
                message.reject_log_error(log, self.connection_errors)  # type: ignore[attr-defined]

        return on_task_received

    def on_send_event_buffered(self) -> Any:
        """Nothing: an event is kept until the next time that all are told."""

    def on_close(self) -> None:
        """See Celery's. The dispatcher of the next connection is given what could not be sent, not what was kept."""
        self._tell()
        super().on_close()

    def shutdown(self) -> None:
        """See Celery's. The pool has ended by now, and what its last tasks told is kept."""
        self._tell()
        super().shutdown()

    def _tell(self) -> None:
        consumer: Any = self
        consumer._flush_events()


def _refusing(read: Callable[..., object]) -> Callable[..., object]:
    """The same, but for what cannot be read: that is gone from its list by then, and noted nowhere."""

    def reading(*args: Any, **kwargs: Any) -> object:
        try:
            return read(*args, **kwargs)
        except _BROKEN as error:
            _refuse(error)
            return None

    return reading


def _refuse(error: Exception) -> None:
    log.warning("message_refused", error=f"no message of Celery's: {error!r:.{_SHOWN}}")
