"""Which objects are kept apart: for evaluation never touched, for validation never trained on."""

import hashlib
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Literal

Split = Literal["train", "validation"]

_VALIDATION_PERCENT = 12
_VARIANT = re.compile(r"(_mirror|[-_ ]?\d+[a-z]?|[-_ ][a-z]|[-_+](fe)?male|\+.*)$")


def object_of(path: str) -> str:
    """The object that a picture shows, as far as its path tells: pictures of one object share this name.

    Its folder and its name without what tells variants apart: `dog2-b`, `candy_mirror`, `dan1`. It errs towards
    taking two objects for one. In a folder of people the first word of the name is the person.
    """
    pure = PurePosixPath(path)
    if "landscapes" in pure.parts:
        return pure.parent.as_posix()  # parts of one panorama
    # The two views of a stereo pair.
    name = re.sub(r"(?<=[a-z])[A-Z]$", "", pure.stem).lower()
    if re.fullmatch(r"\d+x\d+", name):
        return pure.parent.as_posix()  # a wallpaper in several sizes
    if pure.parent.name == "People":
        name = re.split(r"[-_\d]", name)[0]
    while (shorter := _VARIANT.sub("", name)) and shorter != name:
        name = shorter
    return f"{pure.parent.as_posix()}/{name}"


def excluded_objects() -> frozenset[str]:
    """The objects of the pictures that are kept for evaluation."""
    lines = files("model.training").joinpath("exclude.txt").read_text("utf-8").splitlines()
    return frozenset(object_of(line) for line in lines if line and not line.startswith("#"))


def is_excluded(path: str, excluded: Iterable[str]) -> bool:
    """Whether a picture, by its path below /usr/share, shows an object that is kept for evaluation."""
    return object_of(path) in excluded


def split_of(package: str, name: str) -> Split:
    """Where an object belongs: by a hash, so that it stays there whatever else is collected."""
    digest = hashlib.sha256(f"{package}:{name}".encode()).digest()
    return "validation" if int.from_bytes(digest[:4]) % 100 < _VALIDATION_PERCENT else "train"
