"""What keeps a worker running, and when it stops trying."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, WaitUntil

PROGRAM = """
import sys
from workers.supervisor import Command, Supervisor
sys.exit(Supervisor([Command("json.tool", sys.argv[1])], backoff=0.01).run())
"""
IDLE = "import threading; threading.Event().wait()"


def supervise(body: str, folder: Path) -> subprocess.Popen[str]:
    module = folder / "child_of_test.py"
    module.write_text(body)
    program = PROGRAM.replace("json.tool", module.stem)
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{folder}", "MATTEMILL_LOG_FORMAT": "json"}
    return subprocess.Popen([sys.executable, "-c", program, "argument"], env=env, stderr=subprocess.PIPE, text=True)


def test_a_child_that_dies_early_again_and_again_is_given_up(tmp_path: Path) -> None:
    parent = supervise("import sys; print('no luck', file=sys.stderr); sys.exit(3)", tmp_path)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 2
    assert said.count("no luck") == 5


def test_a_child_that_cannot_start_is_not_tried_again(tmp_path: Path) -> None:
    parent = supervise("import sys; print('no GPU', file=sys.stderr); sys.exit(2)", tmp_path)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 2
    assert said.count("no GPU") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_is_passed_on_and_a_killed_child_is_replaced(number: int, tmp_path: Path, wait_until: WaitUntil) -> None:
    parent = supervise(IDLE, tmp_path)
    try:
        family = psutil.Process(parent.pid)
        wait_until(family.children)
        first = family.children()[0]
        first.kill()
        wait_until(lambda: [child for child in family.children() if child.pid != first.pid])
        second = next(child for child in family.children() if child.pid != first.pid)
        for _ in range(20):  # in a row: one must not be caught in the handler of the one before
            with contextlib.suppress(ProcessLookupError):
                parent.send_signal(number)
        assert parent.wait(60) == 0
        assert not second.is_running()
    finally:
        parent.kill()
        parent.communicate()
