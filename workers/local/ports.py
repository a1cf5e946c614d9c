"""Free TCP ports on the loopback address."""

import random
import socket

from pipeline.errors import SetupError

LOOPBACK = "127.0.0.1"
# Below the range that the kernel takes ports for outgoing connections from (32768 and up on Linux), also with
# 10000 added. A port inside that range can be lost while its server restarts, to a client that tries to reach
# it: connecting to a closed port of the range now and then connects a socket to itself.
_FIRST, _LAST = 11_000, 22_700


def free_ports(count: int, *, offsets: tuple[int, ...] = (0,)) -> list[int]:
    """Return `count` different ports that nobody listens on at this moment, chosen at random.

    Args:
        count: how many.
        offsets: a port is free only when all of `port + offset` are.

    Raises:
        SetupError: when no free ports can be found.
    """
    found: list[int] = []
    candidates = random.sample(range(_FIRST, _LAST), min(count + 500, _LAST - _FIRST))
    for port in candidates:
        if all(is_free(port + offset) for offset in offsets):
            found.append(port)
            if len(found) == count:
                return found
    raise SetupError(f"no {count} free ports between {_FIRST} and {_LAST} on {LOOPBACK}.", "stop some")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
        return True
