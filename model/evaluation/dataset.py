"""Photos with their true alpha: `DIR/validation/<split>/NNN.jpg` beside `NNN.png`, a grey picture of the same size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model.codecs.decode import decode
from pipeline.errors import ItemError, SetupError

_LAYOUT: Final = "lay out DIR/validation/studio/001.jpg beside 001.png, or run 'mattemill model data DIR'"
_MAX_MEGAPIXELS: Final = 100
_FIRST: Final = ("studio", "photo")  # the order in tables; others follow by name


@dataclass(frozen=True, slots=True)
class Pair:
    """One photo with its truth, as files."""

    split: str
    photo: Path
    truth: Path

    @property
    def name(self) -> str:
        """As it stands in reports."""
        return f"{self.split}/{self.photo.stem}"

    def read_photo(self, at_least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """The photo, uint8 [h, w, 3] RGB; decoded smaller where `at_least` (height, width) allows, as a worker does.

        Raises:
            SetupError: when it cannot be read.
        """
        try:
            return decode(self.photo.read_bytes(), max_megapixels=_MAX_MEGAPIXELS, at_least=at_least).rgb
        except (OSError, ItemError) as error:
            raise SetupError(f"{self.photo} cannot be read: {error}.") from error

    def read_truth(self, height: int, width: int) -> NDArray[np.uint8]:
        """The true alpha, uint8 [height, width].

        Raises:
            SetupError: when it cannot be read or has another size.
        """
        truth = cv2.imread(str(self.truth), cv2.IMREAD_GRAYSCALE)
        if truth is None or truth.shape != (height, width):
            got = "no picture" if truth is None else f"{truth.shape[0]}x{truth.shape[1]}"
            raise SetupError(f"{self.truth} is {got}, expected a grey picture of {height}x{width}.", _LAYOUT)
        return np.asarray(truth, np.uint8)


def find_pairs(data: Path) -> Sequence[Pair]:
    """Every photo of a data set that has its truth beside it, split by split.

    Raises:
        SetupError: when there are none.
    """
    root = data / "validation"
    pairs = [
        Pair(photo.parent.name, photo, truth)
        for photo in sorted(root.glob("*/*.jpg"))
        if (truth := photo.with_suffix(".png")).is_file()
    ]
    if not pairs:
        raise SetupError(f"There are no photos with their truth in {root}.", _LAYOUT)
    order = {split: place for place, split in enumerate(_FIRST)}
    return sorted(pairs, key=lambda pair: (order.get(pair.split, len(order)), pair.split, pair.photo.stem))
