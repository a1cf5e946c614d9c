"""What the cutout is: its format, background, crop, size and name. One type for API, command line and sweep files."""

import posixpath
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from pipeline.errors import SetupError
from pipeline.ids import ETag, Location

SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "png": (".png",),
    "webp": (".webp",),
    "jpeg": (".jpg", ".jpeg"),
    "alpha": (".png",),
}
"""The formats, each with the endings its names may have; the first one is the default."""

JPEG_QUALITY: Final = 92
LONGEST_SIDE: Final[Mapping[str, int]] = {"webp": 16383, "jpeg": 65500}
"""Pixels that fit into a side of the formats that have a limit."""

_SMALLEST_SIDE: Final = 16
_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_HINT: Final = "docs/recipes.md shows every part"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is made of a photo and its alpha. `pipeline.recipe_text` reads and writes it as text.

    Attributes:
        format: "png", "webp", "jpeg" (needs a background) or "alpha", the matte alone as a grey PNG. "" becomes jpeg
            where there is a background, else png.
        quality: 1 to 100 for WebP and JPEG; 0 is lossless WebP, and becomes 92 for JPEG.
        background: "" is transparent; "#rrggbb" a colour; else an image: its address s3://bucket/key or, alone, a
            key of the source bucket. It is scaled to cover the cutout, and its middle is shown.
        background_etag: the ETag that the background image must still have; the producer fills it in.
        crop: to the subject.
        margin: air round the cropped subject, in percent of its longer side.
        square: make the cropped picture square, with the subject in the middle.
        max_side: the longest side of the output in pixels; 0 leaves the photo's. Nothing is ever enlarged.
        despill: take the background's colour out of half-transparent pixels.
        metadata: keep the photo's EXIF data (place, camera, owner), without its preview.
        icc: keep the photo's own colours and their profile, instead of converting them to sRGB.
        name: the output's name in the folder of its source, with the fields {stem} and {ext} of the source's name;
            "" becomes {stem} and the suffix of the format.

    Raises:
        SetupError: when parts cannot be or do not go together; it names them.
    """

    format: str = ""
    quality: int = 0
    background: str = ""
    background_etag: str = ""
    crop: bool = False
    margin: float = 0
    square: bool = False
    max_side: int = 0
    despill: bool = True
    metadata: bool = False
    icc: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        """Fill in what follows from the rest, then check."""
        filled = object.__setattr__
        if not self.format:
            filled(self, "format", "jpeg" if self.background else "png")
        if self.format not in SUFFIXES:
            raise refused(self.format, f"is no format; there are {', '.join(SUFFIXES)}")
        if self.format == "jpeg" and not self.quality:
            filled(self, "quality", JPEG_QUALITY)
        if not self.name:
            filled(self, "name", self.default_name)
        if self.has_colour:
            filled(self, "background", _colour(self.background))
        _check_together(self)
        _check_numbers(self)
        _check_background(self)
        _check_name(self)

    @property
    def default_name(self) -> str:
        """The template that is used where none is given."""
        return "{stem}" + SUFFIXES[self.format][0]

    @property
    def content_type(self) -> str:
        """The output's MIME type."""
        return "image/png" if self.format == "alpha" else f"image/{self.format}"

    @property
    def has_colour(self) -> bool:
        """Whether the background is a colour, not an image and not nothing."""
        return self.background.startswith("#")

    @property
    def needs_colours(self) -> bool:
        """Whether the output shows the photo at all."""
        return self.format != "alpha"

    def output_name(self, relative: str) -> str:
        """The output's key below the target prefix, for a source's key below its own prefix; folders are kept."""
        folder, base = posixpath.split(relative)
        stem, suffix = posixpath.splitext(base)
        fields = {"stem": stem, "ext": suffix[1:]}
        # Not str.format: the template would then reach into what it is given.
        return posixpath.join(folder, _FIELD.sub(lambda field: fields[field[1]], self.name))

    def background_image(self, source_bucket: str) -> Location | None:
        """Where the background image lies; None where the background is a colour or nothing."""
        if not self.background or self.has_colour:
            return None
        is_address = self.background.startswith("s3://")
        return Location.parse(self.background if is_address else f"s3://{source_bucket}/{self.background}")

    def pinned(self, etag: ETag) -> "Recipe":
        """The same, its background image held to what it is now."""
        return replace(self, background_etag=etag)


def refused(part: str, why: str, hint: str = _HINT) -> SetupError:
    """The error that says which part of a recipe cannot be, and why."""
    return SetupError(f"Recipe: {part} {why}.", hint)


def _check_together(recipe: Recipe) -> None:
    if recipe.format == "jpeg" and not recipe.background:
        raise refused("jpeg", "has no transparency", "add background=#ffffff, or take webp=90")
    if recipe.format == "alpha" and (recipe.background or recipe.metadata or recipe.icc):
        raise refused("alpha", "is a grey matte without background, metadata or icc", "leave these parts out")
    if recipe.quality and recipe.format in ("png", "alpha"):
        raise refused(f"{recipe.format}={recipe.quality}", "has no quality", "take webp=90 for smaller files")
    if recipe.icc and recipe.background:
        raise refused("icc=keep", "does not go with a background, which is in sRGB", "leave one of both out")
    if not recipe.crop and (recipe.margin or recipe.square):
        raise refused("square" if recipe.square else "margin", "belongs to crop", "add crop")


def _check_numbers(recipe: Recipe) -> None:
    if not 0 <= recipe.quality <= 100:
        raise refused(f"{recipe.format}={recipe.quality}", "is no quality from 1 to 100")
    if not 0 <= recipe.margin <= 100:
        raise refused(f"margin={recipe.margin:g}%", "is no percentage from 0% to 100%")
    if recipe.max_side and recipe.max_side < _SMALLEST_SIDE:
        raise refused(f"max-side={recipe.max_side}", f"is no side of {_SMALLEST_SIDE} or more pixels")


def _check_background(recipe: Recipe) -> None:
    shown = f"background={recipe.background}"
    try:
        place = recipe.background_image("bucket")
    except ValueError as error:
        raise refused(shown, "is no address", "write s3://bucket/key") from error
    if place is None and recipe.background_etag:
        raise refused("background-etag", "belongs to a background image")
    if place is not None and (not place.key or place.key.endswith("/")):
        raise refused(shown, "is neither #rrggbb nor the key of an image")


def _check_name(recipe: Recipe) -> None:
    name, shown = recipe.name, f"name={recipe.name}"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise refused(f"name={name!r}", "has a control character")
    if unknown := [field for field in _FIELD.findall(name) if field not in ("stem", "ext")]:
        raise refused(shown, f"has the field {{{unknown[0]}}}; there are {{stem}} and {{ext}}")
    if re.search(r"[{}]", _FIELD.sub("", name)):
        raise refused(shown, "has half a pair of braces")
    if "{stem}" not in name:
        raise refused(shown, "lacks {stem}, so that all outputs of a folder would have one name")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise refused(shown, "has a folder that is empty or called . or ..")
    if not name.lower().endswith(SUFFIXES[recipe.format]):
        raise refused(shown, f"does not end with {' or '.join(SUFFIXES[recipe.format])}, as {recipe.format} does")


def _colour(text: str) -> str:
    digits = text[1:].lower()
    if re.fullmatch("[0-9a-f]{3}", digits):
        digits = "".join(digit * 2 for digit in digits)
    if not re.fullmatch("[0-9a-f]{6}", digits):
        raise refused(f"background={text}", "is no colour", "write #rrggbb, such as #ffffff")
    return f"#{digits}"
