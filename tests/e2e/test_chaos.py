"""A short bad day: see `python -m tests.chaos` for the long one."""

from pathlib import Path

import pytest

from tests.chaos import faults
from tests.chaos.day import Day, live_through
from tests.chaos.kills import Kills
from tests.chaos.system import System

QUICK = {
    "MATTEMILL_HELD_TIMEOUT": "4",
    "MATTEMILL_WAITING_TIMEOUT": "4",
    "MATTEMILL_TOUCH_INTERVAL": "1",
}
ARROWS = (
    "worker:feed:after:self",
    "workers.gpu:hand_over:after:self",
    "workers.loading:get:after:self",
    "workers.cpu:put:after:self",
    "workers.cpu:done:after:parent",
    "workers.finisher:put:after:self",
)


def several(day: Day) -> None:
    """A kill at six arrows; in between Redis dies, connections are cut, S3 is sick, messages come twice."""
    Kills(3, ARROWS[:3])(day)
    faults.redis_killed(day, times=1)
    Kills(2, ARROWS[3:5])(day)
    faults.s3("503", 0.3, 3)(day)
    faults.s3("truncate", 0.3, 2, ("GET",))(day)
    faults.connections_cut(day, times=2)
    faults.messages_doubled(day, times=3)
    Kills(1, ARROWS[5:])(day)


@pytest.mark.timeout(300)
def test_whatever_breaks_every_picture_is_there_once_and_right(tmp_path: Path) -> None:
    with System(tmp_path, 200, QUICK) as system:
        line = live_through(system, "several", 200, 7, several)
    assert line.ended
    found = line.audit
    assert (found.lost, found.doubled, found.wrong) == (0, 0, [])
    assert (found.listed, found.done + found.failed) == (200, 200), found.reasons
    assert line.times >= 10, line.notes
