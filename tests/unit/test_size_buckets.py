"""Sizes for models of dynamic sides: little padding, full batches, nothing enlarged for nothing."""

import pytest

from bench.padding import mix, ours, recipe
from model.size_buckets import fit, share, size_buckets
from pipeline.ids import SizeBucket


def test_every_side_is_a_multiple_of_32_and_the_cap_holds() -> None:
    sizes = size_buckets()
    assert len(sizes) == len(set(sizes)) == 9
    assert all(side % 32 == 0 for size in sizes for side in (size.height, size.width))
    assert max(max(size.height, size.width) for size in sizes) == 1024
    assert max(max(size.height, size.width) for size in size_buckets(512)) == 512


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (4000, 6000, SizeBucket(672, 1024)),
        (6000, 4000, SizeBucket(1024, 672)),
        (3000, 3000, SizeBucket(1024, 1024)),
        (300, 300, SizeBucket(512, 512)),
        (500, 700, SizeBucket(512, 768)),
        (1, 60_000, SizeBucket(672, 1024)),
    ],
)
def test_a_photo_goes_where_it_fits(height: int, width: int, expected: SizeBucket) -> None:
    assert fit(height, width, size_buckets()) == expected


def test_the_share_is_what_letterboxing_leaves() -> None:
    assert share(512, 512, SizeBucket(512, 512)) == 1
    assert share(256, 512, SizeBucket(512, 512)) == 0.5


def test_one_fixed_size_takes_everything() -> None:
    assert fit(10, 5000, [SizeBucket(320, 320)]) == SizeBucket(320, 320)


def test_on_a_realistic_mix_padding_is_small_and_batches_are_full() -> None:
    photos = mix(3000, 7)
    figures = ours(photos, size_buckets())
    assert figures["padding"] <= 0.12
    assert figures["padding"] < recipe(photos)["padding"]
    assert figures["fill"] >= 7
    assert figures["longest_wait_s"] < 2
