"""Collected pictures, decoded once into one file that all training processes map into memory."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.training.collect import Source
from model.training.pictures import premultiply, shrink
from model.training.sources import Kind, Role
from model.training.split import Split
from model.training.teacher import Teacher

_SIDES = {"cutout": 512, "background": 896, "photo": 640}


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a picture lies in the file and what it is.

    Attributes:
        role, kind, split: see `collect.Source`; a photo cut out by the teacher is a cutout of kind `photo` as well.
        pseudo: whether its alpha is the teacher's.
        offset: of its first byte.
        shape: [h, w, C]; cut-outs are premultiplied RGBA, backgrounds RGB, photos RGB and the teacher's alpha.
    """

    role: Role
    kind: Kind
    split: Split
    pseudo: bool
    offset: int
    shape: tuple[int, int, int]


class Pack:
    """Read access to the pictures; the pages are shared between processes and dropped when memory is short."""

    def __init__(self, folder: Path) -> None:
        entries = json.loads((folder / "pack.json").read_text("utf-8"))
        self.entries = tuple(Entry(**{**entry, "shape": tuple(entry["shape"])}) for entry in entries)
        self._bytes = np.memmap(folder / "pack.bin", np.uint8, "r")

    def picture(self, entry: Entry) -> NDArray[np.uint8]:
        """A read-only view, uint8 [h, w, C]."""
        height, width, channels = entry.shape
        return self._bytes[entry.offset : entry.offset + height * width * channels].reshape(entry.shape)

    def select(self, split: Split, role: Role, kind: Kind | None = None, pseudo: bool | None = None) -> list[Entry]:
        """The entries of a split and role, of one kind only where given, labelled by the teacher or not where given."""
        return [
            entry
            for entry in self.entries
            if entry.split == split
            and entry.role == role
            and kind in (None, entry.kind)
            and pseudo in (None, entry.pseudo)
        ]


def write_pack(folder: Path, table: Sequence[Source], teacher: Teacher, report: Callable[[str], None]) -> None:
    """Decode all pictures of the table into pack.bin and pack.json below `folder`.

    The teacher labels the photos; those it is not sure of are left out. What it cut out becomes a cut-out as well.
    """
    entries: list[Entry] = []
    offset = 0
    unsure = 0
    with (folder / "pack.bin.part").open("wb") as file:

        def add(picture: NDArray[np.uint8], source: Source, role: Role, pseudo: bool) -> None:
            nonlocal offset
            height, width, channels = picture.shape
            entries.append(Entry(role, source.kind, source.split, pseudo, offset, (height, width, channels)))
            offset += file.write(np.ascontiguousarray(picture).tobytes())

        for source in table:
            with Image.open(folder / source.file) as image:
                picture = np.asarray(image.convert("RGBA" if source.role == "cutout" else "RGB"), np.uint8)
            if source.role == "cutout":
                add(shrink(premultiply(picture), _SIDES["cutout"]), source, "cutout", False)
            elif source.role == "background":
                add(shrink(picture, _SIDES["background"]), source, "background", False)
            else:
                picture = shrink(picture, _SIDES["photo"])
                label = teacher.label(picture)
                if not label.confident:
                    unsure += 1
                    continue
                labelled = np.dstack((picture, label.alpha))  # [h, w, 4]
                add(labelled, source, "photo", True)
                cut = _cut_out(labelled)
                if cut is not None:
                    add(cut, source, "cutout", True)
    (folder / "pack.bin.part").replace(folder / "pack.bin")
    (folder / "pack.json").write_text(json.dumps([asdict(entry) for entry in entries]), "utf-8")
    report(f"packed {len(entries)} pictures, {offset / 1e6:.0f} MB; the teacher was unsure of {unsure} photos")


def _cut_out(labelled: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The subject of a labelled photo, premultiplied and trimmed; None when the photo cuts it off."""
    alpha = labelled[..., 3]
    edge = np.concatenate((alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))
    if float((edge > 60).mean()) > 0.02:
        return None
    # The teacher's soft halo would carry the old background along.
    hardened = np.clip((alpha.astype(np.int32) - 50) * 255 // 170, 0, 255).astype(np.uint8)
    rows, columns = np.flatnonzero(hardened.any(1)), np.flatnonzero(hardened.any(0))
    box = np.dstack((labelled[..., :3], hardened))[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return shrink(premultiply(np.ascontiguousarray(box)), _SIDES["cutout"])
