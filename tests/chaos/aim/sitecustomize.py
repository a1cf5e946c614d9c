"""Lets a process die at a place that a test aims at; Python imports this at the start of every process of a test.

In the folder CHAOS_AIM a file `<process>:<place>:<when>:<victim>` is one shot: the first process of that name that
comes to that place removes the file and kills the victim with SIGKILL. A process is called by its module, or by its
command (`worker`, `sweep`, `beat`); places are the ledger's functions, `publish`, and `get` and `put` of the object
store; when is `before` or `after`; the victim is `self` or `parent`.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MODULES = ("workers.gpu", "workers.cpu", "workers.loading", "workers.finisher")
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


if os.environ.get("CHAOS_AIM") and _name(sys.orig_argv):
    _arm(Path(os.environ["CHAOS_AIM"]), _name(sys.orig_argv))
