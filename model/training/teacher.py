"""Alpha for photos that have none, guessed by a network that is installed: pseudo-labels."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.engines.onnx import OnnxEngine
from model.preprocess import content, letterbox
from model.store import ModelStore

_CONFIDENT = 0.22
"""Most of a subject's area that may be undecided (alpha between .1 and .9)."""


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """What a teacher says of a photo.

    Attributes:
        alpha: uint8 [h, w], as large as the photo.
        confident: whether it decided nearly everywhere and found neither nothing nor everything.
    """

    alpha: NDArray[np.uint8]
    confident: bool


class Teacher:
    """An installed model that labels photos.

    Args:
        home: MATTEMILL_HOME.
        name: the model.

    Raises:
        SetupError: when it is not installed.
    """

    def __init__(self, home: Path, name: str = "u2netp") -> None:
        store = ModelStore(home)
        self._engine = OnnxEngine(store.path(name), store.spec(name), max_batch=1, threads=1)
        self._bucket = self._engine.size_buckets[0]

    def label(self, rgb: NDArray[np.uint8]) -> PseudoLabel:
        """Alpha for a photo, uint8 [h, w, 3]: the mean of what the teacher says of it and of its mirror image."""
        alphas = [self._once(rgb), self._once(np.ascontiguousarray(rgb[:, ::-1]))[:, ::-1]]
        alpha = np.mean(alphas, axis=0).astype(np.uint8)
        opaque, undecided = float((alpha > 127).mean()), float(((alpha > 25) & (alpha < 230)).mean())
        return PseudoLabel(alpha, 0.015 < opaque < 0.9 and undecided < _CONFIDENT * opaque)

    def close(self) -> None:
        """Free the engine."""
        self._engine.__exit__(None, None, None)

    def _once(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image, box = letterbox(rgb, self._bucket)
        alpha = content(self._engine.infer(image[None])[0], box)
        size = (rgb.shape[1], rgb.shape[0])
        return np.asarray(cv2.resize(np.ascontiguousarray(alpha), size, interpolation=cv2.INTER_CUBIC), np.uint8)
