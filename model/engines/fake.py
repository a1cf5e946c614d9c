"""An engine that takes a set time and thinks nothing: for load tests and for tests of everything round it."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.engines.base import EngineError, check_alpha, check_images
from pipeline.ids import SizeBucket

FAKE = "fake"
"""What the names of its engines begin with; an output made by one must never be taken for right."""


class FakeEngine:
    """Gives each image's luminance as its alpha, so that alphas mixed up between images are seen.

    Args:
        milliseconds: what one batch takes, whatever its size.
        size_buckets: the sizes in pixels that it takes.
        max_batch: the most images in one call.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        milliseconds: float,
        size_buckets: tuple[SizeBucket, ...],
        max_batch: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = f"{FAKE}, {milliseconds:g} ms a batch"
        self.size_buckets = size_buckets
        self.max_batch = max_batch
        self._seconds = milliseconds / 1000
        self._sleep = sleep
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        import cv2

        cv2.setNumThreads(1)  # an idle thread of OpenCV's spins for a while: this engine stands for work done elsewhere
        for size_bucket in self.size_buckets:
            for batch in sorted({1, self.max_batch}):
                self.infer(np.zeros((batch, size_bucket.height, size_bucket.width, 3), np.uint8))

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Engine.infer`; the alpha is the luminance (ITU-R BT.601, as OpenCV computes it)."""
        import cv2  # here: FAKE is asked for in workers that have no use for OpenCV

        check_images(images, self.size_buckets, self.max_batch)
        if not self._open:
            raise EngineError("The engine is closed.")
        self._sleep(self._seconds)
        count, height, width, _ = images.shape
        grey = cv2.cvtColor(images.reshape(count * height, width, 3), cv2.COLOR_RGB2GRAY)
        alpha = np.asarray(grey, np.uint8).reshape(count, height, width)
        check_alpha(alpha, images)
        return alpha
