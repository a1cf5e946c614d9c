"""Decoded images in memory are bounded in bytes, whatever messages hold and however many are worked on."""

import pytest

from model.engines.fake import FakeEngine
from pipeline.ids import SizeBucket
from pipeline.settings import load_settings
from workers.inference import slots

SQUARES = tuple(SizeBucket(side, side) for side in (512, 640, 768, 896, 1024))


@pytest.mark.parametrize("max_batch", [1, 8, 64])
@pytest.mark.parametrize("megabytes", [4, 64, 512])
@pytest.mark.parametrize(("chunk", "threads"), [(0, 0), (32, 256)])
def test_their_bytes_stay_within_what_is_allowed_or_one_batch(
    max_batch: int, megabytes: int, chunk: int, threads: int
) -> None:
    settings = load_settings(loader_bytes=megabytes << 20, chunk=chunk, gpu_threads=threads)
    image = 1024 * 1024 * 3
    count = slots(FakeEngine(1, SQUARES, max_batch), settings)
    assert count >= max_batch
    assert count * image <= max(megabytes << 20, max_batch * image)


def test_where_there_is_room_two_batches_of_every_size_fit_and_no_more() -> None:
    settings = load_settings(loader_bytes=1 << 40)
    assert slots(FakeEngine(1, SQUARES, 8), settings) == 2 * 5 * 8
    assert slots(FakeEngine(1, SQUARES[:1], 8), settings) == 4 * 8


def test_a_fixed_number_is_taken_as_it_is() -> None:
    assert slots(FakeEngine(1, SQUARES, 8), load_settings(loader_slots=3)) == 3
