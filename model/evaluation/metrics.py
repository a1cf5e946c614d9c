"""How far an alpha is from the true one. All measures take uint8 [h, w] of the same shape, 0 transparent, 255 opaque.

Sums are in thousands of pixels, as papers give them. In all formulas a is the alpha and t the truth, in 0..1.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model.card import Score

Alpha = NDArray[np.uint8]
Floats = NDArray[np.float64]

OPAQUE: Final = 128
"""From here on a pixel counts as subject where a measure wants yes or no."""
_SIGMA: Final = 1.4
_STEPS: Final = 10
_IGNORED_DISTANCE: Final = 0.15
_TINY: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Measures:
    """All measures of one image, named as the functions below."""

    iou: float
    s_measure: float
    mae: float
    mse: float
    sad: float
    gradient: float
    connectivity: float


def measure(alpha: Alpha, truth: Alpha) -> Measures:
    """All measures of one image."""
    return Measures(
        iou(alpha, truth),
        s_measure(alpha, truth),
        mae(alpha, truth),
        mse(alpha, truth),
        sad(alpha, truth),
        gradient(alpha, truth),
        connectivity(alpha, truth),
    )


def score(rows: Sequence[Measures]) -> Score:
    """The mean of each measure over images; of `iou` the median too.

    Raises:
        ValueError: when there are no images.
    """
    if not rows:
        raise ValueError("a score is over at least one image")
    means = {name: float(np.mean([asdict(row)[name] for row in rows])) for name in asdict(rows[0])}
    return Score(images=len(rows), iou_median=float(np.median([row.iou for row in rows])), **means)


def sad(alpha: Alpha, truth: Alpha) -> float:
    """Sum of absolute differences, sum |a - t| / 1000 (Rhemann et al., CVPR 2009)."""
    return float(np.abs(_shares(alpha, truth)).sum() / 1000)


def mae(alpha: Alpha, truth: Alpha) -> float:
    """Mean absolute error, mean |a - t|."""
    return float(np.abs(_shares(alpha, truth)).mean())


def mse(alpha: Alpha, truth: Alpha) -> float:
    """Mean squared error, mean (a - t)^2 (Rhemann et al., CVPR 2009)."""
    return float(np.square(_shares(alpha, truth)).mean())


def iou(alpha: Alpha, truth: Alpha) -> float:
    """Intersection over union of what is at least half opaque; 1 where neither has anything (Jaccard, 1912)."""
    found, there = alpha >= OPAQUE, truth >= OPAQUE
    union = np.count_nonzero(found | there)
    return np.count_nonzero(found & there) / union if union else 1.0


def gradient(alpha: Alpha, truth: Alpha) -> float:
    """Gradient error, sum (|grad a| - |grad t|)^2 / 1000 (Rhemann et al., CVPR 2009, section 4).

    The gradient is that of the picture smoothed by a Gaussian of sigma 1.4, each filter of unit energy, cut off where
    the Gaussian falls to a hundredth; beyond the border the edge is repeated.
    """
    _check(alpha, truth)
    return float(np.square(_slope(alpha) - _slope(truth)).sum() / 1000)


def connectivity(alpha: Alpha, truth: Alpha) -> float:
    """Connectivity error, sum |phi(a) - phi(t)| / 1000 (Rhemann et al., CVPR 2009, section 4).

    A pixel's l is the highest of the levels 0, 0.1, ... 1 at which it still hangs together (4 neighbours) with the
    largest region where both alpha and truth reach that level; its distance d = a - l counts from 0.15 on:
    phi = 1 - d, else 1.
    """
    _check(alpha, truth)
    levels = np.ones(alpha.shape)
    free = np.ones(alpha.shape, bool)  # hung together at every level so far
    for step in range(1, _STEPS + 1):
        # In integers: 255 * step / 10 is exact where a rounded threshold is not.
        both = (np.minimum(alpha, truth).astype(np.int32) * _STEPS >= 255 * step) & free
        lost = free & ~_largest(both)
        levels[lost] = (step - 1) / _STEPS
        free &= ~lost
    return float(np.abs(_hangs(alpha, levels) - _hangs(truth, levels)).sum() / 1000)


def s_measure(alpha: Alpha, truth: Alpha) -> float:
    """Structure measure, half object-aware and half region-aware similarity (Fan et al., ICCV 2017, equations 1 to 8).

    The truth counts as yes or no. Where it is empty or full, the measure is the share of the alpha that agrees.
    """
    _check(alpha, truth)
    found, there = alpha.astype(np.float64) / 255, truth >= OPAQUE
    share = float(there.mean())
    if share == 0:
        return 1 - float(found.mean())
    if share == 1:
        return float(found.mean())
    of_object = share * _object(found[there]) + (1 - share) * _object(1 - found[~there])
    return max(0.0, 0.5 * of_object + 0.5 * _regions(found, there.astype(np.float64)))


def _object(values: Floats) -> float:
    """2 x / (x^2 + 1 + sigma) of the values where all should be 1 (equation 5, lambda = 0.5)."""
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean * mean + 1 + spread + _TINY)


def _regions(found: Floats, there: Floats) -> float:
    """The similarity of four rectangles that meet in the truth's centre of mass, weighted by area (equation 4)."""
    rows, columns = np.nonzero(there)
    # One more, because centres were counted from 1 when the measure was published.
    middle, centre = _rounded(rows.mean()) + 1, _rounded(columns.mean()) + 1
    total = 0.0
    for vertical in (slice(0, middle), slice(middle, None)):
        for horizontal in (slice(0, centre), slice(centre, None)):
            part = there[vertical, horizontal]
            if part.size:
                total += part.size / there.size * _similarity(found[vertical, horizontal], part)
    return total


