"""What is in the engine right now, where it outlives the process: read by the supervisor when a worker has crashed."""

import json
import mmap
import os
import struct
from collections.abc import Sequence
from typing import cast

from pipeline.errors import MattemillError
from pipeline.ids import ETag, ItemId, Key, RunId
from pipeline.ledger import Taken
from pipeline.runs import Item

_BYTES = 1 << 18
_HEAD = struct.Struct("<II")  # bytes of the text, batches finished


class EngineRecord:
    """A few kilobytes of anonymous shared memory that hold the batch in the engine.

    Args:
        fd: what `fileno` of the supervisor's record gave, inherited; None makes a new one.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("mattemill-engine", os.MFD_CLOEXEC)
            os.ftruncate(fd, _BYTES)
        self._fd = fd
        self._memory = mmap.mmap(fd, _BYTES)

    def fileno(self) -> int:
        """For `pass_fds` and for the child's own record."""
        return self._fd

    def enter(self, batch: Sequence[Taken], engine: str) -> None:
        """These go into the engine of this name now."""
        entries = [[one.run, one.item.id, one.item.key, one.fed] for one in batch]
        text = json.dumps([engine, entries], ensure_ascii=False).encode()
        if len(text) + _HEAD.size > _BYTES:
            raise MattemillError(f"A batch of {len(batch)} images with {len(text)} bytes of names is too long.")
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text
        self._memory[: _HEAD.size] = _HEAD.pack(len(text), self.finished)  # last: a reader never sees half a batch

    def leave(self, *, finished: bool = False) -> None:
        """The engine is empty, and has `finished` the batch or failed."""
        self._memory[: _HEAD.size] = _HEAD.pack(0, self.finished + finished)

    @property
    def finished(self) -> int:
        """Batches finished since this memory was made."""
        return cast(int, _HEAD.unpack(self._memory[: _HEAD.size])[1])

    def read(self) -> tuple[list[Taken], str]:
        """What is in the engine, and the engine's name; [] when nothing is, or nothing readable."""
        length = _HEAD.unpack(self._memory[: _HEAD.size])[0]
        if not length:
            return [], ""
        try:
            engine, entries = json.loads(self._memory[_HEAD.size : _HEAD.size + length])
            batch = [
                Taken(RunId(run), Item(ItemId(id), Key(key), ETag(""), 0, ""), int(fed), None)
                for run, id, key, fed in entries
            ]
        except (ValueError, TypeError):
            return [], ""
        return batch, str(engine)

    def close(self) -> None:
        """Free the memory."""
        self._memory.close()
        os.close(self._fd)
