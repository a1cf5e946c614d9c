"""Small before and after pictures, made when somebody looks, kept within a bound."""

import threading
from collections import OrderedDict
from typing import Final, cast

import numpy as np

from model.codecs.decode import decode
from model.preview import preview_of
from pipeline.errors import ItemError
from pipeline.ids import ETag, Key
from pipeline.runs import RunSpec
from pipeline.settings import Settings
from pipeline.storage import ObjectStore
from producer.report import Card

_PIXELS = 60_000_000
"""A cutout of more pixels is not decoded here: 60 megapixels take half a gigabyte for a moment."""
_MOST = 4096
_SIDE: Final = 480
"""Pixels of a small picture's longer side."""


class Previews:
    """Makes one at a time, whoever asks. Safe to use from many threads.

    Args:
        store: where pictures lie.
        settings: bounds of what is decoded.
        most_bytes: what all kept previews may take.
    """

    def __init__(self, store: ObjectStore, settings: Settings, most_bytes: int) -> None:
        self._store = store
        self._settings = settings
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, ...], Card | None] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, spec: RunSpec, row: dict[str, object]) -> Card | None:
        """The card of a finished image; None when its pictures are gone, others by now, or too large."""
        name = (spec.target_bucket, str(row["output"]), str(row.get("etag")), str(row.get("output_etag")))
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
            card = self._make(spec, row)
            self._kept[name] = card
            self._bytes += _size(card)
            while self._bytes > self._most_bytes or len(self._kept) > _MOST:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= _size(dropped)
            return card

    def _make(self, spec: RunSpec, row: dict[str, object]) -> Card | None:
        if cast(int, row["width"]) * cast(int, row["height"]) > _PIXELS:
            return None
        try:
            return _card(spec, row, self._settings, self._store)
        except (ItemError, ValueError):
            return None


def _card(spec: RunSpec, row: dict[str, object], settings: Settings, store: ObjectStore) -> Card:
    source = store.get(
        spec.source_bucket, Key(str(row["key"])), etag=ETag(str(row["etag"])), max_bytes=settings.max_bytes
    ).body
    output = store.get(
        spec.target_bucket, Key(str(row["output"])), etag=ETag(str(row["output_etag"])), max_bytes=1 << 31
    ).body
    photo = decode(source, max_megapixels=settings.max_megapixels, at_least=(_SIDE, _SIDE))
    cutout = decode(output, max_megapixels=settings.max_megapixels)
    step = max(max(cutout.rgb.shape) // (2 * _SIDE), 1)  # first: of 60 megapixels a copy with alpha takes 240 MB
    pixels = cutout.rgb[::step, ::step]
    if cutout.alpha is not None:
        pixels = np.dstack([pixels, cutout.alpha[::step, ::step]])
    return Card.of(row, preview_of(photo.rgb, pixels, _SIDE))


def _size(card: Card | None) -> int:
    return len(card.before) + len(card.after) if card else 0
