"""What a worker says of its end, where it outlives the process: its supervisor names it as the reason."""

import contextlib
import os
import signal

VARIABLE = "MATTEMILL_LAST_WORDS_FD"
_BYTES = 2000


class LastWords:
    """A line of anonymous memory that a supervisor shares with one worker at a time."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("mattemill-last-words", os.MFD_CLOEXEC)

    def fileno(self) -> int:
        """For `pass_fds`, and as text for the child's environment variable `VARIABLE`."""
        return self._fd

    def read(self) -> str:
        """What the worker has said; "" when nothing."""
        return os.pread(self._fd, _BYTES, 0).decode(errors="replace")

    def forget(self) -> None:
        """Make room for the next worker."""
        os.ftruncate(self._fd, 0)


def say(reason: str) -> None:
    """Tell the supervisor why this process is about to end; without one, nobody is told."""
    with contextlib.suppress(OSError, ValueError):
        fd = int(os.environ.get(VARIABLE, ""))
        os.ftruncate(fd, 0)
        os.pwrite(fd, reason.encode()[:_BYTES], 0)


def ending(status: int) -> str:
    """How a process ended, in words, from what `Popen.returncode` says."""
    if status >= 0:
        return f"exit status {status}"
    names = {int(number): number.name for number in signal.Signals}
    return names.get(-status, f"signal {-status}")
