"""From a photo and the model's alpha to the bytes of the cutout, as a recipe says."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog

from model.codecs.decode import Picture, decode
from model.codecs.lossy import encode_jpeg, encode_webp
from model.codecs.metadata import exif_of
from model.codecs.png import PngWriter, encode_png
from model.codecs.probe import probe
from model.codecs.scratch import Scratch
from model.codecs.shaper import Shaper, apply_shaper
from model.foreground import estimate
from model.preview import encode_preview, preview_of, small_size
from model.refine import Known, guide, refine, whole
from model.shrink import shrink
from model.strips import Cut, output_of, part_of, strips_of
from model.subject import Box, framed, subject_box, suspects, tightened
from pipeline.errors import Code, PermanentError
from pipeline.preview import Preview
from pipeline.recipe import LONGEST_SIDE, Recipe

log = structlog.get_logger(__name__)

UInt8 = npt.NDArray[np.uint8]

_ALREADY_CUT: Final = 0.1
_UNLIMITED: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Cutout:
    """A finished output.

    Attributes:
        body: the file.
        height: pixels.
        width: pixels.
        photo_height: pixels of the photo, upright.
        photo_width: likewise.
        suspects: what is suspicious about the matte; see `model.subject.suspects`.
        own_alpha: whether the photo was cut out already, and its own alpha was used.
        preview: small pictures of it, where they were asked for.
    """

    body: bytes
    height: int
    width: int
    photo_height: int
    photo_width: int
    suspects: tuple[str, ...]
    own_alpha: bool
    preview: Preview | None = None


def open_photo(
    data: bytes, recipe: Recipe, alpha: UInt8, max_megapixels: int, scratch: Scratch | None = None
) -> Picture:
    """Decode a photo as large as a recipe needs it.

    Raises:
        PermanentError: as `decode`.
    """
    needed = None
    if recipe.max_side:
        header = probe(data)
        scale = _scale(recipe, alpha, header.height, header.width)
        needed = (2 * round(header.height * scale), 2 * round(header.width * scale))
    return decode(data, max_megapixels=max_megapixels, at_least=needed, own_colours=recipe.icc, scratch=scratch)


def cut(picture: Picture, alpha: UInt8, recipe: Recipe) -> tuple[Cut, bool]:
    """Refine the alpha, estimate the subject's colours, and find what the output shows.

    A picture that is transparent in a tenth of its area or more counts as cut out already: its own alpha is taken,
    and the model's is not. In any other, what is transparent stays so.

    Args:
        picture: the photo, as of `open_photo`.
        alpha: uint8 [ch, cw], the model's answer, without letterbox padding.
        recipe: what is wanted.

    Returns:
        The cut, and whether the picture's own alpha was taken.
    """
    own = picture.alpha
    own_alone = own is not None and float((own < 128).mean()) >= _ALREADY_CUT
    if own is not None and own_alone:
        alpha = own
    scale = _scale(recipe, alpha, picture.full_height, picture.full_width)
    height = max(1, min(len(picture.rgb), round(picture.full_height * scale)))
    width = max(1, min(picture.rgb.shape[1], round(picture.full_width * scale)))
    rgb = shrink(picture.rgb, height, width)
    small = guide(alpha, rgb)
    fine = refine(alpha, rgb, small)
    if own is not None and not own_alone:
        fine = Known(np.minimum(whole(fine), whole(refine(own, rgb, rgb))))
    # An alpha that came with the picture has had its colours cleaned, or never had a background.
    colours = estimate(small, alpha) if recipe.despill and recipe.needs_colours and not own_alone else None
    shown = Box(0, 0, height, width)
    region = _region(alpha, height, width) if recipe.crop else None
    if region is not None:
        fine = Known(whole(fine))
        shown = framed(tightened(region, fine.pixels), recipe.margin, recipe.square, recipe.max_side or _UNLIMITED)
    return Cut(rgb, fine, colours, shown), own_alone


def render(made: Cut, recipe: Recipe, background: UInt8 | None = None, *, exif: bytes = b"", icc: bytes = b"") -> bytes:
    """Encode a cut.

    Args:
        made: of `cut`.
        recipe: what is wanted.
        background: uint8 [bh, bw, 3] of any size, where the recipe names an image.
        exif: the TIFF part of EXIF data to be kept.
        icc: the profile that the colours are in; empty is sRGB.

    Raises:
        PermanentError: TOO_LARGE, when the format has no room for so many pixels.
    """
    height, width = made.box.height, made.box.width
    limit = LONGEST_SIDE.get(recipe.format, _UNLIMITED)
    if max(height, width) > limit:
        raise PermanentError(
            Code.TOO_LARGE,
            f"a {recipe.format} has at most {limit} pixels in a side, the cutout {width} x {height};"
            f" the recipe may say max-side={limit}",
        )
    if recipe.format == "alpha":
        return encode_png(output_of(made, recipe, background))
    if recipe.format == "png":
        strips, channels = strips_of(made, recipe, background)
        writer = PngWriter(height, width, channels, exif=exif, icc=icc)
        for _, strip in strips:
            writer.write(strip)
        return writer.finish()
    encode = encode_jpeg if recipe.format == "jpeg" else encode_webp
    return encode(output_of(made, recipe, background), recipe.quality, exif=exif, icc=icc)


def preview_of_cut(made: Cut, recipe: Recipe, background: UInt8 | None, side: int, icc: bytes | None = None) -> Preview:
    """Small pictures of what an output shows: of the photo, and of the output.

    Mostly the second is the same recipe applied to photo and alpha of that size, which takes half as long and looks
    the same. Where the photo's colours are left in the edge, or the output is a small part of it, it is of the output.

    Args:
        made: of `cut`.
        recipe: what is wanted.
        background: as of `render`.
        side: pixels of their longer side; nothing is enlarged.
        icc: the profile that the colours are in; None is sRGB.
    """
    height, width = made.alpha.shape
    fringed = made.colours is None and recipe.needs_colours
    if fringed or 2 * made.box.height * made.box.width < height * width:
        return preview_of(part_of(made.rgb, made.box), output_of(made, recipe, background), side, icc)
    scale = min(side / max(made.box.height, made.box.width), 1)
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    top, left = round(made.box.top * scale), round(made.box.left * scale)
    shown_height, shown_width = small_size(made.box.height, made.box.width, side)
    rgb = shrink(made.rgb, *size, step=max(int(0.5 / scale), 1))
    box = Box(top, left, top + shown_height, left + shown_width)
    small = Cut(rgb, Known(made.alpha.at(rgb)), made.colours, box)
    return encode_preview(part_of(rgb, box), output_of(small, recipe, background), icc)


def make_cutout(
    data: bytes,
    alpha: UInt8,
    recipe: Recipe,
    background: UInt8 | None,
    max_megapixels: int,
    stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
    preview_side: int = 0,
    scratch: Scratch | None = None,
) -> Cutout:
    """All of the above, for the bytes of a photo.

    Args:
        data: the photo's file.
        alpha: uint8 [ch, cw], the model's answer, without letterbox padding.
        recipe: what is wanted.
        background: uint8 [bh, bw, 3] of any size, where the recipe names an image.
        max_megapixels: largest photo.
        stage: is entered with the name of each stage, to time it.
        preview_side: pixels of the longer side of small pictures to be made besides; 0 for none.
        scratch: for photos that come one after the other from one thread, if given.

    Raises:
        PermanentError: as `open_photo` and `render`.
    """
    with stage("decode full"):
        picture = open_photo(data, recipe, alpha, max_megapixels, scratch)
    with stage("refine"):
        made, own_alpha = cut(picture, alpha, recipe)
    with stage("encode"):
        height, width = made.box.height, made.box.width
        exif = exif_of(data, probe(data).format, height, width) if recipe.metadata else b""
        body = render(made, recipe, background, exif=exif, icc=picture.icc or b"")
    preview = None
    if preview_side:
        with stage("preview"):
            try:
                preview = preview_of_cut(made, recipe, background, preview_side, picture.icc)
            except Exception:  # a picture for a report never costs an output
                log.warning("preview_failed", exc_info=True)
    found = suspects(whole(made.alpha) if own_alpha else alpha)
    return Cutout(body, height, width, picture.full_height, picture.full_width, found, own_alpha, preview)


def warm_up() -> None:
    """Compile every loop, so that no photo waits for it: ten seconds once on a machine, then a third of a second."""
    rgb = np.zeros((96, 96, 3), np.uint8)
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    made, _ = cut(Picture(rgb, None, 96, 96), ramp, Recipe())
    render(made, Recipe())
    preview_of_cut(made, Recipe(), None, 48)
    render(made, Recipe(background="#ffffff"))
    shrink(rgb, 16, 16)
    apply_shaper(rgb, Shaper(np.zeros((3, 256), np.float32), np.eye(3, dtype=np.float32)))


def _scale(recipe: Recipe, alpha: UInt8, height: int, width: int) -> float:
    """How much smaller than the photo the output's scale is; at most 1."""
    if not recipe.max_side:
        return 1.0
    longest = float(max(height, width))
    region = _region(alpha, height, width) if recipe.crop else None
    if region is not None:
        longest = max(region.height, region.width) * (1 + 2 * recipe.margin / 100)
    return min(1.0, recipe.max_side / longest)


def _region(alpha: UInt8, height: int, width: int) -> Box | None:
    """Where in a picture of this size the subject of a matte lies, a pixel of the matte more on each side."""
    box = subject_box(alpha)
    if box is None:
        return None
    rows, columns = alpha.shape
    top, left = (box.top - 1) * height // rows, (box.left - 1) * width // columns
    bottom, right = -((box.bottom + 1) * height // -rows), -((box.right + 1) * width // -columns)
    return Box(max(top, 0), max(left, 0), min(bottom, height), min(right, width))
