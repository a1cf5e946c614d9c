"""Every measure against cases worked out by hand."""

import math

import numpy as np
import pytest

from model.evaluation.metrics import connectivity, gradient, iou, mae, measure, mse, s_measure, sad, score


def picture(*rows: list[float]) -> np.ndarray:
    """Alpha from shares of 1."""
    return np.rint(np.array(rows) * 255).astype(np.uint8)


EMPTY = np.zeros((20, 30), np.uint8)
FULL = np.full((20, 30), 255, np.uint8)
SQUARE = EMPTY.copy()
SQUARE[5:15, 10:20] = 255


@pytest.mark.parametrize("name", [iou, mae, mse, sad, s_measure, gradient, connectivity])
@pytest.mark.parametrize("truth", [EMPTY, FULL, SQUARE], ids=["empty", "full", "square"])
def test_the_truth_is_perfect(name: object, truth: np.ndarray) -> None:
    perfect = 1.0 if name in (iou, s_measure) else 0.0
    assert name(truth, truth) == pytest.approx(perfect)  # type: ignore[operator]


def test_differences() -> None:
    alpha, truth = picture([1, 0.2], [0, 0.6]), picture([1, 0], [0.4, 0.8])
    # |differences| are 0, 51, 102 and 51 of 255.
    assert sad(alpha, truth) == pytest.approx(204 / 255 / 1000)
    assert mae(alpha, truth) == pytest.approx(0.2)
    assert mse(alpha, truth) == pytest.approx((0.04 + 0.16 + 0.04) / 4)


def test_iou() -> None:
    alpha, truth = picture([1, 1, 0.4, 0]), picture([1, 0.6, 0.9, 0])
    assert iou(alpha, truth) == pytest.approx(2 / 3)
    assert iou(EMPTY, EMPTY) == 1
    assert iou(FULL, EMPTY) == 0
    assert iou(SQUARE, FULL) == pytest.approx(100 / 600)


def test_iou_counts_from_half_on() -> None:
    just, not_quite = np.full((1, 1), 128, np.uint8), np.full((1, 1), 127, np.uint8)
    assert iou(just, np.full((1, 1), 255, np.uint8)) == 1
    assert iou(not_quite, np.full((1, 1), 255, np.uint8)) == 0


def test_gradient_of_a_straight_edge() -> None:
    """Beside a straight edge the slope is, column by column, a sum of the filter's own values."""
    truth = EMPTY.copy()
    truth[:, 15:] = 255
    sigma = 1.4
    # 0.01 * sqrt(2 pi) * 1.4 = 0.03509; sqrt(-2 ln 0.03509) * 1.4 = 3.62: four to each side.
    bell = [math.exp(-(x**2) / (2 * sigma**2)) for x in range(-4, 5)]
    slope = [x * value for x, value in zip(range(-4, 5), bell, strict=True)]
    along = sum(bell) / math.sqrt(sum(value**2 for value in bell))  # nothing changes along the edge
    length = math.sqrt(sum(value**2 for value in slope))
    expected = 0.0
    for column in range(30):
        # The filter's values over white: white begins at column 15.
        across = sum(value for x, value in zip(range(-4, 5), slope, strict=True) if column + x >= 15) / length
        expected += 20 * (across * along) ** 2
    assert gradient(EMPTY, truth) == pytest.approx(expected / 1000, rel=1e-6)
    assert gradient(truth, EMPTY) == pytest.approx(expected / 1000, rel=1e-6)
    half = (truth * 0.4).astype(np.uint8)  # 102: the error grows with the square of the difference in contrast
    assert gradient(half, truth) == pytest.approx(expected * 0.36 / 1000, rel=1e-6)


def test_gradient_knows_no_direction() -> None:
    assert gradient(np.ascontiguousarray(SQUARE.T), np.zeros((30, 20), np.uint8)) == pytest.approx(
        gradient(SQUARE, EMPTY)
    )


def test_connectivity_of_a_piece_torn_off() -> None:
    """The last pixel hangs on nothing: l = 0 there. In the truth d = 1 and phi = 0; in the alpha d = 0.4, phi = 0.6."""
    alpha, truth = picture([1, 1, 1, 0, 0.4]), picture([1, 1, 1, 0, 1])
    assert connectivity(alpha, truth) == pytest.approx(0.6 / 1000)


def test_connectivity_ignores_a_small_distance() -> None:
    # l is 0.4 in the middle, where the alpha (0.5) leaves the truth (0.4): d = 0.1 counts as nothing on either side.
    alpha, truth = picture([1, 1, 0.5, 0]), picture([1, 1, 0.4, 0])
    assert connectivity(alpha, truth) == 0
    # At 0.6 the distance 0.2 counts: phi is 0.8 against 1.
    assert connectivity(picture([1, 1, 0.6, 0]), truth) == pytest.approx(0.2 / 1000)


