"""Collect training pictures from packages, with the origin and licence of every file in a table."""

import csv
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from model.training.licences import Stanza, licence_of, read_copyright
from model.training.packages import unpack
from model.training.pictures import fit_as_cutout, is_drawn, read_rgba, shrink, trim
from model.training.sources import SOURCES, Kind, Package, Role, Take
from model.training.split import Split, excluded_objects, is_excluded, object_of, split_of

_BACKGROUND_SIDE = 1280
_BACKGROUND_LEAST = 200


@dataclass(frozen=True, slots=True)
class Source:
    """One line of the table.

    Attributes:
        file: below the data folder.
        role, kind: see `sources.Take`.
        split: train or validation, the same for all pictures of an object.
        object: what it shows, as far as its path tells.
        package, version, path: where it came from.
        licence: of this file, as the package states it.
        sha256: of the file in the package.
    """

    file: str
    role: Role
    kind: Kind
    split: Split
    object: str
    package: str
    version: str
    path: str
    licence: str
    sha256: str


_ROW = TypeAdapter(Source)


def collect(folder: Path, report: Callable[[str], None]) -> list[Source]:
    """Fetch all packages and write their usable pictures below `folder`; what is there already is kept.

    Raises:
        SetupError: when a package cannot be had.
    """
    excluded = excluded_objects()
    table: list[Source] = []
    for package in SOURCES:
        root, version = unpack(package, folder / "packages")
        stanzas = _stanzas(root)
        before = len(table)
        for path, take in _matches(package, root / package.root):
            relative = path.relative_to(root / package.root).as_posix()
            # Evaluation names paths below /usr/share, whatever a package's own root is.
            shared = path.relative_to(root / "usr/share").as_posix() if package.registry == "debian" else relative
            if is_excluded(shared, excluded):
                continue
            source = _store(folder, path, relative, take, package, version, stanzas)
            if source is not None:
                table.append(source)
        report(f"{package.name} {version}: {len(table) - before} pictures")
    write_table(folder, table)
    return table


def write_table(folder: Path, table: list[Source]) -> None:
    """Write sources.csv."""
    with (folder / "sources.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Source)])
        writer.writeheader()
        writer.writerows(asdict(source) for source in table)


def read_table(folder: Path) -> list[Source]:
    """Read sources.csv."""
    with (folder / "sources.csv").open(encoding="utf-8", newline="") as file:
        return [_ROW.validate_python(row) for row in csv.DictReader(file)]


def _matches(package: Package, root: Path) -> Iterator[tuple[Path, Take]]:
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root).as_posix()
        if not path.is_file() or path.is_symlink() or (package.skip and package.skip.match(relative)):
            continue
        take = next((take for take in package.takes if take.pattern.match(relative)), None)
        if take is not None:
            yield path, take


def _stanzas(root: Path) -> list[Stanza]:
    texts = [path.read_text("utf-8", errors="replace") for path in root.glob("usr/share/doc/*/copyright")]
    return [stanza for text in texts for stanza in read_copyright(text)]


def _store(
    folder: Path, path: Path, relative: str, take: Take, package: Package, version: str, stanzas: list[Stanza]
) -> Source | None:
    """Decode, judge and write one picture; None when it is no use."""
    rgba = read_rgba(path)
    if rgba is None:
        return None
    kind = take.kind or ("drawn" if is_drawn(rgba, path.suffix.lower() == ".gif") else "photo")
    if take.role == "cutout":
        rgba = trim(rgba)
        if not fit_as_cutout(rgba):
            return None
    elif min(rgba.shape[:2]) < _BACKGROUND_LEAST or float((rgba[..., 3] < 255).mean()) > 0.4:
        return None
    name = object_of(relative)
    identity = hashlib.sha256(f"{package.name}:{relative}".encode()).hexdigest()[:16]
    target = Path(take.role + "s") / f"{identity}.{'png' if take.role == 'cutout' else 'jpg'}"
    if not (folder / target).is_file():
        (folder / target).parent.mkdir(exist_ok=True)
        if take.role == "cutout":
            Image.fromarray(rgba).save(folder / target)
        else:
            rgb = np.ascontiguousarray(_opaque_part(rgba)[..., :3])
            Image.fromarray(shrink(rgb, _BACKGROUND_SIDE)).save(folder / target, quality=93)
    return Source(
        file=target.as_posix(),
        role=take.role,
        kind=kind,
        split=split_of(package.name, name),
        object=name,
        package=package.name,
        version=version,
        path=relative,
        licence=licence_of(relative, stanzas) or take.licence,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _opaque_part(
    rgba: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The rows of a background that are opaque throughout: panoramas are transparent where the sky was."""
    rows = np.flatnonzero((rgba[..., 3] == 255).mean(1) > 0.999)
    return rgba[rows[0] : rows[-1] + 1] if len(rows) >= _BACKGROUND_LEAST // 2 else rgba
