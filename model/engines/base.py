"""What every engine is: uint8 photos of one size bucket in, uint8 alpha out."""

from collections.abc import Collection
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MattemillError
from pipeline.ids import SizeBucket


class EngineError(MattemillError):
    """An engine failed or answered with something that is no alpha. Which image is to blame is not known."""


class EngineLostError(EngineError):
    """The engine's device context is gone: nothing will succeed in this process again, and it must leave."""


class Engine(Protocol):
    """Runs one model. It is open from its construction until its `with` block ends, and is used by one thread."""

    @property
    def name(self) -> str:
        """As it stands in reports, such as "onnxruntime 1.32.0 CPU, 2 threads"."""
        ...

    @property
    def size_buckets(self) -> tuple[SizeBucket, ...]:
        """The sizes in pixels that it takes."""
        ...

    @property
    def max_batch(self) -> int:
        """The most images in one call."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def warm_up(self) -> None:
        """Run every size bucket alone and in a full batch, so that the first real image waits for nothing.

        Raises:
            EngineError: when a run fails; the engine is not to be used then.
        """
        ...

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Give the alpha of each image.

        Args:
            images: uint8 [N, H, W, 3] RGB, C-contiguous, 1 <= N <= max_batch, (H, W) one of `size_buckets`. They
                stay the caller's and are free again on return.

        Returns:
            uint8 [N, H, W], 0 transparent, 255 opaque, in the order of the images; the caller's own. An image's
            alpha does not depend on its neighbours.

        Raises:
            ValueError: when `images` is not shaped like that: the caller's mistake.
            EngineError: when the engine fails.
            EngineLostError: when it will fail for ever: the worker gives its work back and leaves with exit code 70.
        """
        ...


def check_images(images: NDArray[np.uint8], size_buckets: Collection[SizeBucket], max_batch: int) -> None:
    """Refuse what `Engine.infer` does not take.

    Raises:
        ValueError: says what was expected and what came.
    """
    got = f"got {images.dtype} {list(images.shape)}"
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images are uint8 [N, H, W, 3]; {got}")
    if not 1 <= images.shape[0] <= max_batch:
        raise ValueError(f"a batch holds 1 to {max_batch} images; {got}")
    if SizeBucket(images.shape[1], images.shape[2]) not in size_buckets:
        sizes = ", ".join(str(size_bucket) for size_bucket in size_buckets)
        raise ValueError(f"this engine takes images of {sizes}; {got}")
    if not images.flags.c_contiguous:
        raise ValueError(f"images are C-contiguous; got strides {list(images.strides)}")


def check_alpha(alpha: NDArray[np.uint8], images: NDArray[np.uint8]) -> None:
    """Refuse an answer that does not fit the images.

    Raises:
        EngineError: says what was expected and what came.
    """
    expected = images.shape[:3]
    if alpha.dtype != np.uint8 or alpha.shape != expected:
        raise EngineError(f"The engine gave {alpha.dtype} {list(alpha.shape)}, expected uint8 {list(expected)}.")
