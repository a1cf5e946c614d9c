"""The EXIF data of a photo, fit for a picture made of it."""

import io
import warnings
from typing import Final

from PIL import ExifTags, Image

from model.codecs.probe import PLUGINS

_HEADER: Final = b"Exif\0\0"
_LONGEST: Final = 60_000
"""Bytes; a JPEG segment has no room for more."""


def exif_of(data: bytes, format: str, height: int, width: int) -> bytes:
    """Read the EXIF data of a file, without its preview, saying that the picture is upright and how large it is.

    Args:
        data: the whole file, which has been decoded before.
        format: as `probe` names it.
        height: pixels of the picture that the data will go with.
        width: likewise.

    Returns:
        The TIFF part, as in a PNG's eXIf chunk; empty when the photo has none, or none that can be read and kept.
    """
    try:
        with PLUGINS[format](io.BytesIO(data)) as image, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken entries; the sound ones are kept
            exif = Image.Image.getexif(image)
            if not exif:
                return b""
            exif[ExifTags.Base.Orientation] = 1
            details = exif.get_ifd(ExifTags.IFD.Exif)
            if details:
                details[ExifTags.Base.ExifImageWidth] = width
                details[ExifTags.Base.ExifImageHeight] = height
            exif.get_ifd(ExifTags.IFD.GPSInfo)
            made = exif.tobytes().removeprefix(_HEADER)
    except Exception:  # noqa: BLE001  broken metadata is no reason to lose a cutout
        return b""
    return made if len(made) <= _LONGEST else b""
