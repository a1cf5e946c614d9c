"""The alpha on its way from the engine to the encoding stage: compressed, with a small JSON header."""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

_HEADER = struct.Struct("<HHHI")
_VERSION = 1


class AlphaError(Exception):
    """These bytes hold no alpha that this version can read."""


@dataclass(frozen=True, slots=True)
class PackedAlpha:
    """What the matte stage hands over.

    Attributes:
        alpha: uint8 [h, w], the photo's part of the model's answer, without padding.
        milliseconds: what each stage took so far, in order.
        engine: name of the engine.
    """

    alpha: NDArray[np.uint8]
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    engine: str = ""


def pack_alpha(packed: PackedAlpha) -> bytes:
    """Compress; a matte of 1024 pixels takes some tens of kilobytes."""
    height, width = packed.alpha.shape
    about = json.dumps({"ms": dict(packed.milliseconds), "engine": packed.engine}).encode()
    body = isal_zlib.compress(about + packed.alpha.tobytes(), 1)
    return _HEADER.pack(_VERSION, height, width, len(about)) + body


def unpack_alpha(data: bytes) -> PackedAlpha:
    """The way back.

    Raises:
        AlphaError: when the bytes are damaged or of another version.
    """
    try:
        version, height, width, length = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise AlphaError(f"alpha of version {version}, expected {_VERSION}")
        inflater = zlib.decompressobj()
        body = inflater.decompress(data[_HEADER.size :], length + height * width + 1)
        if not inflater.eof or len(body) != length + height * width:
            raise AlphaError(f"alpha of {len(body)} bytes, expected {length + height * width}")
        about = json.loads(body[:length])
        alpha = np.frombuffer(body, np.uint8, offset=length).reshape(height, width)
        return PackedAlpha(alpha, about["ms"], about["engine"])
    except (struct.error, zlib.error, ValueError, KeyError) as error:
        raise AlphaError(f"the alpha is damaged: {error}") from error
