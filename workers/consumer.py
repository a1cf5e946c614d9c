"""Celery's consumer, that outlives a message which is none."""

from collections.abc import Callable
from typing import Any

import structlog
from celery.worker.consumer import Consumer as CeleryConsumer

log = structlog.get_logger()
_SHOWN = 200


class Consumer(CeleryConsumer):
    """Refuses whatever Celery cannot read; without it a broken body (text where bytes are promised) ends the worker."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[object], None]:
        """The callback for one message; see Celery's."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: object) -> None:
            try:
                handle(message)
            except (TypeError, ValueError, LookupError, AttributeError) as error:
                log.warning("message_refused", error=f"no message of Celery's: {error!r:.{_SHOWN}}")
                message.reject_log_error(log, self.connection_errors)  # type: ignore[attr-defined]

        return on_task_received
