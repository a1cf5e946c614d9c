"""The supervisor that every `mattemill worker` is: starts Celery workers and restarts them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from pipeline.ledger import Taken
from workers.engine_record import EngineRecord
from workers.last_words import VARIABLE, LastWords, ending
from workers.lifecycle import LOST
from workers.metrics import Metrics

log = structlog.get_logger(__name__)
_EARLY_SECONDS = 30.0
_EARLY_DEATHS = 5
_GRACE = 40.0
_LOOK_SECONDS = 0.2
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
_OWN_ACT = (LOST, *(-number for number in _FAULTS))


@dataclass(frozen=True, slots=True)
class Command:
    """A worker module that a supervisor keeps running.

    Attributes:
        module: run with the argument, this process's id and, where there is a `record`, its file descriptor.
        argument: what it is to work with.
        environment: laid over this process's own.
        record: shared with the child; what it holds when the child crashed goes to `crashed`.
    """

    module: str
    argument: str
    environment: Mapping[str, str] = field(default_factory=dict)
    record: EngineRecord | None = None


class Supervisor:
    """Runs worker modules as children of this process until told to stop, or until none of a module can be kept.

    The first signal lets the children end what they work on; QUIT, and any signal after the first, is passed on as
    QUIT: they leave in seconds.

    Args:
        commands: one for each child.
        crashed: gets what was in the engine of a child that left by its own act, by a fault or with exit code 70, and
            the engine's name.
        backoff: seconds before the second start after early deaths; doubled at each further one.
        metrics: counts deaths.
        grace: seconds that a child may take to end; then it is killed.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        crashed: Callable[[Sequence[Taken], str], object] = lambda batch, engine: None,
        backoff: float = 1.0,
        metrics: Metrics | None = None,
        grace: float = _GRACE,
    ) -> None:
        self._commands = commands
        self._crashed = crashed
        self._backoff = backoff
        self._metrics = metrics or Metrics()
        for command in commands:
            self._metrics.watches(command.module)
        self._stop = threading.Event()
        self._grace = grace
        self._told = False
        self._haste = False
        self._kept = Counter(command.module for command in commands)
        self._giving_up = threading.Lock()

    def run(self) -> int:
        """Run until told to stop; 2 when a child could not start, was given up or had to be killed, else 0."""
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(name, self._tell)
        parent = os.getppid()
        results: list[int] = [0] * len(self._commands)
        threads = [
            threading.Thread(target=self._keep, args=(index, results), name=f"child-{index}")
            for index in range(len(self._commands))
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not self._told:
            if os.getppid() != parent:  # whoever started us is gone
                break
            time.sleep(_LOOK_SECONDS)
        self._stop.set()
        for thread in threads:
            thread.join()
        return max(results)

    def _tell(self, number: int, _: object) -> None:
        # No event: its lock may be held by this very thread, in its own wait or in the handler of the signal before.
        self._haste = self._told or number == signal.SIGQUIT
        self._told = True

    def _keep(self, index: int, results: list[int]) -> None:
        """Start a child, and again when it dies; from a thread that lives as long as the process matters."""
        command, deaths, words = self._commands[index], 0, LastWords()
        while not self._stop.is_set():
            words.forget()
            started, finished = time.monotonic(), _finished(command)
            child = _start(command, words)
            while child.poll() is None and not self._stop.wait(0.1):
                pass
            if self._stop.is_set():
                results[index] = self._end(command, child)
                return
            reason = ": ".join(filter(None, [ending(child.returncode), words.read()]))
            said = {"command": command.module, "argument": command.argument, "reason": reason}
            if child.returncode == 2:  # it has said why it cannot start
                if len(self._commands) > 1:
                    log.error("worker_given_up", **said, status=2)
                results[index] = 2
                self._give_up(command)
                return
            early = time.monotonic() - started < _EARLY_SECONDS and _finished(command) == finished
            deaths = deaths + 1 if early else 1
            self._metrics.died(command.module)
            log.warning("worker_ended", **said, status=child.returncode, deaths=deaths)
            if command.record is not None:
                self._judge(command.record, child.returncode)
            if deaths >= _EARLY_DEATHS:
                log.error("worker_given_up", **said, status=child.returncode, deaths=deaths)
                results[index] = 2
                self._give_up(command)
                return
            self._stop.wait(min(self._backoff * 2.0 ** (deaths - 1), 30))

    def _give_up(self, command: Command) -> None:
        """The other roles would run on as if all were well: whoever started them has to see that one is missing."""
        with self._giving_up:
            self._kept[command.module] -= 1
            if not self._kept[command.module]:
                self._stop.set()

    def _judge(self, record: EngineRecord, status: int) -> None:
        """Killing a worker from outside says nothing of its images; a fault or a lost engine does."""
        batch, engine = record.read()
        record.leave()
        if not batch or status not in _OWN_ACT:
            return
        try:
            log.warning("suspects", keys=[one.item.key for one in batch], outcome=self._crashed(batch, engine))
        except Exception as error:  # noqa: BLE001 - Redis may be away: the ledger takes the images back all the same
            log.warning("suspects_unreported", error=str(error))

    def _end(self, command: Command, child: subprocess.Popen[bytes]) -> int:
        """Tell a child to stop, and see to it that it does; 2 when it had to be killed."""
        said = {"command": command.module, "argument": command.argument}
        child.terminate()
        log.info("worker_stopping", **said, grace=self._grace)
        deadline, hastened = time.monotonic() + self._grace, False
        while child.poll() is None:
            if self._haste and not hastened:
                hastened = True
                child.send_signal(signal.SIGQUIT)
                log.info("worker_hastened", **said)
            if time.monotonic() > deadline:
                child.kill()
                child.wait()
                log.error("worker_killed", **said, grace=self._grace)
                return 2
            time.sleep(0.05)
        return 0


def _finished(command: Command) -> int:
    """Batches that the children of a command have finished so far."""
    return command.record.finished if command.record is not None else 0


def _start(command: Command, words: LastWords) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", command.module, command.argument, str(os.getpid())]
    fds = [words.fileno()]
    if command.record is not None:
        fds.append(command.record.fileno())
        arguments.append(str(command.record.fileno()))
    # By default every thread may get a heap of its own, and what each has freed is of use to no other. OpenBLAS starts
    # threads for each core: nothing here uses them; a core's cost 180 MB of the address space that a child may have.
    lean = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
    environment = {**lean, **os.environ, **command.environment, VARIABLE: str(words.fileno())}
    return subprocess.Popen(arguments, env=environment, pass_fds=fds)
