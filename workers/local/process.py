"""A child process that ends with its parent, whatever ends the parent."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import SetupError

# Runs in the child before the real program. A preexec_fn would run Python between fork and exec, where a lock
# held by another thread of the parent hangs the child; this is a fresh interpreter. 1 is PR_SET_PDEATHSIG.
_STUB = """
import ctypes, os, signal, sys
parent, death, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
signal.pthread_sigmask(signal.SIG_SETMASK, [])
if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(1, death, 0, 0, 0) != 0:
    sys.exit("prctl failed: " + os.strerror(ctypes.get_errno()))
if os.getppid() != parent:
    sys.exit("the parent is gone")
try:
    os.execvp(program[0], program)
except OSError as error:
    sys.exit(f"cannot start {program[0]}: {error.strerror}")
"""
_POLL = 0.02
_TAIL = 2000


class StartError(SetupError):
    """A child ended before it was ready; the message has what it printed last."""


class Child:
    """A program that runs until `stop`, or until its parent is gone.

    It gets a session of its own, so Ctrl-C in the terminal reaches the parent alone, which stops its children
    in order. When the parent dies without a word (kill -9, out of memory) the kernel sends `death_signal`.

    Limits: the kernel watches the *thread* that called this, not the process, so call it from one that lives
    as long as the process does (the main thread). Only Linux has this; elsewhere a killed parent leaves its
    children behind. Programs that change their user id lose the signal. Grandchildren are not covered, unless
    the child does the same.

    Args:
        argv: program and arguments. Anyone on the machine can read them: no secrets.
        name: what to call it in messages.
        log: file that receives the program's output; appended to.
        cwd: working directory.
        env: the whole environment of the child; None passes the parent's on.
        stdin: what the child reads on its standard input. Must fit a pipe (64 KB) unless it reads at once.
        death_signal: what the kernel sends when the parent dies. SIGKILL cannot be ignored; SIGTERM lets the
            program tidy up.

    Attributes:
        name: as given.
        log: as given.

    Raises:
        SetupError: when the log cannot be written or no process can be made.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        name: str,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.log = log
        self._asked = False
        stub = [sys.executable, "-I", "-S", "-c", _STUB, str(os.getpid()), str(int(death_signal))]
        try:
            with log.open("ab") as output:
                self._log_start = output.tell()
                self._process = subprocess.Popen(
                    [*stub, *argv],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=None if env is None else dict(env),
                    start_new_session=True,
                )
        except OSError as error:
            raise SetupError(
                f"{name} cannot be started: {error.strerror or error}.", "look at free disk space and memory"
            ) from error
        try:
            self._feed(stdin)
        except BaseException:
            self.kill()
            raise

    def _feed(self, stdin: bytes) -> None:
        pipe = self._process.stdin
        if pipe is None:
            raise RuntimeError("the child was started without a pipe")
        # A child that is dead already says why in its log; poll() will show it.
        with contextlib.suppress(BrokenPipeError), pipe:
            pipe.write(stdin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id; also the id of its process group and session."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status (negative: a signal), or None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """Return the last lines that this child has printed; "" when nothing can be read."""
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                start = log.seek(max(self._log_start, size - _TAIL))
                if start > self._log_start:
                    log.readline()  # the rest of a line
                return log.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def terminate(self) -> None:
        """Send SIGTERM, once: to a worker a second one says to hurry. Does not wait; idempotent."""
        if not self._asked and self.poll() is None:
            self._asked = True
            self._process.terminate()

    def stop(self, grace: float = 10) -> None:
        """End the child: SIGTERM, then SIGKILL to its whole group after `grace` seconds. Idempotent."""
        self.terminate()
        if self.poll() is not None:
            return
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()
        except BaseException:  # a second Ctrl-C: no more patience
            self.kill()
            raise

    def kill(self) -> None:
        """End the child and its process group at once. Idempotent."""
        if self.poll() is not None:
            return
        # Not yet waited for, so its id cannot belong to anybody else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()  # before the stub's setsid there is no such group yet
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)


def wait_ready(child: Child, is_ready: Callable[[], bool], timeout: float) -> None:
    """Return as soon as `is_ready()` is true.

    Raises:
        StartError: when the child ends before that.
        SetupError: when `timeout` seconds pass before that.
    """
    deadline = time.monotonic() + timeout
    while child.poll() is None:
        if is_ready():
            return
        if time.monotonic() > deadline:
            raise SetupError(f"{child.name} gave no answer within {timeout:g} s{_said(child)}", "try again")
        time.sleep(_POLL)
    raise StartError(
        f"{child.name} ended while it started (exit status {child.poll()}){_said(child)}",
        _hint(child.output()),
    )


def _said(child: Child) -> str:
    output = child.output()
    return f"; it printed: {output}" if output else "; it printed nothing."


def _hint(output: str) -> str:
    text = output.lower()
    if "no space left" in text:
        return "the disk is full: free some space, or set TMPDIR to a directory that has it"
    if "in use" in text or "not available" in text:
        return "another program took its port: try again"
    if "permission denied" in text or "read-only file system" in text:
        return "its directory cannot be written: set TMPDIR to one that can"
    return "try again; if it stays so, report what it printed"
