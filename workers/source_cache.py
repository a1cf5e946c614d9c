"""Photos that a loader has fetched, on the machine's disk until the encode child that needs them next takes them."""

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from pipeline.ids import ETag, Key
from pipeline.settings import Settings

log = structlog.get_logger(__name__)
_OLD_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_LOCK = "lock"
_OURS = re.compile(r"[0-9a-f]{40}(\.[0-9a-f]{8})?")
_FLOCK = "hhqqi4x"
"""The kernel's struct flock where a long has 64 bits: type, whence, start, length (0: to the end), process."""


class SourceCache:
    """A folder of photos in MATTEMILL_HOME, filled by loaders and emptied by encode children of the same machine.

    A copy saves the second GET of an image and nothing depends on it: one that is missing, or of another length, is
    fetched again. Copies are made only while a CPU worker lives that has the same folder (`open_for_taking`), up to
    about `source_cache_bytes`, and while so much of the disk stays free. What nobody takes within a minute is deleted.

    One object serves one thread. It may be made before a fork. Only Linux has the locks that it needs.

    Args:
        settings: say where, how much, and which S3 server is meant.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.home / "source-cache"
        self._most = settings.source_cache_bytes if sys.platform == "linux" else 0
        self._server = settings.s3_endpoint_url or ""
        self._used = 0
        self._looked = -_LOOK_SECONDS

    @contextmanager
    def open_for_taking(self) -> Iterator[None]:
        """Have copies made while the context lasts; the last one to leave deletes those that are left.

        Where the folder cannot be written there will be no copies, and the log says so.
        """
        if not self._most:
            yield
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._hold()
        except OSError as error:
            log.info("no_source_cache", folder=str(self._folder), error=error.strerror)
            yield
            return
        left = threading.Event()
        tidying = threading.Thread(target=self._tidy, args=(left,), name="source-cache", daemon=True)
        tidying.start()
        try:
            yield
        finally:
            left.set()
            self._delete_if_alone(lock)
            os.close(lock)

    def offer(self, bucket: str, key: str, etag: ETag, body: bytes) -> None:
        """Keep a photo if anybody is there to take it and it fits; a disk that is full or fails is no error."""
        if not self._most:
            return
        path = self._path(bucket, key, etag)
        part = path.with_suffix(f".{secrets.token_hex(4)}")
        with suppress(OSError):
            if not self._is_wanted() or not self._fits(len(body)):
                return
            try:
                fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(fd, "wb") as file:
                    file.write(body)
                part.rename(path)
            except OSError:
                part.unlink(missing_ok=True)
                raise
            self._used += len(body)

    def take(self, bucket: str, key: Key, etag: ETag, length: int) -> bytes | None:
        """The photo, which is here no longer then; None where there is none of `length` bytes."""
        if not self._most:
            return None
        path = self._path(bucket, key, etag)
        try:
            body = path.read_bytes()
            path.unlink()
        except OSError:
            return None
        return body if len(body) == length else None

    def _path(self, bucket: str, key: str, etag: ETag) -> Path:
        name = hashlib.blake2b("\0".join([self._server, bucket, key, etag]).encode(), digest_size=20).hexdigest()
        return self._folder / name

    def _is_wanted(self) -> bool:
        """Whether somebody holds the lock; whoever died does not. Takes nothing, so that askers do not meet."""
        try:
            lock = os.open(self._folder / _LOCK, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found: int = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_OFD_GETLK, asked))[0]
            return found != fcntl.F_UNLCK
        finally:
            os.close(lock)

    def _fits(self, length: int) -> bool:
        """Whether so many bytes fit; what others write and take is seen once a second."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked, self._used = time.monotonic(), self._delete(_OLD_SECONDS)
        return self._used + length <= self._most <= shutil.disk_usage(self._folder).free - length

    def _hold(self) -> int:
        """The lock's file, open and held; what a worker left that was killed is deleted."""
        lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._delete_if_alone(lock)
            _lock(lock, fcntl.F_RDLCK)
        except OSError:
            os.close(lock)
            raise
        return lock

    def _tidy(self, left: threading.Event) -> None:
        while not left.wait(_OLD_SECONDS):
            self._delete(_OLD_SECONDS)

    def _delete_if_alone(self, lock: int) -> None:
        with suppress(OSError):
            _lock(lock, fcntl.F_WRLCK)
            self._delete(0)

    def _delete(self, seconds: float) -> int:
        """Delete copies that are older; gives the bytes of the others."""
        left, now = 0, time.time()
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if _OURS.fullmatch(entry.name) is None:
                    continue
                with suppress(OSError):  # somebody else has taken it
                    status = entry.stat(follow_symlinks=False)
                    if seconds and now - status.st_mtime < seconds:
                        left += status.st_size
                    else:
                        Path(entry.path).unlink()
        return left


def _lock(fd: int, kind: int) -> None:
    """Take a lock that goes with the open file, whoever closes what; raises OSError where another one forbids it."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0))
