import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.training import pictures
from model.training.licences import licence_of, read_copyright
from model.training.packages import _run
from model.training.rcc import read_rcc
from model.training.sources import SOURCES
from model.training.split import excluded_objects, is_excluded, object_of, split_of
from pipeline.errors import SetupError

DEP5 = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: somebody
License: GPL-3+

Files: src/fishes/*
 src/birds/wren.jpg
Copyright: others
License: CC-BY-SA-3.0
 You may ...

Files: src/fishes/pike.png
License: public-domain
"""


def rcc(files: dict[str, bytes]) -> bytes:
    """A Qt resource file of version 1 with one folder `photos`, as Qt's rcc would write it."""
    names = contents = b""
    offsets = []
    for name in ("photos", *files):
        offsets.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHII", offsets[0], 2, len(files), 2)
    for offset, content in zip(offsets[1:], files.values(), strict=True):
        tree += struct.pack(">IHHHI", offset, 0, 0, 0, len(contents))
        contents += struct.pack(">I", len(content)) + content
    start = 20
    header = struct.pack(">4sIIII", b"qres", 1, start, start + len(tree), start + len(tree) + len(contents))
    return header + tree + contents + names


def test_files_of_a_qt_resource_are_read_with_their_paths() -> None:
    files = {"wren.jpg": b"abc", "größe.png": b""}

    assert dict(read_rcc(rcc(files))) == {f"photos/{name}": content for name, content in files.items()}


@pytest.mark.parametrize("data", [b"", b"PK\3\4" + bytes(40), rcc({"wren.jpg": b"abc"})[:50]])
def test_what_is_no_qt_resource_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="Qt resource"):
        list(read_rcc(data))


@pytest.mark.parametrize(
    ("path", "licence"),
    [
        ("src/fishes/tench.jpg", "CC-BY-SA-3.0"),
        ("src/fishes/pike.webp", "public-domain"),  # converted by the package
        ("build/src/birds/wren.webp", "CC-BY-SA-3.0"),
        ("src/birds/wren2.webp", None),
        ("src/trees/oak.jpg", None),  # only the paragraph for everything matches: that is the package's licence
    ],
)
def test_the_last_paragraph_that_names_a_file_gives_its_licence(path: str, licence: str | None) -> None:
    assert licence_of(path, read_copyright(DEP5)) == licence


def test_a_copyright_file_for_people_names_no_licences() -> None:
    assert read_copyright("This package was debianized by ...\n\nFiles: *\nLicense: GPL\n") == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("stamps/bradley.png", "stamps/bradley_mirror.png"),
        ("stamps/cep.png", "stamps/cep-2.png"),
        ("stamps/fireman240a.png", "stamps/fireman200b.png"),
        ("Costumes/Animals/dog2-b.png", "Costumes/Animals/dog1-a.png"),
        ("Costumes/People/cassy-dancing-1.gif", "Costumes/People/cassy-sitting.gif"),
        ("portraits/dark-adept.png", "portraits/dark-adept+female.png"),
        ("wallpapers/Path/1920x1080.jpg", "wallpapers/Path/2560x1600.jpg"),
        ("data/leuvenA.jpg", "data/leuvenB.jpg"),
        ("stellarium/landscapes/guereins/guereins8-lgt.png", "stellarium/landscapes/guereins/guereins2.png"),
    ],
)
def test_pictures_of_one_object_share_its_name(first: str, second: str) -> None:
    assert object_of(first) == object_of(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("stamps/gnu-stand.png", "stamps/gnu-sitting.png"),
        ("plants/daffodil.png", "easter/daffodil.png"),
        ("Costumes/People/dan1.gif", "Costumes/People/anna-1.gif"),
    ],
)
def test_different_objects_keep_their_names_apart(first: str, second: str) -> None:
    assert object_of(first) != object_of(second)


@pytest.mark.parametrize(
    "path",
    [
        "tuxpaint/stamps/animals/mammals/cats/tiger_sumatran.png",
        "tuxpaint/stamps/military/vehicles/bradley_mirror.png",  # only bradley.png is listed
        "wallpapers/Kite/contents/images/2560x1600.jpg",  # only 1920x1080.jpg is listed
    ],
)
def test_nothing_that_shows_an_evaluation_object_may_be_used(path: str) -> None:
    assert is_excluded(path, excluded_objects())


def test_other_objects_may_be_used() -> None:
    assert not is_excluded("tuxpaint/stamps/animals/mammals/cats/tiger.png", excluded_objects())


def test_the_split_goes_by_object_and_keeps_about_an_eighth() -> None:
    split = [split_of("stamps", f"folder/object{number}") for number in range(2000)]

    assert 0.09 < split.count("validation") / len(split) < 0.15
    assert split == [split_of("stamps", f"folder/object{number}") for number in range(2000)]


def test_no_source_takes_the_sample_photos_or_agpl_pictures() -> None:
    gcompris = next(package for package in SOURCES if package.name == "gcompris-qt-data")

    for name in ("koala", "panda", "bison", "owl"):
        path = f"gcompris/src/activities/explore_world_animals/resource/animals/{name}.webp"
        assert gcompris.skip is not None
        assert gcompris.skip.match(path)
    assert not [package for package in SOURCES if "ifct" in package.name]
    assert not [take for package in SOURCES for take in package.takes if "AGPL" in take.licence]


def test_a_client_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no-such-client is not installed"):
        _run(["no-such-client", "download"], tmp_path, "install it")


def test_premultiplied_colour_is_rounded_and_vanishes_where_nothing_is_seen() -> None:
    rgba = np.array([[[200, 100, 7, 255], [200, 100, 7, 128], [200, 100, 7, 0]]], np.uint8)

    assert pictures.premultiply(rgba).tolist() == [[[200, 100, 7, 255], [100, 50, 4, 128], [0, 0, 0, 0]]]


def test_only_what_is_cut_out_is_a_cutout() -> None:
    rgba = np.zeros((120, 120, 4), np.uint8)
    assert not pictures.fit_as_cutout(rgba)
    rgba[20:90, 20:90] = 255
    assert pictures.fit_as_cutout(rgba)
    assert not pictures.fit_as_cutout(rgba[::2, ::2])  # too small
    assert not pictures.fit_as_cutout(np.full_like(rgba, 255))  # a full rectangle


def test_the_margin_is_trimmed() -> None:
    rgba = np.zeros((10, 20, 4), np.uint8)
    rgba[2:5, 7:9, 3] = 1

    assert pictures.trim(rgba).shape == (3, 2, 4)
    assert pictures.trim(np.zeros((4, 4, 4), np.uint8)).shape == (1, 1, 4)


def test_flat_colours_tell_a_drawing_from_a_photo() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 4), np.uint8)
    noise[..., 3] = 255
    flat = np.full((64, 64, 4), 255, np.uint8)

    assert not pictures.is_drawn(noise, palette=False)
    assert pictures.is_drawn(flat, palette=False)


def test_what_is_no_picture_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"nothing")
    assert pictures.read_rgba(path) is None

    Image.new("P", (3, 2), 1).save(path)
    picture = pictures.read_rgba(path)
    assert picture is not None
    assert picture.shape == (2, 3, 4)
