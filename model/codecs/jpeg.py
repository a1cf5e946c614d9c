"""JPEG to pixels, strictly: a damaged file raises, it never becomes a half-grey picture."""

import re
import struct
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg

from model.codecs.scratch import Scratch
from pipeline.errors import Code, PermanentError

_SCALES: Final = (8, 4, 2)
_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9


def decode_jpeg(
    data: bytes, at_least: tuple[int, int] | None, scratch: Scratch | None = None
) -> tuple[npt.NDArray[np.uint8], int, int]:
    """Decode a JPEG, at a reduced scale where that is enough.

    libjpeg's warnings are errors here: cut off data, zeroes instead of data, a faked end marker. Altered
    bytes inside the data of a baseline JPEG have no checksum; only the object's can tell.

    Args:
        data: the whole file.
        at_least: (height, width) as stored in the file that suffices; the scale is then 1/2, 1/4 or 1/8. None
            decodes all.
        scratch: lends memory for RGB pixels, if given.

    Returns:
        (pixels, full_height, full_width): uint8 [h, w] gray, [h, w, 3] RGB or [h, w, 4] CMYK (255 is full
        ink), not yet turned by the EXIF orientation; the size of the file in pixels.

    Raises:
        PermanentError: TRUNCATED, UNSUPPORTED_FORMAT.
        MemoryError: when the pixels do not fit into memory.
    """
    _require_all_scans(data)
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        out_height, out_width = height, width
        for scale in _SCALES if at_least is not None else ():
            h, w = -(-height // scale), -(-width // scale)
            if at_least is not None and h >= at_least[0] and w >= at_least[1]:
                out_height, out_width = h, w
                break
        colors = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}.get(space, "RGB")
        into = None
        if scratch is not None and colors == "RGB":
            into = scratch.lend(out_height, out_width, 3)
        elif scratch is not None:
            scratch.drop()
        pixels = simplejpeg.decode_jpeg(data, colors, min_height=out_height, min_width=out_width, buffer=into)
    except ValueError as error:
        raise _named(str(error)) from error
    if colors == "GRAY":
        pixels = pixels[:, :, 0]
    elif colors == "CMYK":
        # Adobe's convention, followed by every viewer: ink is stored inverted.
        np.invert(pixels, out=pixels)
    return pixels, height, width


def _named(message: str) -> PermanentError:
    lowered = message.lower()
    if "unsupported" in lowered or "not supported" in lowered or "precision" in lowered:
        return PermanentError(Code.UNSUPPORTED_FORMAT, f"this kind of JPEG cannot be read ({message})")
    return PermanentError(Code.TRUNCATED, f"the JPEG data is cut off or damaged ({message})")


def _require_all_scans(data: bytes) -> None:
    """Check that the scans of a JPEG hold every bit of every coefficient.

    With whole scans missing before the end marker, which a progressive file has many of, libjpeg gives a
    blurred picture and no warning. The first scan of a coefficient says how many low bits are still to come
    and each refinement how many are left (ITU-T T.81, G.1.1).

    Raises:
        PermanentError: TRUNCATED.
    """
    missing: dict[int, list[int]] = {}
    at = 2
    while (found := _MARKER.search(data, at)) and len(data) >= found.end() + 2:
        marker = found[0][1]
        if marker == _END_OF_IMAGE:
            break
        (length,) = struct.unpack_from(">H", data, found.end())
        at = found.end() + length
        body = data[found.end() + 2 : at]
        try:
            if marker in _START_OF_FRAME:
                missing = {body[6 + 3 * i]: [-1] * 64 for i in range(body[5])}
            elif marker == _START_OF_SCAN:
                count = body[0]
                first, last, bits = body[1 + 2 * count : 4 + 2 * count]
                for i in range(count):
                    missing[body[1 + 2 * i]][first : last + 1] = [bits & 15] * (last + 1 - first)
                if not any(bits for component in missing.values() for bits in component):
                    return
        except (LookupError, ValueError) as error:
            reason = f"the JPEG header at byte {found.start()} is damaged"
            raise PermanentError(Code.TRUNCATED, reason) from error
    raise PermanentError(Code.TRUNCATED, "the JPEG data is cut off: it ends before the last scan")
