"""Valkey and S3 on this machine, started and stopped as one."""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import SetupError
from workers.local.seaweed import Seaweed, remove_sockets
from workers.local.valkey import Valkey

_KEPT = "lock"
_TEMPORARY = "temporary"  # a lock of this name says that the directory may be removed
_NAME = re.compile(r"mattemill-\d+-\w+")
_MINIMUM_FREE = 256 << 20


class LocalStack:
    """Both embedded servers in one directory, as a context manager; start it from the main thread.

    Without `directory` they live in a temporary one, `mattemill-<pid>-…`, that is removed at the end. Its
    owner holds a lock in it for as long as it lives.

    What stays: after kill -9 of this process its servers are gone at once (on Linux), but the temporary
    directory and a few sockets in /tmp stay until the next `LocalStack` of the same user starts and finds the
    lock free. A `directory` that was given is kept with its data; the keys and ports are new at every start.

    Args:
        directory: where to keep the data; made if it is not there.

    Attributes:
        valkey: the Valkey server.
        seaweed: the S3 server.
        directory: where they live.
    """

    valkey: Valkey
    seaweed: Seaweed
    directory: Path

    def __init__(self, directory: Path | None = None) -> None:
        self._wanted = directory
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start both.

        Raises:
            SetupError: when a wheel is missing, the directory cannot be used, the disk is full or a server
                does not start.
        """
        with contextlib.ExitStack() as closing:
            self.directory = self._open_directory(closing)
            self._check_space()
            self.valkey = closing.enter_context(
                Valkey(_subdirectory(self.directory, "valkey"), persistent=self._wanted is not None)
            )
            self.seaweed = closing.enter_context(Seaweed(_subdirectory(self.directory, "seaweed")))
            self._closing = closing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def environment(self) -> dict[str, str]:
        """Return the variables by which Mattemill's processes find these servers.

        Lay them over the environment of a child. They hold secrets: never log them.
        """
        return {
            "MATTEMILL_REDIS_URL": self.valkey.url,
            "MATTEMILL_S3_ENDPOINT_URL": self.seaweed.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.seaweed.access_key,
            "AWS_SECRET_ACCESS_KEY": self.seaweed.secret_key,
            "AWS_REGION": "us-east-1",
            # A token of the user's own would be sent along with these keys, and refused.
            "AWS_SESSION_TOKEN": "",
            "AWS_SECURITY_TOKEN": "",
        }

    def _open_directory(self, closing: contextlib.ExitStack) -> Path:
        try:
            if self._wanted is None:
                remove_stale(Path(tempfile.gettempdir()))
                directory = Path(tempfile.mkdtemp(prefix=f"mattemill-{os.getpid()}-"))
                closing.callback(shutil.rmtree, directory, ignore_errors=True)
                lock = _take_lock(directory / _TEMPORARY)
            else:
                directory = self._wanted.expanduser().resolve()
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = _take_lock(directory / _KEPT)
        except OSError as error:
            place = self._wanted or "the temporary directory"
            raise SetupError(
                f"cannot write in {place}: {error.strerror or error}.",
                "choose a directory that can be written and has space; TMPDIR sets the temporary one",
            ) from error
        if lock is None:
            raise SetupError(f"{directory} is in use by another Mattemill.", "choose another directory")
        closing.callback(os.close, lock)
        return directory

    def _check_space(self) -> None:
        free, needed = shutil.disk_usage(self.directory).free >> 20, _MINIMUM_FREE >> 20
        if free < needed:
            raise SetupError(
                f"{self.directory} has {free} MB free; the local servers need {needed}.",
                "free some space, or set TMPDIR to a directory that has it",
            )


def remove_stale(root: Path) -> None:
    """Remove the temporary directories in `root` whose owner was killed; those of other users stay."""
    for directory in root.glob("mattemill-*"):
        if _NAME.fullmatch(directory.name):
            with contextlib.suppress(OSError):
                _remove_if_stale(directory)


def _remove_if_stale(directory: Path) -> None:
    status = directory.lstat()
    path = directory / _TEMPORARY
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or not path.exists():
        return
    lock = _take_lock(path)
    if lock is not None:
        remove_sockets(directory / "seaweed")
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _take_lock(path: Path) -> int | None:
    """Return a descriptor that holds this lock until it is closed, or None when another has it.

    A lock and not the process id in the name: containers that share /tmp do not see each other's processes.
    """
    if not path.exists():
        return _make_lock(path)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _make_lock(path: Path) -> int | None:
    # Locked before it has its name, so that no one who finds it can be quicker than its maker.
    descriptor, fresh = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        path.hardlink_to(fresh)
    except FileExistsError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        Path(fresh).unlink()
    return descriptor


def _subdirectory(directory: Path, name: str) -> Path:
    path = directory / name
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"cannot write in {directory}: {error.strerror}.", "choose a directory that can be written"
        ) from error
    return path
