"""Processes that are killed: at random instants, and aimed at each arrow of the data flow."""

import itertools
import time
from collections.abc import Callable, Iterable

import psutil

from tests.chaos.day import Day
from tests.chaos.system import kill, wait_until
from tests.proxy import Fault

ROLES = ("GPU worker", "GPU supervisor", "loader", "origin of loaders", "encode child", "encode parent", "leader")

# Who dies where: `tests/chaos/aim` fires. The way of one picture, from the ledger to its last acknowledgement.
ARROWS: dict[str, str] = {
    "worker:feed:before:self": "leader, before it feeds",
    "worker:feed:after:self": "leader, fed and not published",
    "worker:publish:after:self": "leader, published",
    "worker:reclaim:after:self": "leader, has taken back",
    "workers.gpu:take:before:self": "GPU worker, message pulled and not taken",
    "workers.gpu:take:after:self": "GPU worker, taken and not loaded",
    "workers.loading:get:before:self": "loader, before it fetches",
    "workers.loading:get:after:self": "loader, fetched and not decoded",
    "workers.loading:offer:after:self": "loader, copy kept and not answered",
    "workers.gpu:hand_over:before:self": "GPU worker, alphas ready and not handed over",
    "workers.gpu:hand_over:after:self": "GPU worker, handed over and not published",
    "workers.gpu:publish:after:self": "GPU worker, published and not acknowledged",
    "workers.cpu:take:before:self": "encode child, before it takes",
    "workers.cpu:take:after:self": "encode child, taken",
    "workers.cpu:take:after:parent": "encode parent, its child has taken",
    "workers.cpu:copy:after:self": "encode child, photo's copy taken or missed",
    "workers.cpu:put:before:self": "encode child, before the upload",
    "workers.cpu:put:after:self": "encode child, uploaded and not finished",
    "workers.cpu:put:after:parent": "encode parent, its child has uploaded",
    "workers.cpu:done:before:self": "encode child, before it finishes",
    "workers.cpu:done:after:self": "encode child, finished",
    "workers.cpu:done:after:parent": "encode parent, its child has finished",
    "workers.finisher:put:before:self": "finisher, before it writes",
    "workers.finisher:put:after:self": "finisher, manifest written, summary not",
}
_AIM_SECONDS = 40.0
_HOLD_SECONDS = 5.0


class Kills:
    """So many kills, spread over what is left of the run: one for each of `arrows`, the rest at random instants.

    An arrow that nobody came to in time is noted, and a random victim dies instead; those of the finisher come last.
    With `hold` uploads wait while more pictures are finished than the kills allow: the run outlasts the last kill.
    """

    def __init__(self, count: int, arrows: Iterable[str] = ARROWS, hold: bool = False) -> None:
        self._hold = hold
        self._allowed = 0
        self._last = [aim for aim in arrows if aim.startswith("workers.finisher")][:count]
        first = [aim for aim in arrows if aim not in self._last]
        self._plan = [*first, *itertools.islice(itertools.cycle(ROLES), count)][: count - len(self._last)]

    def __call__(self, day: Day) -> None:
        # The matte stage is ahead of the uploads: towards the end nobody is left there to kill.
        plan = sorted(self._plan, key=lambda victim: day.random.random() * (0.75 if _early(victim) else 1.0))
        begun, left = day.finished(), day.run.counts().listed - day.finished()

        def pace(method: str, path: str) -> Fault:
            deadline = time.monotonic() + _HOLD_SECONDS
            while method == "PUT" and day.finished() > self._allowed and time.monotonic() < deadline:
                time.sleep(0.05)
            return ""

        if self._hold:
            day.system.proxy.rule = pace
        for number, victim in enumerate(plan):
            self._allowed = begun + (number + 2) * left // (len(plan) + 3)
            # Spread over the run, but never idle: a run that stands still is harmed too.
            day.wait_for(begun + (number + 1) * left // (len(plan) + 3), 8)
            time.sleep(day.random.uniform(0, 0.4))
            if day.over():
                day.notes.append(f"{len(plan) - number} kills came too late")
                break
            if ":" not in victim or not _shoot(day, victim, _AIM_SECONDS, self._let_go):
                _kill_one(day, victim if ":" not in victim else day.random.choice(ROLES))
        day.system.proxy.rule = lambda method, path: ""
        for aim in self._last:
            _shoot(day, aim, 240, lambda: None)

    def _let_go(self) -> None:
        """While somebody is aimed at, uploads go on, if slowly: GPU workers pull nothing while encoding is behind."""
        self._allowed += 1


def _early(victim: str) -> bool:
    return victim.startswith(("workers.gpu", "workers.loading", "worker:", "GPU", "loader", "origin"))


def _shoot(day: Day, aim: str, patience: float, meanwhile: Callable[[], None]) -> bool:
    file = day.system.aims / aim
    file.touch()

    def fired() -> bool:
        meanwhile()
        return not file.exists() or day.over()

    wait_until(fired, patience, 0.02)
    try:
        file.unlink()
    except FileNotFoundError:
        day.harm(ARROWS[aim], lambda: None)
        return True
    day.notes.append(f"nobody came to: {ARROWS[aim]}")
    return False


def _kill_one(day: Day, role: str) -> None:
    """Somebody in this role, as soon as there is one: a killed one takes seconds to come back."""

    def there() -> bool:
        victims.extend(day.system.victims(role))
        return bool(victims)

    victims: list[psutil.Process] = []
    if wait_until(there, 60):
        victim = day.random.choice(sorted(victims, key=lambda one: one.pid))
        day.harm(role, lambda: kill(victim))
    else:
        day.notes.append(f"there was no {role} to kill")
