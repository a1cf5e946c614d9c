"""Writing a user's files: whole or not at all, and a sentence when there is no room."""

import contextlib
import errno
import secrets
import tempfile
from pathlib import Path

from pipeline.errors import SetupError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE_BYTES = 1 << 20


def write_file(path: Path, data: bytes) -> None:
    """Write a file and its folders; an earlier file of that name stays until the new one is whole.

    Raises:
        SetupError: when it cannot be written.
    """
    if path.exists() and not path.is_file():
        _write_device(path, data)
        return
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise not_writable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def check_folder(folder: Path) -> None:
    """Make a folder and see that there is room in it, before minutes of work go into what it is for.

    Raises:
        SetupError: when it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".mattemill-") as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
    except OSError as error:
        raise not_writable(folder, error) from error


def not_writable(path: Path, error: OSError) -> SetupError:
    """Say why a place cannot be written."""
    hint = "free some space, or choose another place" if error.errno in _NO_ROOM else "choose another place"
    return SetupError(f"{path} cannot be written: {error.strerror or error}.", hint)


def _write_device(path: Path, data: bytes) -> None:
    try:
        with path.open("wb") as device:
            device.write(data)
    except OSError as error:
        raise not_writable(path, error) from error
