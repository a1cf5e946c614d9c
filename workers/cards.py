"""The before and after pictures of a report."""

from collections.abc import Iterable
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from model.codecs.decode import decode
from pipeline.errors import ItemError
from pipeline.ids import Key
from pipeline.runs import RunSpec
from pipeline.settings import Settings
from pipeline.storage import ObjectStore
from producer.report import Card

_PREVIEW = 480


def make_cards(spec: RunSpec, rows: Iterable[dict[str, object]], settings: Settings, store: ObjectStore) -> list[Card]:
    """A card for each of these finished images whose pictures are still what they were."""
    cards = []
    for row in rows:
        try:
            cards.append(_card(spec, row, settings, store))
        except (ItemError, ValueError):
            continue  # its picture has changed or gone since; the manifest has its row
    return cards


def _card(spec: RunSpec, row: dict[str, object], settings: Settings, store: ObjectStore) -> Card:
    source = store.get(spec.source_bucket, Key(str(row["key"])), max_bytes=settings.max_bytes).body
    output = store.get(spec.target_bucket, Key(str(row["output"])), max_bytes=1 << 31).body
    before = decode(source, max_megapixels=settings.max_megapixels, at_least=(_PREVIEW, _PREVIEW))
    after = decode(output, max_megapixels=settings.max_megapixels)
    height, width = after.rgb.shape[:2]
    scale = min(_PREVIEW / max(height, width), 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(before.rgb, size, interpolation=cv2.INTER_AREA)
    alpha = after.alpha if after.alpha is not None else np.full((height, width), 255, np.uint8)
    rgba = cv2.resize(_premultiplied(after.rgb, alpha), size, interpolation=cv2.INTER_AREA)
    return Card(
        key=str(row["key"]),
        output=str(row["output"]),
        width=cast(int, row["width"]),
        height=cast(int, row["height"]),
        output_bytes=cast(int, row["output_bytes"]),
        milliseconds=cast(dict[str, float], row.get("ms") or {}),
        before=_webp(cv2.cvtColor(small, cv2.COLOR_RGB2BGR)),
        after=_webp(_straight_bgra(rgba)),
    )


def _premultiplied(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float32]:
    weight = alpha[:, :, None].astype(np.float32) / 255
    return np.concatenate([rgb * weight, weight * 255], axis=2)


def _straight_bgra(rgba: NDArray[np.generic]) -> NDArray[np.uint8]:
    pixels = rgba.astype(np.float32)
    weight = np.maximum(pixels[:, :, 3:], 1) / 255
    straight = np.concatenate([pixels[:, :, 2::-1] / weight, pixels[:, :, 3:]], axis=2)
    return np.asarray(np.clip(np.rint(straight), 0, 255), np.uint8)


def _webp(pixels: cv2.typing.MatLike) -> bytes:
    return cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()
