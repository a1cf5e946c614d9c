import numpy as np
import pytest

from model.foreground import cut_out, estimate
from tests.drawings import UInt8, composed, disc


def whole(rgb: UInt8, alpha: UInt8, despill: bool = True, rows: int = 32) -> UInt8:
    colours = estimate(rgb, alpha) if despill else None
    out = np.empty((*alpha.shape, 4), np.uint8)
    for top in range(0, len(rgb), rows):
        part = slice(top, min(top + rows, len(rgb)))
        cut_out(rgb[part], alpha[part], colours, top, len(rgb), out[part])
    return out


def test_a_cutout_is_black_where_transparent_and_the_photo_where_opaque() -> None:
    alpha = disc(300, 400, softness=6)
    rgb = np.random.default_rng(3).integers(1, 256, (300, 400, 3), dtype=np.uint8)
    image = whole(rgb, alpha)
    assert image.shape == (300, 400, 4)
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image[:, :, 3], alpha)
    assert (image[alpha == 0] == 0).all()
    np.testing.assert_array_equal(image[alpha == 255, :3], rgb[alpha == 255])


@pytest.mark.parametrize("size", [(300, 400), (1100, 1500)])
@pytest.mark.parametrize(
    ("subject", "background"),
    [((250, 240, 230), (10, 20, 10)), ((30, 20, 25), (250, 250, 240)), ((200, 30, 30), (30, 200, 60))],
)
def test_the_background_leaves_the_edge(
    size: tuple[int, int], subject: tuple[int, int, int], background: tuple[int, int, int]
) -> None:
    alpha = disc(*size, softness=4)
    rgb = composed(alpha, subject, background)
    edge = (alpha > 40) & (alpha < 215)
    cleaned = whole(rgb, alpha)[edge, :3]
    left = np.abs(cleaned.astype(np.int16) - subject).mean()
    assert left < 0.25 * np.abs(rgb[edge].astype(np.int16) - subject).mean()


def test_a_faint_spot_far_from_any_subject_keeps_its_colour() -> None:
    rgb = np.full((900, 900, 3), (90, 120, 200), np.uint8)
    alpha = np.zeros((900, 900), np.uint8)
    alpha[450, 450] = 3
    assert np.abs(whole(rgb, alpha)[450, 450, :3].astype(np.int16) - (90, 120, 200)).max() <= 2


def test_strips_of_any_height_give_the_same_picture() -> None:
    alpha = disc(301, 403, softness=9)
    rgb = composed(alpha, (250, 40, 30), (20, 90, 240))
    for rows in (1, 7, 301):
        np.testing.assert_array_equal(whole(rgb, alpha, rows=rows), whole(rgb, alpha))


def test_without_despill_colours_stay_where_anything_is_seen() -> None:
    alpha = disc(300, 400, softness=9)
    rgb = composed(alpha, (250, 40, 30), (20, 90, 240))
    image = whole(rgb, alpha, despill=False)
    np.testing.assert_array_equal(image[alpha > 0, :3], rgb[alpha > 0])
    assert (image[alpha == 0] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    alpha = random.integers(0, 256, size, dtype=np.uint8)
    rgb.flags.writeable = alpha.flags.writeable = False
    np.testing.assert_array_equal(whole(rgb, alpha)[:, :, 3], alpha)
