"""The command line as a user types it, and what it may leave behind."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

COMMAND = [sys.executable, "-m", "producer.commands"]
MARK = "TEST_MARK"
"""An environment variable by which a test knows the processes that came of its command."""


def run(environment: Mapping[str, str], *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """`mattemill ARGUMENTS`, to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    """Assert that a command ended with exit code 2 and one sentence with a hint."""
    assert done.returncode == 2, (done.args, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    sentence = [line for line in done.stderr.splitlines() if line][-1]
    assert sentence.startswith("mattemill: "), done.stderr
    assert "Hint:" in sentence
    for words in expected:
        assert words in sentence, (words, sentence)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for TMPDIR: short, because names of sockets end after a hundred characters."""
    folder = Path(tempfile.mkdtemp(prefix="mm-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def left_behind(mark: str, folder: Path | None = None) -> list[str]:
    """The command lines of living processes that have this mark, or work in this folder as the servers do."""
    return [
        " ".join(process.info["cmdline"] or [])
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and _belongs(process, mark, folder)
    ]


def _belongs(process: psutil.Process, mark: str, folder: Path | None) -> bool:
    try:
        if process.environ().get(MARK) == mark:
            return True
        return folder is not None and Path(process.cwd()).is_relative_to(folder)
    except (psutil.Error, OSError):
        return False


def on_a_small_disk(folder: Path, options: str) -> list[str]:
    """What to put before a command so that `folder` is a file system of its own, for it alone.

    It lists what is in the folder at its end. Empty where this machine does not allow that.
    """
    script = 'mount -t tmpfs -o "$1" tmpfs "$0" || exit 99; shift; "$@"; end=$?; ls -A "$0"; exit $end'
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(folder), options]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return prefix
    return []
