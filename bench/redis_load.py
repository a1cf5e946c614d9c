"""What each process asks of Redis, told by its connections."""

import contextlib
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import psutil
import redis

Seen: TypeAlias = "dict[tuple[str, str], Load]"
"""By role and connection."""


@dataclass(frozen=True)
class Load:
    """Commands that Redis carried out, those within scripts included, and the bytes that it received and sent."""

    commands: int = 0
    received: int = 0
    sent: int = 0

    def __add__(self, other: "Load") -> "Load":
        return Load(self.commands + other.commands, self.received + other.received, self.sent + other.sent)

    def __sub__(self, other: "Load") -> "Load":
        return Load(self.commands - other.commands, self.received - other.received, self.sent - other.sent)


def family(role: str, pid: int, children: str) -> dict[int, str]:
    """The roles of a process and of all that it has started."""
    return {**{child.pid: children for child in psutil.Process(pid).children(recursive=True)}, pid: role}


def ports(roles: Mapping[int, str]) -> dict[int, str]:
    """The role of every TCP port that these processes hold.

    Args:
        roles: by process id; a parent after its children, which hold its connections open too.
    """
    found: dict[int, str] = {}
    for pid, role in roles.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {one.laddr.port: role for one in psutil.Process(pid).net_connections("tcp") if one.laddr}
    return found


def look(client: redis.Redis, roles: Mapping[int, str]) -> Seen:
    """What every connection of these processes has asked so far; Valkey 8 or newer counts by connection."""
    role_of = ports(roles)
    seen: Seen = {}
    for one in client.client_list():
        role = role_of.get(int(one["addr"].rpartition(":")[2]))
        if role is not None:
            seen[role, one["id"]] = Load(int(one["tot-cmds"]), int(one["tot-net-in"]), int(one["tot-net-out"]))
    return seen


def between(before: Seen, after: Seen) -> dict[str, Load]:
    """What each role has asked from one look to the next; connections that were closed meanwhile are lost."""
    asked: dict[str, Load] = {}
    for (role, connection), load in after.items():
        asked[role] = asked.get(role, Load()) + load - before.get((role, connection), Load())
    return asked


@contextmanager
def overheard(client: redis.Redis) -> Iterator[dict[int, Counter[str]]]:
    """Counts the commands that clients send, by their port, while the context lasts; a script is one EVALSHA.

    This is Redis's MONITOR: it costs the server half its speed, so time nothing meanwhile.
    """
    heard: dict[int, Counter[str]] = {}
    end = secrets.token_hex(8)
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]

        def listen() -> None:
            for said in monitor.listen():
                name, _, rest = str(said["command"]).partition(" ")
                if name.upper() == "ECHO" and rest == end:
                    return
                if said["client_type"] != "lua":
                    heard.setdefault(int(said["client_port"] or 0), Counter())[name.upper()] += 1

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            client.echo(end)
            thread.join()
