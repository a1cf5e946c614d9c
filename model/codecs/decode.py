"""Image bytes to upright sRGB pixels, strictly: a damaged file raises, it never becomes half a picture."""

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from model.codecs.colour import is_rgb, to_srgb
from model.codecs.jpeg import decode_jpeg
from model.codecs.png_chunks import verify_png
from model.codecs.probe import PLUGINS, Header, check, orientation_of, probe
from model.codecs.scratch import Scratch
from pipeline.errors import Code, PermanentError

_SIXTEEN_BITS = frozenset(("I;16", "I;16L", "I;16B", "I;16N"))
_WHITE_IS_ZERO = 0
_PHOTOMETRIC_INTERPRETATION = 262


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image, turned upright, in sRGB.

    Attributes:
        rgb: uint8 [h, w, 3], C-contiguous, straight (not multiplied by alpha); white where alpha is 0.
        alpha: uint8 [h, w], C-contiguous; None when the image is opaque.
        full_height: pixels of the whole image, upright; `rgb` is smaller when a reduced scale was decoded.
        full_width: likewise.
        icc: the profile that `rgb` is in; None is sRGB.
    """

    rgb: npt.NDArray[np.uint8]
    alpha: npt.NDArray[np.uint8] | None
    full_height: int
    full_width: int
    icc: bytes | None = None


def decode(
    data: bytes,
    *,
    max_megapixels: int,
    at_least: tuple[int, int] | None = None,
    own_colours: bool = False,
    scratch: Scratch | None = None,
) -> Picture:
    """Decode the first picture of a file.

    Strict means: every checksum a format has is checked and missing data is an error. What no format can tell
    is altered bytes in JPEG, lossy WebP, HEIC or raw TIFF data: only the object's own checksum finds these. Call it
    from one thread at a time: Python's warning filters, which it changes for a moment, belong to the whole process.

    Args:
        data: the whole file.
        max_megapixels: largest accepted size, in millions of pixels, checked before decoding.
        at_least: (height, width) of the upright picture that suffices. A JPEG is then decoded at 1/2, 1/4 or
            1/8 scale when the result is still no smaller; other formats decode in full. Ask for twice the
            target and shrink by area: 48.8 dB against the full decode.
        own_colours: leave RGB in the colours of its own profile. CMYK and grey become sRGB all the same.
        scratch: lends memory for the pixels of a JPEG, if given; they are good until it lends again.

    Raises:
        PermanentError: EMPTY_OBJECT, NOT_AN_IMAGE, UNSUPPORTED_FORMAT, TRUNCATED (cut off or damaged) or
            TOO_LARGE (over the cap, or more than this process has memory for). No other exception leaves this
            function.
    """
    header = probe(data)
    check(header, max_megapixels)
    try:
        if header.format == "JPEG":
            return _decode_jpeg(data, header, at_least, own_colours, scratch)
        if scratch is not None:
            scratch.drop()
        if header.format == "PNG":
            verify_png(data)
        return _decode_with_pillow(data, header, own_colours)
    except PermanentError:
        raise
    except Exception as error:
        raise _named(error, header) from error


def turn(pixels: npt.NDArray[np.uint8], orientation: int, scratch: Scratch | None = None) -> npt.NDArray[np.uint8]:
    """Turn stored pixels upright.

    Args:
        pixels: uint8 [h, w] or [h, w, 3].
        orientation: EXIF orientation 1…8; 5 and above swap the sides.
        scratch: lends memory for turned pixels, if given.

    Returns:
        uint8, C-contiguous; `pixels` itself for orientation 1.
    """
    turned: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = pixels
    out = None
    if scratch is not None and orientation != 1:
        height, width, *channels = pixels.shape
        out = scratch.lend(*((width, height) if orientation >= 5 else (height, width)), *channels)
    match orientation:
        case 2:
            turned = cv2.flip(pixels, 1, out)
        case 3:
            turned = cv2.rotate(pixels, cv2.ROTATE_180, out)
        case 4:
            turned = cv2.flip(pixels, 0, out)
        case 5:
            turned = cv2.transpose(pixels, out)
        case 6:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE, out)
        case 7:
            turned = cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180, out)
        case 8:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE, out)
    return np.ascontiguousarray(turned, np.uint8)


def _decode_jpeg(
    data: bytes, header: Header, at_least: tuple[int, int] | None, own_colours: bool, scratch: Scratch | None
) -> Picture:
    sideways = header.orientation >= 5
    stored = (at_least[1], at_least[0]) if at_least is not None and sideways else at_least
    # A photo that has to be turned is turned into the scratch; the stored one is not needed after that.
    pixels, height, width = decode_jpeg(data, stored, scratch if header.orientation == 1 else None)
    with PLUGINS["JPEG"](io.BytesIO(data)) as image:
        icc = image.info.get("icc_profile")
    kept = icc if own_colours and is_rgb(pixels, icc) else None
    rgb = turn(pixels if kept else to_srgb(pixels, icc), header.orientation, scratch)
    full_height, full_width = (width, height) if sideways else (height, width)
    return Picture(rgb, None, full_height, full_width, kept)


def _decode_with_pillow(data: bytes, header: Header, own_colours: bool) -> Picture:
    with PLUGINS[header.format](io.BytesIO(data)) as image, warnings.catch_warnings():
        # Only TIFF asks here; check() has looked at the size already.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        inverted = _inverted_sixteen_bits(image)
        image.load()
        icc = image.info.get("icc_profile")
        # Pillow turns TIFF by itself while loading, and then reports orientation 1.
        orientation = orientation_of(image)
        pixels, alpha = _planes(image, inverted)
    kept = icc if own_colours and is_rgb(pixels, icc) else None
    rgb = turn(pixels if kept else to_srgb(pixels, icc), orientation)
    if alpha is not None:
        alpha = None if alpha.min() == 255 else turn(alpha, orientation)
    if alpha is not None:
        # What lies hidden under transparency is anything from black to an older version of the picture.
        for rows in _rows(*alpha.shape):
            hidden = cv2.threshold(alpha[rows], 0, 255, cv2.THRESH_BINARY_INV)[1]
            cv2.bitwise_or(rgb[rows], cv2.cvtColor(hidden, cv2.COLOR_GRAY2RGB), rgb[rows])
    height, width = rgb.shape[:2]
    return Picture(rgb, alpha, height, width, kept)


def _planes(image: Image.Image, inverted: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Split a loaded image into gray [h, w], RGB [h, w, 3] or CMYK [h, w, 4] and alpha [h, w], all uint8."""
    key = image.info.get("transparency")
    if image.mode in _SIXTEEN_BITS:
        levels = np.asarray(image).astype(np.uint16, copy=False)
        pixels = ((levels + np.uint32(128)) // 257).astype(np.uint8)  # 65535 / 257 = 255
        alpha = np.where(levels == key, 0, 255).astype(np.uint8) if isinstance(key, int) else None
        return (255 - pixels if inverted else pixels), alpha
    if image.mode in ("RGB", "RGBX", "YCbCr") and key is None:
        return _array(image, "RGB"), None
    if image.mode == "CMYK":
        return _array(image, "CMYK"), None
    if (
        image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255
    ):  # the 16-bit colour of a picture that Pillow reads as 8 bits
        image.info["transparency"] = tuple(level >> 8 for level in key)
    if image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa"):
        raise PermanentError(
            Code.UNSUPPORTED_FORMAT, f"{image.format} with pixels of the kind {image.mode} cannot be read"
        )
    if not image.has_transparency_data:
        return _array(image, "L" if image.mode in ("1", "L") else "RGB"), None
    gray = image.mode in ("1", "L", "LA", "La")
    pixels = np.empty((image.height, image.width) if gray else (image.height, image.width, 3), np.uint8)
    alpha = np.empty((image.height, image.width), np.uint8)
    for rows, strip in _strips(image, "LA" if gray else "RGBA"):
        # By OpenCV: numpy takes as long for these copies as the whole file takes to decode.
        if gray:
            cv2.extractChannel(strip, 0, pixels[rows])
        else:
            cv2.cvtColor(strip, cv2.COLOR_RGBA2RGB, pixels[rows])
        cv2.extractChannel(strip, strip.shape[2] - 1, alpha[rows])
    return pixels, alpha


def _array(image: Image.Image, mode: str) -> npt.NDArray[np.uint8]:
    """The pixels as a writable array."""
    channels = {"L": (), "RGB": (3,), "CMYK": (4,)}[mode]
    out = np.empty((image.height, image.width, *channels), np.uint8)
    for rows, strip in _strips(image, mode):
        out[rows] = strip
    return out


def _strips(image: Image.Image, mode: str) -> Iterator[tuple[slice, npt.NDArray[np.uint8]]]:
    """The pixels of some rows at a time: a second whole copy would cost too much."""
    for rows in _rows(image.height, image.width):
        yield rows, np.asarray(image.crop((0, rows.start, image.width, rows.stop)).convert(mode))


def _rows(height: int, width: int) -> Iterator[slice]:
    """All rows, a quarter of a million pixels at a time."""
    step = max(1, (1 << 18) // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def _inverted_sixteen_bits(image: Image.Image) -> bool:
    """Whether this is a 16-bit TIFF with white as zero, which Pillow inverts only with 8 bits."""
    tags = getattr(image, "tag_v2", {})
    return image.mode in _SIXTEEN_BITS and tags.get(_PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO


def lacks_memory(error: Exception) -> bool:
    """Whether Python or OpenCV got no memory."""
    return isinstance(error, MemoryError) or (isinstance(error, cv2.error) and error.code == cv2.Error.STS_NO_MEM)


def _named(error: Exception, header: Header) -> PermanentError:
    if isinstance(error, Image.DecompressionBombError):
        return PermanentError(Code.TOO_LARGE, f"a {header.format} of this size cannot be decoded ({error})")
    if lacks_memory(error):
        return PermanentError(
            Code.TOO_LARGE,
            f"the image of {header.width} x {header.height} pixels needs more memory than this process has",
        )
    return PermanentError(Code.TRUNCATED, f"the {header.format} data is cut off or damaged ({error})")
