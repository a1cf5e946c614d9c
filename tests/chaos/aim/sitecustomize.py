"""Lets a process die at a place that a test aims at; Python imports this at the start of every process of a test.

In the folder CHAOS_AIM a file `<process>:<place>:<when>:<victim>` is one shot: the first process of that name that
comes to that place removes the file and kills the victim with SIGKILL. A process is called by its module, or by its
command (`worker`, `sweep`, `beat`); places are the ledger's functions, `publish`, and `get` and `put` of the object
store, `offer` and `copy` (taking one) of the cache of photos; when is `before` or `after`; the victim is `self` or
`parent`.

The file CHAOS_CLOCK holds by how many seconds `time.time` lies; it may change at any time. (libfaketime 0.9.10 is no
way: under it `time.sleep` of Python 3.11 fails.)
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MODULES = ("workers.gpu", "workers.cpu", "workers.loading", "workers.finisher")
_LOOK_SECONDS = 0.2
_COMMANDS = ("worker", "sweep", "sweeps", "beat")


def _name(arguments: list[str]) -> str:
    for module in _MODULES:
        if module in arguments:
            return module
    if "producer.commands" in arguments:
        command = arguments[arguments.index("producer.commands") + 1 :][:1]
        return command[0] if command and command[0] in _COMMANDS else ""
    return ""


def _arm(folder: Path, name: str) -> None:
    import workers.app
    from pipeline.ledger.ledger import Ledger
    from pipeline.s3 import S3Store
    from workers.source_cache import SourceCache

    def shoot(place: str, when: str) -> None:
        for victim in ("self", "parent"):
            try:
                (folder / f"{name}:{place}:{when}:{victim}").unlink()
            except FileNotFoundError:
                continue
            os.kill(os.getpid() if victim == "self" else os.getppid(), signal.SIGKILL)

    def around(work: Callable[..., Any], place: Callable[[tuple[Any, ...]], str]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            shoot(place(args), "before")
            answer = work(*args, **kwargs)
            shoot(place(args), "after")
            return answer

        return watched

    Ledger._call = around(Ledger._call, lambda args: str(args[1]))  # type: ignore[method-assign]
    Ledger.create = around(Ledger.create, lambda args: "create")  # type: ignore[method-assign]
    workers.app.publish = around(workers.app.publish, lambda args: "publish")
    S3Store.get = around(S3Store.get, lambda args: "get")  # type: ignore[method-assign]
    S3Store.put = around(S3Store.put, lambda args: "put")  # type: ignore[method-assign]
    SourceCache.offer = around(SourceCache.offer, lambda args: "offer")  # type: ignore[method-assign]
    SourceCache.take = around(SourceCache.take, lambda args: "copy")  # type: ignore[method-assign]


def _lie(file: Path) -> None:
    true, true_ns = time.time, time.time_ns
    ahead, looked = 0.0, -1.0

    def lie() -> float:
        nonlocal ahead, looked
        if time.monotonic() - looked > _LOOK_SECONDS:
            looked = time.monotonic()
            with contextlib.suppress(OSError, ValueError):
                ahead = float(file.read_text())
        return ahead

    time.time = lambda: true() + lie()
    time.time_ns = lambda: true_ns() + int(lie() * 1e9)


if os.environ.get("CHAOS_CLOCK"):
    _lie(Path(os.environ["CHAOS_CLOCK"]))
if os.environ.get("CHAOS_AIM") and _name(sys.orig_argv):
    _arm(Path(os.environ["CHAOS_AIM"]), _name(sys.orig_argv))
