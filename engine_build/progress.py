"""How far the builder is, from the nested phases that TensorRT tells of, and how it is told to stop."""

import threading
from collections.abc import Callable
from types import ModuleType


class Progress:
    """Takes a builder's phases, gives the share of the work done. TensorRT may call it from several threads.

    Args:
        report: takes the name of the newest phase and the share done, 0 to 1, which never falls.
    """

    def __init__(self, report: Callable[[str, float], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._phases: dict[str, tuple[str | None, int, float]] = {}  # name: parent, steps, steps done
        self._share = 0.0

    def cancel(self) -> None:
        """Make the builder give up at its next step."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether it was told to give up."""
        return self._cancelled.is_set()

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins; it is one step of its parent."""
        with self._lock:
            self._phases[phase] = (parent, max(steps, 1), 0.0)
            self._tell(phase)

    def step(self, phase: str, step: int) -> bool:
        """Step number `step` of a phase is done, counted from 0; False tells the builder to give up."""
        with self._lock:
            if phase in self._phases:
                parent, steps, _ = self._phases[phase]
                self._phases[phase] = (parent, steps, float(min(step + 1, steps)))
                self._tell(phase)
        return not self._cancelled.is_set()

    def finish(self, phase: str) -> None:
        """A phase is done."""
        with self._lock:
            parent = self._phases.pop(phase, (None, 1, 0.0))[0]
            if parent is None and not self._phases:
                self._share = 1.0
                self._report(phase, self._share)

    def _tell(self, newest: str) -> None:
        roots = [name for name, (parent, _, _) in self._phases.items() if parent not in self._phases]
        if roots:
            self._share = max(self._share, min(self._done(roots[0]), 0.999))
        self._report(newest, self._share)

    def _done(self, phase: str) -> float:
        _, steps, done = self._phases[phase]
        inner = [name for name, (parent, _, _) in self._phases.items() if parent == phase]
        return min((done + sum(self._done(name) for name in inner)) / steps, 1.0)


def monitor(module: ModuleType, progress: Progress) -> object:
    """What a builder's `progress_monitor` is set to: an object of a class that only exists once TensorRT is loaded."""

    def begin(self: object) -> None:
        module.IProgressMonitor.__init__(self)

    def phase_start(self: object, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        progress.start(phase_name, parent_phase, num_steps)

    def step_complete(self: object, phase_name: str, step: int) -> bool:
        return progress.step(phase_name, step)

    def phase_finish(self: object, phase_name: str) -> None:
        progress.finish(phase_name)

    methods = {
        "__init__": begin,
        "phase_start": phase_start,
        "step_complete": step_complete,
        "phase_finish": phase_finish,
    }
    made: object = type("Monitor", (module.IProgressMonitor,), methods)()
    return made
