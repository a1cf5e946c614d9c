"""Every fault, one after the other, and a table of what came of them.

    python -m tests.chaos [--images 2000] [--kills 50] [--seed 7] [--only WORDS]... [--json PATH]

Exit code 1 when a picture is lost, counted twice or wrong, or a run does not end. Where this user may have a mount
namespace (unshare), the servers' folders are small file systems that can be filled.

Caveats: one machine, one GPU worker with an engine that takes 5 ms a batch, pictures of 120 x 90 pixels: seconds say
how long the system takes to notice and to go on, with the timeouts that it is shipped with, not how fast it is.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.machine import facts
from bench.turns import caveats
from pipeline.log import configure
from pipeline.settings import load_settings
from tests.chaos import faults
from tests.chaos.day import Day, Line, live_through
from tests.chaos.kills import Kills
from tests.chaos.starters import STARTERS
from tests.chaos.system import System

_ALONE = "CHAOS_MOUNTS"
_DISKS = {"valkey": "768m", "tmp": "96m", "home": "16m"}
console = Console(width=140)


def days(images: int, kills: int) -> dict[str, tuple[int, Callable[[Day], None]]]:
    """Name, pictures and harm of every day."""
    few = min(images, 600)
    some = {
        "nothing": faults.nothing,
        "TERM to all workers in turn": faults.rolling_restart,
        "Redis killed and started": faults.redis_killed,
        "Redis paused for 20 s": faults.redis_paused,
        "Redis connections cut": faults.connections_cut,
        "S3 500, all, 20 s": faults.s3("500", 1.0, 20),
        "S3 503 SlowDown, half, 40 s": faults.s3("503", 0.5, 40),
        "S3 resets, a third, 30 s": faults.s3("reset", 0.33, 30),
        "S3 stalls of 30 s, 2 %, 40 s": faults.s3("stall", 0.02, 40),
        "S3 truncated bodies, a third, 30 s": faults.s3("truncate", 0.33, 30, ("GET",)),
        "Redis at its memory limit, 20 s": faults.memory_full,
        "S3 500, all, 2 min": faults.s3("500", 1.0, 120),
        "clocks jump by an hour and a day": faults.clocks_jump,
        "messages doubled and shuffled": faults.messages_doubled,
    }
    if os.environ.get(_ALONE):
        some["disk of Redis full, 20 s"] = faults.redis_disk_full
        some["disk of MATTEMILL_HOME full, workers restart"] = faults.home_full
        some["disk of TMPDIR full, to the end"] = faults.disk_full_at_the_end
    return {
        f"kill -9, {kills} times": (images, Kills(kills, hold=True)),
        **{name: (few, harm) for name, harm in some.items()},
    }


def table(lines: list[Line]) -> Table:
    """What a reader wants to know first: lost, doubled, wrong."""
    made = Table(title="chaos")
    for name in (
        "fault",
        "times",
        "listed",
        "done",
        "failed",
        "lost",
        "doubled",
        "wrong",
        "again",
        "recover s",
        "still s",
        "run s",
    ):
        made.add_column(name, justify="left" if name == "fault" else "right")
    for line in lines:
        found = line.audit
        numbers = (
            line.times,
            found.listed,
            found.done,
            found.failed,
            found.lost,
            found.doubled,
            len(found.wrong),
            found.again,
        )
        seconds = (line.recover, line.still, line.seconds)
        name = line.fault if line.ended else f"{line.fault} (did not end)"
        style = "" if line.good else "bold red"
        made.add_row(name, *map(str, numbers), *("-" if one is None else f"{one:.1f}" for one in seconds), style=style)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", action="append", default=[], help="faults whose names contain this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--logs", type=Path, help="copy what the processes said into this folder")
    asked = parser.parse_args()
    configure(load_settings(log_format="console", log_level="error"), role="chaos")
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, ExitStack() as closing:
        folder = Path(name)
        if os.environ.get(_ALONE) and not all(faults.mount(folder / one, size) for one, size in _DISKS.items()):
            os.environ.pop(_ALONE)
            console.print("disks cannot be filled here: mount is not allowed")
        for one in _DISKS if os.environ.get(_ALONE) else ():
            closing.callback(faults.unmount, folder / one)
        try:
            lines, broken = _run(folder, asked)
        finally:
            if asked.logs:
                subprocess.run(["cp", "-r", str(folder / "logs"), str(asked.logs)], check=False)
    console.print(table(lines))
    for line in lines:
        for sentence in (
            *line.notes,
            *line.audit.wrong[:5],
            *line.audit.repacked[:5],
            *(f"{n} {code}" for code, n in line.audit.reasons.items()),
        ):
            console.print(f"  {line.fault}: {sentence}", markup=False)
    if asked.json:
        asked.json.write_text(json.dumps(_answer(lines, broken, asked.seed), indent=2, ensure_ascii=False) + "\n")
    for fault in broken:
        console.print(f"  {fault}: no figures, see above", markup=False)
    return 0 if lines and not broken and all(line.good for line in lines) else 1


def _run(folder: Path, asked: argparse.Namespace) -> tuple[list[Line], list[str]]:
    def wanted(name: str) -> bool:
        return not asked.only or any(words in name for words in asked.only)

    lines: list[Line] = []
    broken: list[str] = []
    with System(folder, asked.images) as system:
        live_through(system, "warm", min(50, asked.images), asked.seed, faults.nothing)
        makers: dict[str, Callable[[], Line]] = {
            name: lambda name=name, images=images, harm=harm: live_through(system, name, images, asked.seed, harm)
            for name, (images, harm) in days(asked.images, asked.kills).items()
        }
        makers |= {
            name: lambda make=make: make(system, min(asked.images, 600), asked.seed) for name, make in STARTERS.items()
        }
        for name, make in makers.items():
            if not wanted(name):
                continue
            console.print(f"{time.strftime('%H:%M:%S')} {name}")
            try:
                lines.append(make())
            except Exception:  # noqa: BLE001 - the other days are still worth having
                traceback.print_exc()
                broken.append(name)
                continue
            console.print(table(lines[-1:]))
    return lines, broken


def _answer(lines: list[Line], broken: list[str], seed: int) -> dict[str, object]:
    return {
        "bench": "chaos",
        "machine": facts(),
        "seed": seed,
        "without_figures": broken,
        "faults": [{**asdict(line), "good": line.good} for line in lines],
        "caveats": caveats(__doc__),
    }


def _alone() -> None:
    """Go on in a mount namespace of our own, where that is allowed: what is mounted there goes with it."""
    if os.environ.get(_ALONE) is None:
        prefix = ["unshare", "--map-root-user", "--mount"]
        try:
            allowed = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            allowed = False
        os.environ[_ALONE] = "1" if allowed else ""
        if allowed:
            os.execvp(prefix[0], [*prefix, sys.executable, "-m", "tests.chaos", *sys.argv[1:]])


if __name__ == "__main__":
    _alone()
    sys.exit(main())