def test_connectivity_takes_the_largest_region() -> None:
    # Two regions: three pixels and two. The two that are not the largest hang at level 0 only.
    truth = picture([1, 1, 1, 0, 1, 1])
    alpha = picture([1, 1, 1, 0, 1, 0.2])
    # Fifth pixel: d = 1 in both, equal. Sixth: phi(t) = 0, phi(a) = 0.8.
    assert connectivity(alpha, truth) == pytest.approx(0.8 / 1000)


def test_connectivity_goes_by_sides_not_corners() -> None:
    truth = picture([1, 1, 0], [0, 0, 1])
    alpha = picture([1, 1, 0], [0, 0, 0.4])
    assert connectivity(alpha, truth) == pytest.approx(0.6 / 1000)


def test_s_measure_of_a_truth_that_is_empty_or_full() -> None:
    grey = np.full((20, 30), 51, np.uint8)  # 0.2
    assert s_measure(grey, EMPTY) == pytest.approx(0.8)
    assert s_measure(grey, FULL) == pytest.approx(0.2)


def test_s_measure_by_hand() -> None:
    """A truth of two white columns of four, an alpha that finds one of them and half of the other."""
    truth = picture([0, 0, 1, 1], [0, 0, 1, 1])
    alpha = picture([0, 0, 0.6, 1], [0, 0, 0.6, 1])
    # Object: white 0.6, 1, 0.6, 1: x = 0.8, sigma = sqrt(4 * 0.04 / 3) = 0.230940; black: all right, 1.
    white = 2 * 0.8 / (0.64 + 1 + math.sqrt(0.16 / 3))
    of_object = 0.5 * white + 0.5 * 1
    # Region: the centre of mass is column 2.5, row 0.5, rounded up to 3 and 1, counted from 1 to 4 and 2: the one
    # rectangle there is holds everything. Over it the means are 0.4 and 0.5, squared deviations sum up to
    # 4 * 0.16 + 2 * 0.04 + 2 * 0.36 = 1.44 and 8 * 0.25 = 2, products to 4 * 0.2 + 2 * 0.1 + 2 * 0.3 = 1.6.
    of_region = 4 * 0.4 * 0.5 * (1.6 / 7) / ((0.16 + 0.25) * ((1.44 + 2) / 7))
    assert s_measure(alpha, truth) == pytest.approx(0.5 * of_object + 0.5 * of_region, rel=1e-6)


def test_s_measure_of_the_four_rectangles() -> None:
    """With a centre in the middle of the picture, a rectangle that is wrong costs its quarter."""
    truth = np.zeros((8, 8), np.uint8)
    truth[2:6, 2:6] = 255  # centre of mass 3.5, rounded to 4, counted from 1: 5
    alpha = truth.copy()
    alpha[5:, 5:] = 0  # the last rectangle, rows and columns 5 to 7: the truth has one white pixel of nine there
    white = np.array([1] * 15 + [0]) / 1.0
    x, spread = white.mean(), white.std(ddof=1)
    of_object = 0.25 * (2 * x / (x**2 + 1 + spread)) + 0.75 * 1
    of_region = (25 + 15 + 15) / 64 * 1 + 9 / 64 * 0  # an alpha of nothing against something: no similarity
    assert s_measure(alpha, truth) == pytest.approx(0.5 * of_object + 0.5 * of_region, rel=1e-6)


def test_s_measure_of_the_opposite_is_none() -> None:
    assert s_measure(255 - SQUARE, SQUARE) == pytest.approx(0, abs=0.01)


def test_scores_are_means_and_a_median() -> None:
    rows = [measure(alpha, SQUARE) for alpha in (SQUARE, EMPTY, FULL)]
    total = score(rows)
    assert total.images == 3
    assert total.iou == pytest.approx((1 + 0 + 100 / 600) / 3)
    assert total.iou_median == pytest.approx(100 / 600)
    assert total.mae == pytest.approx((0 + 100 / 600 + 500 / 600) / 3)
    with pytest.raises(ValueError, match="at least one"):
        score([])


@pytest.mark.parametrize(
    "alpha", [EMPTY[:-1], EMPTY.astype(np.float32), EMPTY[..., None]], ids=["shape", "dtype", "dimensions"]
)
def test_what_is_no_alpha_is_refused(alpha: np.ndarray) -> None:
    for measured in (sad, mse, mae, gradient, connectivity, s_measure):
        with pytest.raises(ValueError, match="of one shape"):
            measured(alpha, EMPTY)
