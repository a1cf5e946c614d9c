"""The process that loaders are forked from, seen from the GPU worker: what all loaders hold is in memory once."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection

from pipeline.errors import MattemillError
from workers.last_words import ending

_ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Forked:
    """A loader: its process id, that of the process it was forked from, and the pipe to it."""

    pid: int
    origin: int
    pipe: Connection


class Nursery:
    """Starts `python -m workers.loading` when a loader is wanted, and again when it is gone; its loaders go with it.

    PDEATHSIG follows the thread that starts a process: `fork` is for threads that live until `close`.

    Args:
        memory: file descriptor of what loaders write pixels to.
        size: of that, in bytes.
    """

    def __init__(self, memory: int, size: int) -> None:
        self._memory, self._size = memory, size
        self._lock = threading.Lock()
        self._process: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def fork(self) -> Forked:
        """Start a loader.

        Raises:
            MattemillError: when none can start.
        """
        ours, theirs = socket.socketpair()
        with self._lock, theirs, ours:
            if self._process is None or self._process[0].poll() is not None:
                self._end()
                self._start()
            answer = self._ask(b"fork", theirs)
            if answer is None or self._process is None:
                raise MattemillError(f"No loader can start: the process that forks them ended with {self._end()}")
            return Forked(answer, self._process[0].pid, Connection(ours.detach()))

    def end(self, loader: Forked) -> int | None:
        """Kill a loader, or ask what has become of it: its exit status; None when what it was forked from is gone."""
        with self._lock:
            if self._process is None or self._process[0].pid != loader.origin:
                return None
            status = self._ask(str(loader.pid).encode())
            if status is None:
                self._end()
            return status

    def close(self) -> None:
        """End the process, and with it all loaders."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_ANSWER_SECONDS)
        with theirs:
            numbers = os.getpid(), theirs.fileno(), self._memory, self._size
            process = subprocess.Popen(
                [sys.executable, "-m", "workers.loading", *map(str, numbers)],
                pass_fds=(theirs.fileno(), self._memory),
                stdin=subprocess.DEVNULL,
            )
        self._process = process, ours

    def _ask(self, what: bytes, pipe: socket.socket | None = None) -> int | None:
        if self._process is None:
            return None
        with contextlib.suppress(OSError):
            socket.send_fds(self._process[1], [what], [pipe.fileno()] if pipe is not None else [])
            if answer := self._process[1].recv(32):
                return int(answer)
        return None

    def _end(self) -> str:
        if self._process is None:
            return "nothing"
        process, control = self._process
        self._process = None
        control.close()
        try:
            return ending(process.wait(2))
        except subprocess.TimeoutExpired:
            process.kill()
            return ending(process.wait())
