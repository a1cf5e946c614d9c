import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.preprocess import Letterbox, content, enough, letterbox, place, settled
from pipeline.ids import SizeBucket

sides = st.integers(1, 400) | st.sampled_from([1, 2, 5000])
size_buckets = st.builds(SizeBucket, st.integers(8, 96), st.integers(8, 96))


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 7919 + width).integers(0, 256, (height, width, 3), np.uint8)


@given(st.integers(1, 100_000), st.integers(1, 100_000), size_buckets)
def test_the_photo_lies_inside_in_the_middle_as_large_as_fits(h: int, w: int, sb: SizeBucket) -> None:
    box = place(h, w, sb)
    below, beside = sb.height - box.top - box.height, sb.width - box.left - box.width
    assert box.height >= 1 <= box.width
    assert 0 <= below - box.top <= 1
    assert 0 <= beside - box.left <= 1
    assert box.height == sb.height or box.width == sb.width


@given(st.integers(1, 100_000), st.integers(1, 100_000), size_buckets)
def test_the_aspect_is_kept_to_a_pixel(h: int, w: int, sb: SizeBucket) -> None:
    box = place(h, w, sb)
    scale = min(sb.height / h, sb.width / w)
    assert abs(box.height - h * scale) <= 1
    assert abs(box.width - w * scale) <= 1


@given(sides, sides, size_buckets)
def test_padding_repeats_the_edge(h: int, w: int, sb: SizeBucket) -> None:
    image, box = letterbox(photo(h, w), sb)
    inner = image[box.top : box.top + box.height, box.left : box.left + box.width]
    below, beside = sb.height - box.top - box.height, sb.width - box.left - box.width
    assert np.array_equal(image, np.pad(inner, ((box.top, below), (box.left, beside), (0, 0)), mode="edge"))


@given(st.integers(20, 400), st.integers(20, 400))
def test_a_smooth_photo_survives_the_way_there_and_back(h: int, w: int) -> None:
    ramp = np.linspace(0, 1, h)[:, None] * 120 + np.linspace(0, 1, w)[None] * 120
    rgb = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)
    image, box = letterbox(rgb, SizeBucket(160, 160))
    back = cv2.resize(np.ascontiguousarray(content(image[..., 0], box)), (w, h))
    slope = max(120 / min(box.height, h), 120 / min(box.width, w))  # grey levels from one pixel to the next
    assert np.abs(back.astype(int) - rgb[..., 0]).max() <= 2 + 2 * slope


def test_a_photo_of_the_right_size_is_not_touched() -> None:
    rgb = photo(64, 48)
    image, box = letterbox(rgb, SizeBucket(64, 48))
    assert np.array_equal(image, rgb)
    assert box == Letterbox(0, 0, 64, 48)


@pytest.mark.parametrize(("h", "w"), [(1, 5000), (5000, 1), (1, 1), (1, 100_000), (40_000, 2)])
def test_extreme_aspects_keep_a_pixel(h: int, w: int) -> None:
    rgb = np.full((h, w, 3), (10, 120, 240), np.uint8)
    image, box = letterbox(rgb, SizeBucket(320, 320))
    assert min(box.height, box.width) >= 1
    assert (image == (10, 120, 240)).all()


@pytest.mark.parametrize("shape", [(100, 37), (30, 30), (7, 90)])
def test_out_is_filled_in_place_within_a_larger_block(shape: tuple[int, int]) -> None:
    slots = np.full((3, 64, 48, 3), 77, np.uint8)
    rgb = photo(*shape)
    image, box = letterbox(rgb, SizeBucket(64, 48), out=slots[1])
    fresh, same_box = letterbox(rgb, SizeBucket(64, 48))
    assert np.shares_memory(image, slots)
    assert np.array_equal(slots[1], fresh)
    assert box == same_box
    assert (slots[[0, 2]] == 77).all()


def test_a_photo_turned_by_strides_is_read_right() -> None:
    rgb = photo(100, 60)
    turned = np.rot90(rgb)[:, ::-1]
    image, _ = letterbox(turned, SizeBucket(32, 32))
    assert np.array_equal(image, letterbox(np.ascontiguousarray(turned), SizeBucket(32, 32))[0])


def test_content_is_a_view() -> None:
    alpha = np.zeros((32, 32), np.uint8)
    part = content(alpha, Letterbox(4, 0, 24, 32))
    part[:] = 9
    assert part.shape == (24, 32)
    assert alpha.sum() == 9 * 24 * 32


@pytest.mark.parametrize(
    "rgb",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["grey", "rgba", "float", "empty"],
)
def test_no_photo_is_refused(rgb: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a photo"):
        letterbox(rgb, SizeBucket(8, 8))


@pytest.mark.parametrize(
    "out",
    [np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8, 3), np.int16), np.zeros((16, 8, 3), np.uint8)[::2]],
    ids=["shape", "dtype", "strided"],
)
def test_an_out_that_does_not_fit_is_refused(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="out is C-contiguous"):
        letterbox(photo(4, 4), SizeBucket(8, 8), out=out)


@given(st.integers(1, 100_000), st.integers(1, 100_000), size_buckets)
def test_enough_pixels_are_decoded_for_an_average(h: int, w: int, sb: SizeBucket) -> None:
    box, (height, width) = place(h, w, sb), enough(h, w, sb)
    assert 1.75 * box.height <= height < 1.75 * box.height + 1
    assert 1.75 * box.width <= width < 1.75 * box.width + 1


def test_a_photo_far_from_square_needs_no_more_than_its_own_part_of_the_model_image() -> None:
    assert enough(1000, 4000, SizeBucket(320, 320)) == (140, 560)


def test_haze_goes_and_edges_stay() -> None:
    answer = np.arange(256, dtype=np.uint8).reshape(16, 16)
    alpha = settled(answer)
    assert (alpha[answer <= 4] == 0).all()
    assert (alpha[answer >= 251] == 255).all()
    edge = (answer > 4) & (answer < 251)
    assert (alpha[edge] == answer[edge]).all()
    assert answer[0, 1] == 1, "the model's answer is not written to"
