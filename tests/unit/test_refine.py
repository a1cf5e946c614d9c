import cv2
import numpy as np
import pytest

from model import refine as refining
from model.shrink import shrink
from tests.drawings import UInt8, composed, disc, error, shrunk


def refine(alpha: UInt8, rgb: UInt8) -> UInt8:
    return refining.whole(refining.refine(alpha, rgb, refining.guide(alpha, rgb)))


@pytest.mark.parametrize("factor", [0.7, 1, 1.3, 2, 2.1, 3.7, 8, 12.5])
@pytest.mark.parametrize("size", [(301, 407), (407, 301), (64, 1000)])
def test_flat_regions_stay_exact(factor: float, size: tuple[int, int]) -> None:
    alpha = shrunk(disc(*size), factor)
    rgb = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    fine = refine(alpha, rgb)
    assert fine.shape == size
    assert fine.dtype == np.uint8
    assert fine.flags.c_contiguous
    # Two pixels of the model's alpha away from anything else: whatever interpolates, it sees one value only.
    window = np.ones((5, 5), np.uint8)
    for value, flat in ((0, cv2.dilate(alpha, window) == 0), (255, cv2.erode(alpha, window) == 255)):
        inside = cv2.resize(flat.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
        assert (fine[inside] == value).all()


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("factor", [1.5, 5])
def test_one_value_everywhere(value: int, factor: float) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    fine = refine(shrunk(np.full((90, 130), value, np.uint8), factor), rgb)
    assert np.abs(fine.astype(np.int16) - value).max() <= (1 if value == 77 else 0)


@pytest.mark.parametrize("factor", [3, 4, 8])
@pytest.mark.parametrize(("subject", "background"), [((250, 240, 230), (20, 30, 40)), ((20, 30, 40), (240, 250, 245))])
def test_the_edge_follows_the_photo(
    factor: int, subject: tuple[int, int, int], background: tuple[int, int, int]
) -> None:
    alpha = disc(320, 480)
    rgb = composed(alpha, subject, background)
    low = shrunk(alpha, factor)
    cubic = cv2.resize(low, (480, 320), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    fine = refine(low, rgb)
    assert error(fine, alpha) < 0.6 * error(cubic, alpha)


def test_rows_and_columns_are_treated_alike() -> None:
    alpha = disc(330, 470)
    rgb = composed(alpha, (250, 40, 30), (20, 90, 240))
    low = shrunk(alpha, 5)
    turned = refine(np.ascontiguousarray(low.T), np.ascontiguousarray(rgb.transpose(1, 0, 2)))
    assert np.abs(refine(low, rgb).astype(np.int16) - turned.T).max() <= 2


def test_no_seams_between_cells() -> None:
    y, x = np.mgrid[:400, :700].astype(np.float32)
    ramp = np.rint(255 * (x + y) / 1098).astype(np.uint8)
    rgb = np.dstack([ramp] * 3)
    fine = refine(shrunk(ramp, 4), rgb).astype(np.int16)
    assert np.abs(np.diff(fine, axis=0)).max() <= 2
    assert np.abs(np.diff(fine, axis=1)).max() <= 2


@pytest.mark.parametrize("factor", [1.5, 5])
def test_strips_of_any_height_are_those_of_the_whole(factor: float) -> None:
    alpha = disc(330, 470)
    rgb = composed(alpha, (250, 40, 30), (20, 90, 240))
    low = shrunk(alpha, factor)
    fine = refining.refine(low, rgb, refining.guide(low, rgb))
    assert fine.shape == alpha.shape
    for rows in (1, 7, 32, 330):
        strips = [fine.rows(slice(top, min(top + rows, 330))) for top in range(0, 330, rows)]
        np.testing.assert_array_equal(np.vstack(strips), refine(low, rgb))


@pytest.mark.parametrize(("factor", "levels"), [(1.5, 13), (3, 5), (8, 5)])
@pytest.mark.parametrize("height", [37, 100, 200, 400])
def test_the_alpha_of_a_small_copy_is_the_whole_made_smaller(factor: float, levels: int, height: int) -> None:
    alpha = disc(800, 1200)
    rgb = composed(alpha, (250, 40, 30), (20, 90, 240))
    low = shrunk(alpha, factor)
    size = height * 1200 // 800, height
    expected = cv2.resize(refine(low, rgb), size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    small = refining.refine(low, rgb, refining.guide(low, rgb)).at(shrink(rgb, *size[::-1]))
    assert small.shape == (height, size[0])
    edge = (expected > 0) & (expected < 255)
    assert error(small[edge], expected[edge]) < levels  # stretched to this size by itself, `low` would be off by 20
    assert error(small[~edge], expected[~edge]) < 0.1


@pytest.mark.parametrize("low", [(1, 1), (1, 40), (40, 1), (3, 2)])
@pytest.mark.parametrize("high", [(1, 1), (1, 200), (200, 1), (7, 500)])
def test_odd_sizes(low: tuple[int, int], high: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    alpha = random.integers(0, 256, low, dtype=np.uint8)
    rgb = random.integers(0, 256, (*high, 3), dtype=np.uint8)
    for array in (alpha, rgb):
        array.flags.writeable = False
    fine = refine(alpha, rgb)
    assert fine.shape == high


def test_inputs_are_not_changed() -> None:
    alpha = disc(200, 300)
    rgb = composed(alpha, (200, 30, 30), (20, 200, 20))
    before = rgb.copy()
    refine(shrunk(alpha, 4), rgb)
    np.testing.assert_array_equal(rgb, before)


@pytest.mark.parametrize("size", [(10, 10), (77, 31), (150, 200), (151, 200), (299, 401), (300, 401), (1, 1)])
def test_shrinking_takes_the_mean_of_areas(size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (300, 401, 3), dtype=np.uint8)
    expected = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(shrink(rgb, *size).astype(np.int16) - expected).max() <= 1


def test_the_mean_of_very_many_rows() -> None:
    rgb = np.full((1700, 30, 3), 255, np.uint8)
    rgb[850:] = 254
    np.testing.assert_array_equal(shrink(rgb, 2, 5), np.repeat([255, 254], 15).reshape(2, 5, 3))


@pytest.mark.parametrize("size", [(10, 10), (77, 31), (50, 200), (1, 1)])
def test_shrinking_one_row_in_three_is_shrinking_those(size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (300, 401, 3), dtype=np.uint8)
    rows = np.ascontiguousarray(rgb[1::3])
    np.testing.assert_array_equal(shrink(rgb, *size, step=3), shrink(rows, *size))
