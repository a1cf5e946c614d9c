"""Processor time and memory of processes with all that they have started."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from workers.local.process import Child


@contextlib.contextmanager
def workers(
    commands: list[list[str]], env: dict[str, str], log: Path, python: str = sys.executable
) -> Iterator[list[Child]]:
    """Run `python -m COMMAND` for each."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Child([python, "-m", *command], name=command[0], log=log, env=env))
            for command in commands
        ]


def cpu_seconds(children: list[Child]) -> float:
    """CPU time of this process and of all worker processes so far."""
    tree = Tree([child.pid for child in children])
    tree.look()
    return time.process_time() + tree.cpu_seconds


class Tree:
    """Some processes and all their descendants, those that have ended too.

    What a process did between the last look at it and its end is not counted.
    """

    def __init__(self, pids: list[int]) -> None:
        self._roots = pids
        self._cpu: dict[psutil.Process, float] = {}

    def look(self) -> None:
        """Find new processes, and note how far each one is."""
        found = set(self._cpu)
        for pid in self._roots:
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(pid)
                found |= {root, *root.children(recursive=True)}
        for process in found:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self._cpu[process] = times.user + times.system

    @property
    def cpu_seconds(self) -> float:
        """Of all processes until the last look."""
        return sum(self._cpu.values())

    def memory_mb(self) -> float:
        """Proportional memory of all that run now, in megabytes; costs processor time."""
        total = 0
        for process in self._cpu:
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total / 1e6

    def busiest(self, library: str, since: dict[psutil.Process, float]) -> psutil.Process:
        """Of the processes that have loaded a library, the one that has used most CPU time since an earlier `state`."""
        using = [process for process in self._cpu if _maps(process.pid, library)]
        return max(using, key=lambda process: self._cpu[process] - since.get(process, 0.0))

    def state(self) -> dict[psutil.Process, float]:
        """CPU time of each process at the last look."""
        return dict(self._cpu)

    def kill(self) -> None:
        """Kill whatever still runs."""
        for process in self._cpu:
            with contextlib.suppress(psutil.Error):
                process.kill()


def _maps(pid: int, library: str) -> bool:
    try:
        return library in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
