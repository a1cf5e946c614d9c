"""What stands on a line of the log, and how many lines there are."""

import json
import subprocess
import sys
from unittest.mock import Mock

import pytest
import structlog

from pipeline.repeats import Repeats
from tests.conftest import ROOT


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def passes(repeats: Repeats, method: str, event: str, **values: object) -> bool:
    try:
        repeats(None, method, {"event": event, **values})
    except structlog.DropEvent:
        return False
    return True


def test_of_one_warning_and_code_only_so_many_are_written_a_minute() -> None:
    clock, say = Clock(), Mock()
    repeats = Repeats(2, say, clock)
    assert [passes(repeats, "warning", "matte_failed", code="truncated") for _ in range(5)] == [True] * 2 + [False] * 3
    assert passes(repeats, "warning", "matte_failed", code="too_large")
    assert passes(repeats, "exception", "encode_task_failed")
    assert not say.called
    clock.now = 61
    assert passes(repeats, "info", "encode")
    say.assert_called_once_with("warning", "matte_failed", "truncated", 3)
    assert passes(repeats, "warning", "matte_failed", code="truncated")


def test_what_is_no_warning_is_always_written() -> None:
    repeats = Repeats(1, Mock(), Clock())
    assert all(passes(repeats, method, "same") for _ in range(3) for method in ("info", "critical", "debug"))


def test_at_the_end_the_rest_is_said() -> None:
    say = Mock()
    repeats = Repeats(1, say, Clock())
    for _ in range(3):
        passes(repeats, "error", "report_failed")
    repeats.close()
    repeats.close()
    say.assert_called_once_with("error", "report_failed", "", 2)


PROGRAM = """
import structlog
from pipeline.log import configure
from pipeline.settings import load_settings
configure(load_settings(), role="gpu", worker="gpu-1@box")
log = structlog.get_logger("workers.test")
with structlog.contextvars.bound_contextvars(task="t-1"):
    for n in range(5):
        log.warning("matte_failed", run="r", key=f"{n}.jpg", code="truncated")
    log.info("matte", run="r", key="é.jpg")
"""


UNCAUGHT = """
import threading
from pipeline.log import configure
from pipeline.settings import load_settings
configure(load_settings(), role="gpu")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("on\\ntwo lines")
"""


def lines(program: str = PROGRAM, status: int = 0, **environment: str) -> list[dict[str, object]]:
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **environment}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == status
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_what_nobody_caught_is_a_line_too() -> None:
    thread, main = lines(UNCAUGHT, status=1)
    for line, error in ((thread, "ZeroDivisionError"), (main, "two lines")):
        assert (line["event"], line["level"], line["role"]) == ("uncaught", "critical", "gpu")
        assert error in str(line["exception"])


def test_a_log_that_goes_to_no_terminal_is_json_with_worker_task_run_and_key() -> None:
    *failed, made, left_out = lines(MATTEMILL_LOG_REPEATS="2")
    assert [line["key"] for line in failed] == ["0.jpg", "1.jpg"]
    for line in (*failed, made):
        assert (line["role"], line["worker"], line["task"], line["run"]) == ("gpu", "gpu-1@box", "t-1", "r")
        assert str(line["timestamp"]).endswith("Z")
    assert (made["key"], made["level"]) == ("é.jpg", "info")
    assert (left_out["event"], left_out["of"], left_out["code"]) == ("lines_left_out", "matte_failed", "truncated")
    assert (left_out["lines"], left_out["level"], left_out["worker"]) == (3, "warning", "gpu-1@box")


def test_without_a_limit_every_line_is_there() -> None:
    assert len(lines(MATTEMILL_LOG_REPEATS="0")) == 6


@pytest.mark.parametrize("level", ["warning", "error"])
def test_the_level_is_one_setting(level: str) -> None:
    assert len(lines(MATTEMILL_LOG_LEVEL=level)) == (5 if level == "warning" else 0)
