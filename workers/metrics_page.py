"""The page that Prometheus reads: one for each supervisor, which adds up what all its processes count.

Processes share values through a folder of memory-mapped files (prometheus-client's multiprocess mode): correct under
prefork and threads, and nothing is lost with a process that is killed. The page has no password.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, Metric, start_http_server, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

import pipeline
from pipeline.errors import SetupError
from pipeline.settings import Settings

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client reads it where a process starts: children inherit it."""
_PREFIX = "mattemill-metrics-"
_FRESH_SECONDS = 60


@contextlib.contextmanager
def metrics_page(settings: Settings) -> Iterator[CollectorRegistry]:
    """Serve `http://HOST:PORT/metrics` while this lasts, where settings give a port; workers are started inside.

    Yields:
        where this process registers what is looked up when the page is read. Counters made while this lasts, here or in
        a child, are on the page by themselves.

    Raises:
        SetupError: when the port cannot be had.
    """
    registry = CollectorRegistry()
    if not settings.metrics_port:
        yield registry
        return
    Gauge("mattemill_info", "The version.", ["version"], registry=registry).labels(pipeline.__version__).set(1)
    with _shared_folder() as folder:
        registry.register(SharedValues(folder))
        try:
            server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registry)
        except OSError as error:
            raise SetupError(
                f"No metrics can be served on {settings.metrics_host}:{settings.metrics_port}: {error.strerror}.",
                "give each worker on this machine a MATTEMILL_METRICS_PORT of its own, or 0",
            ) from error
        try:
            yield registry
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class SharedValues:
    """Adds up what the processes that share a folder count, the dead ones' included. A Prometheus collector."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._collector = MultiProcessCollector(None, str(folder))
        self._lock = threading.Lock()

    def describe(self) -> list[Metric]:
        """Nothing is known before processes begin to count."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The sums of this moment."""
        with self._lock:
            for path in self._folder.glob("*.db"):
                pid = int(path.stem.rpartition("_")[2])
                if pid and not _alive(pid):
                    self._bury(path)
            found = list(self._collector.collect())
        yield from found

    def _bury(self, path: Path) -> None:
        """Keep what a dead process counted, and not its file: however many die, there are few files."""
        kind = path.stem.partition("_")[0]
        if kind != "gauge":
            grave = MmapedDict(str(self._folder / f"{kind}_0.db"))
            for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):
                grave.write_value(key, grave.read_value(key)[0] + value, 0.0)
            grave.close()
        path.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def _shared_folder() -> Iterator[Path]:
    """A private folder, in which this process and all that it starts share their values."""
    _remove_stale(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    before, kind = os.environ.get(_FOLDER), values.ValueClass
    os.environ[_FOLDER] = str(folder)
    values.ValueClass = values.get_value_class()
    try:
        yield folder
    finally:
        values.ValueClass = kind
        os.environ.pop(_FOLDER)
        if before is not None:
            os.environ[_FOLDER] = before
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_stale(root: Path) -> None:
    """Remove the folders of supervisors that were killed: nobody holds their lock."""
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone meanwhile
            if time.time() - folder.lstat().st_mtime < _FRESH_SECONDS:
                continue  # its maker may not have locked it yet
            lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
