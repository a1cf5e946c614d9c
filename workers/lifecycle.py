"""How a worker process begins, and how it ends with its parent."""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable

from pipeline.errors import MattemillError
from pipeline.log import configure
from pipeline.settings import Settings, load_settings
from workers.last_words import say

_PR_SET_PDEATHSIG = 1
LOST = 70
"""Exit code of a worker whose engine is lost or stuck: it starts again, and the batch in the engine is suspect."""


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when the *thread* that started it is gone; only Linux has this.

    Args:
        parent: process id of the parent, where known: a parent that is gone already ends this process at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        sys.exit(1)


def silence_stdout() -> None:
    """Drop what Celery prints, its banner and its farewells: where nobody looks, only lines of the log are wanted."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def start(role: str, run: Callable[[str, Settings], None]) -> int:
    """The main function of `python -m workers.<role> ARGUMENT [PARENT]`; exit code 2 when it cannot start."""
    die_with_parent(int(sys.argv[2]) if len(sys.argv) > 2 else None)
    try:
        settings = load_settings()
        configure(settings, role=role, worker=f"{role}-{os.getpid()}@{socket.gethostname()}")  # as Flower calls it
        if not sys.stderr.isatty():
            silence_stdout()
        run(sys.argv[1], settings)
    except MattemillError as error:
        say(str(error))
        print(error, file=sys.stderr)  # noqa: T201 - the sentence for whoever started it
        return 2
    except Exception as error:
        say(f"{type(error).__name__}: {error}")
        raise
    return 0
