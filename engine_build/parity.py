"""How far one way of running a model is from another, in alpha."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine_build.photos import golden_photos
from model.engines.sidecar import Parity
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

Infer = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Bound:
    """The largest difference that is taken, in 255ths of alpha.

    FP16 keeps three digits. Measured with FP16's roundings on the processor (`engine_build.rounding`): u2netp, whose
    last sigmoid is steep, differs by 27 to 40 at single pixels of an edge, and by .24 to .51 in the mean. A wrong
    network, a wrong order of channels or an overflow gives a mean of tens.
    """

    largest: int = 64
    mean: float = 1.0


def compare(reference: Infer, other: Infer, size_buckets: tuple[SizeBucket, ...], photos: int) -> Parity:
    """Run both on the golden photos of each size bucket, one at a time.

    Args:
        reference: uint8 [N, H, W, 3] to uint8 [N, H, W].
        other: likewise.
        size_buckets: all that are compared.
        photos: how many for each.
    """
    largest, total, pixels = 0, 0, 0
    for size_bucket in size_buckets:
        for image in golden_photos(size_bucket, photos):
            gap = np.abs(reference(image[None]).astype(np.int16) - other(image[None]))
            largest = max(largest, int(gap.max()))
            total += int(gap.sum())
            pixels += gap.size
    return Parity(photos * len(size_buckets), largest, round(total / pixels, 4))


def check_parity(parity: Parity, bound: Bound, what: str, hint: str) -> None:
    """Refuse a difference above the bound.

    Raises:
        SetupError: gives the figures.
    """
    if parity.largest > bound.largest or parity.mean > bound.mean:
        raise SetupError(
            f"{what} differs from the model: by {parity.largest}/255 at most and {parity.mean:g}/255 in the mean, "
            f"expected at most {bound.largest}/255 and {bound.mean:g}/255.",
            hint,
        )


def onnx_runner(model: bytes, threads: int = 1) -> Infer:
    """Run an ONNX file that fulfils the contract on the processor.

    Raises:
        SetupError: when ONNX Runtime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors have no common base
        raise SetupError(f"ONNX Runtime cannot load the network: {error}.", "mattemill engine verify") from error

    def infer(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        alpha: NDArray[np.uint8] = session.run(None, {"images": images})[0]
        return alpha

    return infer