def _similarity(x: Floats, y: Floats) -> float:
    """SSIM without its constants: 4 mx my sxy / ((mx^2 + my^2)(sx^2 + sy^2)); 1 where nothing varies on either side."""
    mean_x, mean_y = float(x.mean()), float(y.mean())
    count = max(x.size - 1, 1)
    both = float(((x - mean_x) * (y - mean_y)).sum()) / count
    spread = float(np.square(x - mean_x).sum() + np.square(y - mean_y).sum()) / count
    above, below = 4 * mean_x * mean_y * both, (mean_x * mean_x + mean_y * mean_y) * spread
    if above != 0:
        return above / (below + _TINY)
    return 1.0 if below == 0 else 0.0


def _slope(alpha: Alpha) -> Floats:
    """The length of the smoothed gradient at every pixel, alpha in 0..1."""
    # The radius at which a Gaussian with a peak of 1 / (sqrt(2 pi) sigma) falls to 0.01.
    radius = math.ceil(_SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * _SIGMA * 0.01)))
    at = np.arange(-radius, radius + 1, dtype=np.float64)
    smooth = np.exp(-at * at / (2 * _SIGMA * _SIGMA))
    steep = at * smooth
    smooth /= np.linalg.norm(smooth)
    steep /= np.linalg.norm(steep)
    share = alpha.astype(np.float64) / 255
    across = cv2.sepFilter2D(share, cv2.CV_64F, steep, smooth, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(share, cv2.CV_64F, smooth, steep, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(across, down)


def _largest(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest part of a region that hangs together by its sides."""
    count, labels, facts, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    if count < 2:
        return np.zeros(region.shape, bool)
    largest: NDArray[np.bool_] = labels == 1 + int(np.argmax(facts[1:, cv2.CC_STAT_AREA]))
    return largest


def _hangs(alpha: Alpha, levels: Floats) -> Floats:
    distance = alpha / 255 - levels
    return 1 - np.where(distance >= _IGNORED_DISTANCE, distance, 0)


def _rounded(value: np.floating) -> int:
    return math.floor(float(value) + 0.5)  # halves up, unlike Python's round


def _shares(alpha: Alpha, truth: Alpha) -> Floats:
    _check(alpha, truth)
    return (alpha.astype(np.float64) - truth) / 255


def _check(alpha: Alpha, truth: Alpha) -> None:
    if alpha.shape != truth.shape or alpha.ndim != 2 or alpha.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(
            f"alpha and truth are uint8 [h, w] of one shape; got {alpha.dtype} {list(alpha.shape)} "
            f"and {truth.dtype} {list(truth.shape)}"
        )
