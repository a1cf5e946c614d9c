"""Whether the worker on this host works: `python -m workers.health ROLE [COUNT]`, for container health checks.

The question goes through Redis to the Celery worker's event loop and back, so a yes says that the worker is connected
and takes messages; for the CPU role also that some CPU worker keeps house. It says nothing of images: engines, loaders
and encode children have watchdogs of their own. Exit code 0: yes, 1: no (a sentence says why), 2: wrong arguments.
"""

import socket
import sys
from collections.abc import Callable
from typing import cast

from pipeline.errors import MattemillError, SetupError
from pipeline.ledger import LEADER, check, connect
from pipeline.settings import Settings, load_settings
from workers.app import make_app

_SECONDS = 5.0
_ROLES = ("gpu", "cpu")
_GLOB = cast(Callable[..., object], "glob")  # kombu takes a name, whatever Celery's types say


def look(settings: Settings, role: str, count: int, host: str) -> str:
    """What was found, in one sentence.

    Args:
        settings: name the Redis server.
        role: "gpu" or "cpu".
        count: workers of this role that must answer, one for each device.
        host: this machine's or container's name, as the workers know it.

    Raises:
        SetupError: when it is not well.
    """
    client = connect(settings)
    try:
        check(client, settings)
        led = client.exists(LEADER) == 1
    finally:
        client.close()
    names = _answers(settings, role, count, host)
    if len(names) < count:
        raise SetupError(f"{len(names)} of {count} {role} workers on {host} answer.", "look at the log of the worker")
    if role == "cpu" and not led:
        raise SetupError("Nobody keeps house: runs do not move.", "look at the log for housekeeping_failed")
    return f"{', '.join(names)}: well"


def _answers(settings: Settings, role: str, count: int, host: str) -> list[str]:
    app = make_app(settings)
    try:
        answers = app.control.broadcast(
            "ping", reply=True, timeout=_SECONDS, limit=count, pattern=f"{role}-*@{host}", matcher=_GLOB
        )
    finally:
        app.close()
    return sorted(name for answer in answers or [] for name in answer)


def main() -> int:
    """`python -m workers.health ROLE [COUNT]`."""
    role, count = (*sys.argv[1:3], "1")[:2] if len(sys.argv) in (2, 3) else ("", "")
    if role not in _ROLES or not count.isdigit():
        print("usage: python -m workers.health gpu|cpu [COUNT]", file=sys.stderr)  # noqa: T201
        return 2
    try:
        print(look(load_settings(), role, int(count), socket.gethostname()))  # noqa: T201 - Docker keeps what it prints
    except MattemillError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
