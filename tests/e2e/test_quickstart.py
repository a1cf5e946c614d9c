"""The quick start, typed line by line as it stands, in English and in Chinese (which has the same commands)."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.command_line import MARK, left_behind
from tests.conftest import ROOT, WaitUntil
from tests.processes import photo

PAGE = ROOT / "docs" / "quickstart.md"
OPERATE = ROOT / "docs" / "operate.md"
ELSEWHERE = {  # what other tests type, or this machine's owner has done
    "python3 -m venv mattemill && . mattemill/bin/activate", "pip install '.[embedded]'",
    "mattemill demo", "mattemill demo --photos DIR",
}  # fmt: skip


def lines(page: Path) -> list[str]:
    """Every line of the page's blocks, without its comment."""
    found = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in found for text in block.splitlines() if (line := re.sub(r"\s+#.*", "", text).strip())]


class Terminal:
    """Types lines of the docs into a shell, with the values of this machine for those that the reader has to know."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.exported: list[str] = []
        self.environment = environment
        program = folder / "bin" / "mattemill"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m producer.commands "$@"\n')
        program.chmod(0o755)
        self.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"

    def _script(self, line: str) -> list[str]:
        return ["bash", "-c", "\n".join([*self.exported, f"exec {line}"])]

    def type(self, line: str, **known: str) -> "subprocess.CompletedProcess[str]":
        for word, value in known.items():
            line = re.sub(rf"\b{word}\b", value, line)
        return subprocess.run(
            self._script(line), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=200,
            check=False,
        )  # fmt: skip

    @contextmanager
    def leave_running(self, line: str) -> Iterator["subprocess.Popen[str]"]:
        log = self.folder / f"{re.sub(r'[^a-z]+', '-', line)}.log"
        with log.open("w") as file:
            child = subprocess.Popen(
                self._script(line), cwd=self.folder, env=self.environment, text=True, stdout=file,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield child
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(90)


@pytest.mark.timeout(600)
def test_every_line_of_the_quick_start_does_what_it_says(
    alone: dict[str, str], tmp_path: Path, wait_until: WaitUntil
) -> None:
    todo = [line for line in lines(PAGE) if line not in ELSEWHERE]
    terminal = Terminal(tmp_path, alone)

    def next_line(starts: str) -> str:
        assert todo[0].startswith(starts), (starts, todo)
        return todo.pop(0)

    with ExitStack() as stack:
        pictures = tmp_path / "pictures"
        for number, name in enumerate(("shoes/a.jpg", "2026-11-23/b.jpg", "2026-11-23/c.jpg")):
            (pictures / name).parent.mkdir(parents=True, exist_ok=True)
            (pictures / name).write_bytes(photo(number))
        line = next_line("mattemill up --photos DIR").replace("DIR", "pictures")
        up = stack.enter_context(terminal.leave_running(line))
        printed = tmp_path / "mattemill-up-photos-pictures.log"
        wait_until(lambda: up.poll() is not None or "Ctrl-C" in printed.read_text(), 150)
        assert up.poll() is None, printed.read_text()
        terminal.exported = re.findall(r"^export .*$", printed.read_text(), re.MULTILINE)
        values = dict(shlex.split(line)[1].split("=", 1) for line in terminal.exported)

        swept = terminal.type(next_line("mattemill sweep s3://photos/ --to s3://cutouts/ --wait"))
        assert swept.returncode == 0, swept.stdout + swept.stderr
        assert "listed 3 = done 3 + skipped 0 + failed 0" in swept.stdout
        (run,) = {row["run"] for row in json.loads(terminal.type("mattemill status --json").stdout)}
        watched = terminal.type(next_line("mattemill status --watch"))
        assert watched.returncode == 0, watched.stdout + watched.stderr
        failures = terminal.type(next_line("mattemill failures RUN"), RUN=run)
        assert failures.returncode == 0, failures.stdout + failures.stderr
        reported = terminal.type(next_line("mattemill report RUN -o report.html"), RUN=run)
        assert reported.returncode == 0, reported.stderr
        assert run in (tmp_path / "report.html").read_text()
        proof = [line for line in lines(OPERATE) if line.startswith("mattemill verify")]
        assert len(proof) == 1
        verified = terminal.type(proof[0], RUN=run)
        assert verified.returncode == 0, verified.stdout + verified.stderr

        # "On each machine": the variables that the page names are set to the servers that run here.
        named = [word.split("=")[0] for line in todo[:3] for word in shlex.split(line)[1:]]
        assert [next_line("export ").split()[0] for _ in range(3)] == ["export"] * 3
        assert set(named) <= set(values)
        terminal.exported = [f"export {name}={shlex.quote(values[name])}" for name in named]
        fetched = terminal.type(next_line("mattemill model fetch u2netp"))
        assert fetched.returncode == 0, fetched.stderr
        on_gpu = next_line("mattemill worker all")
        if shutil.which("nvidia-smi") is None:
            without = terminal.type(on_gpu)
            assert without.returncode == 2, without.stderr
            assert "--devices cpu" in without.stderr  # it says what the page says
        stack.enter_context(terminal.leave_running(f"{on_gpu} --devices cpu"))
        checked = terminal.type(next_line("mattemill doctor s3://photos/ s3://cutouts/"))
        assert checked.returncode == 0, checked.stdout
        again = terminal.type(next_line("mattemill sweep s3://photos/2026-11-23/ --to s3://cutouts/day/ --wait --json"))
        assert again.returncode == 0, again.stdout + again.stderr
        summary = json.loads(again.stdout)
        assert (summary["listed"], summary["done"], summary["failed"]) == (2, 2, 0)
        assert todo == []
    wait_until(lambda: left_behind(alone[MARK]) == [], 60)
