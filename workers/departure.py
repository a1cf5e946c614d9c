"""How a worker that was told to stop leaves: it ends what it works on, for a while, and gives back the rest."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import cast

import structlog
from celery.signals import worker_ready

log = structlog.get_logger(__name__)
_SHARE = 0.75
"""Of the grace time, for what is in hand; the supervisor waits longer, so that a worker always leaves by itself."""
_HASTE_SECONDS = 3.0
_GIVE_BACK_SECONDS = 5.0
_LOOK_SECONDS = 0.1


class Departure:
    """Makes TERM, INT and QUIT of a Celery worker mean the same: pull no more, end what is in hand, leave with 0.

    Celery's cold shutdown works within the signal's handler: it waits there for tasks that may wait for a lock that the
    interrupted code holds, such as that of the event dispatcher, and hangs. TERM and INT may come doubled, from a
    terminal and from the supervisor; QUIT says that it is to be over in three seconds.

    Args:
        give_back: returns to the ledger what is in hand, and how many images those were.
        grace: seconds from the first signal until the supervisor loses patience.
        leave: ends the process at once with an exit code.
    """

    def __init__(self, give_back: Callable[[], int], grace: float, leave: Callable[[int], object] = os._exit) -> None:
        self._give_back = give_back
        self._patience = grace * _SHARE
        self._leave = leave
        self._deadline: float | None = None

    def install(self) -> None:
        """Take over the signals of the Celery worker that is to start, once it is ready."""

        @worker_ready.connect(weak=False)
        def ready(**_: object) -> None:
            drain = cast(Callable[[int, FrameType | None], object], signal.getsignal(signal.SIGTERM))

            def told(number: int, frame: FrameType | None) -> None:
                # A plain value, no event: its lock may be held by the very code that is interrupted.
                seconds = min(_HASTE_SECONDS, self._patience) if number == signal.SIGQUIT else self._patience
                deadline = time.monotonic() + seconds
                self._deadline = min(self._deadline or deadline, deadline)
                drain(number, frame)

            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, told)
            threading.Thread(target=self._watch, name="departure", daemon=True).start()

    def _watch(self) -> None:
        while self._deadline is None or time.monotonic() < self._deadline:
            time.sleep(_LOOK_SECONDS)
        # Redis may be away: the ledger takes back what is not given back.
        giving = threading.Thread(target=self._give, name="give back", daemon=True)
        giving.start()
        giving.join(_GIVE_BACK_SECONDS)
        self._leave(0)

    def _give(self) -> None:
        try:
            log.warning("left_unfinished", given_back=self._give_back())
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker has to leave
            log.warning("left_unfinished", error=str(error))
