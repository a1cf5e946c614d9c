"""What keeps a worker running, and when it stops trying."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, WaitUntil

PROGRAM = """
import sys
from workers.supervisor import Command, Supervisor
from pipeline.log import configure
from pipeline.settings import load_settings
configure(load_settings())
commands = [Command("json.tool", argument) for argument in sys.argv[1:]]
sys.exit(Supervisor(commands, backoff=0.01, grace=2).run())
"""
IDLE = "import threading; threading.Event().wait()"


def supervise(body: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    module = folder / "child_of_test.py"
    module.write_text(body)
    program = PROGRAM.replace("json.tool", module.stem)
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{folder}", "MATTEMILL_LOG_FORMAT": "json"}
    command = [sys.executable, "-c", program, *(arguments or ("argument",))]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def lines(said: str, event: str) -> list[dict[str, object]]:
    """The lines of a log that tell of an event."""
    parsed = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line for line in parsed if line["event"] == event]


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


def test_when_none_of_a_module_is_left_the_others_end_too(tmp_path: Path, wait_until: WaitUntil) -> None:
    """Of two of a module one may be given up; with the last one the role is gone."""
    (tmp_path / "other_role.py").write_text(IDLE)
    body = f"""
import pathlib, sys, time
last = pathlib.Path({str(tmp_path)!r}, "last")
while sys.argv[1] == "second" and not last.exists():
    time.sleep(0.01)
sys.exit(2)
"""
    (tmp_path / "child_of_test.py").write_text(body)
    modules = "[Command('child_of_test', 'first'), Command('child_of_test', 'second'), Command('other_role', 'only')]"
    program = re.sub(r"commands = .*", f"commands = {modules}", PROGRAM)
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}", "MATTEMILL_LOG_FORMAT": "json"}
    parent = subprocess.Popen([sys.executable, "-c", program], env=env, stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(parent.stderr or ()))
    reader.start()
    try:
        wait_until(lambda: len(lines("".join(said), "worker_given_up")) == 1, 60)
        assert not lines("".join(said), "worker_stopping")
        (tmp_path / "last").touch()
        assert parent.wait(60) == 2
        reader.join()
        assert len(lines("".join(said), "worker_given_up")) == 2
        (stopped,) = lines("".join(said), "worker_stopping")
        assert stopped["command"] == "other_role"
    finally:
        parent.kill()
        reader.join()
        parent.communicate()


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


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        ("sys.exit(3)", "exit status 3: the card has fallen out"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV: the card has fallen out"),
        ("sys.exit(2)", "exit status 2: the card has fallen out"),
    ],
)
def test_a_child_is_given_up_with_the_reason_and_its_sibling_goes_on(
    death: str, reason: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    body = f"""
import os, signal, sys, threading
from pathlib import Path
from workers.last_words import say
if sys.argv[1] == "sick":
    say("the card has fallen out")
    {death}
Path({str(tmp_path)!r}, "well").touch()
threading.Event().wait()
"""
    parent, said = supervise(body, tmp_path, "sick", "well"), list[str]()
    reader = threading.Thread(target=lambda: said.extend(parent.stderr or ()))
    reader.start()
    try:
        wait_until(lambda: any("worker_given_up" in line for line in said), 60)
        wait_until((tmp_path / "well").exists, 60)
        (sibling,) = [one for one in psutil.Process(parent.pid).children() if one.status() != "zombie"]
        assert sibling.cmdline()[-2] == "well"
        parent.terminate()
        assert parent.wait(60) == 2
        reader.join()
        (given_up,) = lines("".join(said), "worker_given_up")
        assert (given_up["reason"], given_up["argument"]) == (reason, "sick")
        assert not sibling.is_running()
    finally:
        parent.kill()
        reader.join()
        parent.communicate()


def test_a_child_that_must_be_killed_is_told_by_the_exit_status(tmp_path: Path, wait_until: WaitUntil) -> None:
    body = f"""
import signal, threading
from pathlib import Path
for number in (signal.SIGTERM, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
Path({str(tmp_path)!r}, "deaf").touch()
threading.Event().wait()
"""
    parent = supervise(body, tmp_path)
    try:
        wait_until((tmp_path / "deaf").exists, 60)
        (child,) = psutil.Process(parent.pid).children()
        parent.terminate()
        _, said = parent.communicate(timeout=60)
        assert parent.returncode == 2
        assert len(lines(said, "worker_killed")) == 1
        assert not child.is_running()
    finally:
        parent.kill()
        parent.communicate()


@pytest.mark.parametrize("numbers", [["TERM", "TERM"], ["INT", "INT"], ["TERM", "QUIT"], ["QUIT"]])
def test_a_second_signal_or_a_quit_is_passed_on_as_quit(
    numbers: list[str], tmp_path: Path, wait_until: WaitUntil
) -> None:
    body = f"""
import os, signal, threading
from pathlib import Path
log = Path({str(tmp_path)!r}, "told")
signal.signal(signal.SIGTERM, lambda *_: log.open("a").write("TERM "))
signal.signal(signal.SIGQUIT, lambda *_: (log.open("a").write("QUIT "), os._exit(0)))
log.touch()
threading.Event().wait()
"""
    log = tmp_path / "told"
    parent = supervise(body, tmp_path)
    try:
        wait_until(log.exists, 60)
        for number in numbers:
            parent.send_signal(getattr(signal, f"SIG{number}"))
            wait_until(log.read_text, 60)
        _, said = parent.communicate(timeout=60)
        assert (parent.returncode, lines(said, "worker_killed")) == (0, [])
        # Python runs the handlers of signals that come at once by their numbers.
        assert log.read_text() in ("TERM QUIT ", "QUIT ")[: 3 - len(numbers)]
    finally:
        parent.kill()
        parent.communicate()
