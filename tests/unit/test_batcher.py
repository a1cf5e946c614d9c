"""What engine and loaders rely on, whatever the interleaving."""

import threading
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.ids import SizeBucket
from workers.batcher import Batch, ClosedError, DynamicBatcher, Matte

SIZES = [SizeBucket(2, 2), SizeBucket(2, 4), SizeBucket(4, 2)]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def image(size: SizeBucket, number: int = 0) -> NDArray[np.uint8]:
    return np.full((size.height, size.width, 3), number % 256, np.uint8)


def make(max_batch: int = 4, max_delay: float = 1.0) -> tuple[DynamicBatcher[int], Clock]:
    clock = Clock()
    return DynamicBatcher(max_batch, max_delay, 1000, 5.0, clock), clock


def test_a_full_batch_goes_at_once_and_a_lone_image_waits_for_its_delay() -> None:
    batcher, clock = make(max_batch=2)
    batcher.submit(image(SIZES[0]), 0)
    assert batcher.poll() is None
    batcher.submit(image(SIZES[0]), 0)
    batch = batcher.poll()
    assert batch is not None
    assert len(batch.items) == 2
    batcher.submit(image(SIZES[0]), 0)
    clock.now = 0.99
    assert batcher.poll() is None
    clock.now = 1.0
    assert batcher.poll() is not None


def test_a_rare_size_does_not_starve_behind_full_batches() -> None:
    batcher, clock = make(max_batch=2)
    batcher.submit(image(SIZES[1]), 0)
    for moment, expected in ((1.0, SIZES[0]), (4.9, SIZES[0]), (5.0, SIZES[1])):
        clock.now = moment
        for _ in range(2):
            batcher.submit(image(SIZES[0]), 0)
        batch = batcher.poll()
        assert batch is not None
        assert batch.size_bucket == expected


def test_full_batches_go_before_company_is_given_up_on() -> None:
    batcher, clock = make(max_batch=2)
    batcher.submit(image(SIZES[0]), 0)
    clock.now = 2.0  # long past its delay
    for size in (SIZES[1], SIZES[2], SIZES[2], SIZES[1]):
        batcher.submit(image(size), 0)
        clock.now += 0.1
    order = []
    while (batch := batcher.poll()) is not None:
        order.append((batch.size_bucket, len(batch.items)))
    assert order == [(SIZES[1], 2), (SIZES[2], 2), (SIZES[0], 1)]


def test_closing_hands_out_what_waits_and_refuses_more() -> None:
    batcher, _ = make()
    batcher.submit(image(SIZES[0]), 0)
    batcher.close()
    assert batcher.take() is not None
    assert batcher.take() is None
    with pytest.raises(ClosedError):
        batcher.submit(image(SIZES[0]), 0)


def test_a_cancelled_image_is_not_computed() -> None:
    batcher, _ = make(max_batch=2)
    cancelled, kept = batcher.submit(image(SIZES[0], 1), 0), batcher.submit(image(SIZES[0], 2), 0)
    cancelled.cancel()
    batch = batcher.poll()
    assert batch is not None
    assert [item.future for item in batch.items] == [kept]


def test_an_image_that_must_run_alone_does_so_at_once() -> None:
    batcher, _ = make(max_batch=4)
    company = [batcher.submit(image(SIZES[0]), 0) for _ in range(3)]
    lone = [batcher.submit(image(SIZES[0]), 1, alone=True) for _ in range(2)]
    for expected in lone:
        batch = batcher.poll()
        assert batch is not None
        assert [item.future for item in batch.items] == [expected]
    assert batcher.poll() is None  # the others wait on for company
    batcher.close()
    batch = batcher.poll()
    assert batch is not None
    assert [item.future for item in batch.items] == company


@given(
    steps=st.lists(st.one_of(st.sampled_from([0, 1, 2]), st.floats(0.01, 2)), max_size=60),
    max_batch=st.integers(1, 5),
)
def test_batches_are_pure_bounded_ordered_and_in_time(steps: list[int | float], max_batch: int) -> None:
    batcher, clock = make(max_batch)
    submitted: list[Future[Matte]] = []
    got: list[Batch[int]] = []

    def drain() -> None:
        while (batch := batcher.poll()) is not None:
            got.append(batch)
            assert 1 <= len(batch.items) <= max_batch
            assert {item.image.shape[:2] for item in batch.items} == {
                (batch.size_bucket.height, batch.size_bucket.width)
            }

    for step in steps:
        if isinstance(step, int):
            submitted.append(batcher.submit(image(SIZES[step], len(submitted)), 0))
        else:
            clock.now += step
        drain()
        # Asked at every moment, nobody who has waited for the delay is left.
        assert all(clock.now - item.since < 1.0 for queue in batcher._queues.values() for item in queue)
    batcher.close()
    drain()
    answered = [item.future for batch in got for item in batch.items]
    assert len(answered) == len(set(answered)) == len(submitted)
    for size in SIZES:
        numbers = [item.image[0, 0, 0] for batch in got if batch.size_bucket == size for item in batch.items]
        assert numbers == sorted(numbers)


def test_every_image_gets_exactly_one_answer_with_many_threads() -> None:
    batcher = DynamicBatcher[int](4, 0.001, 8)
    answers: list[int] = []

    def engine() -> None:
        while (batch := batcher.take()) is not None:
            for item in batch.items:
                item.future.set_result(Matte(item.image[:, :, 0], 0, 0))

    def producer(number: int) -> None:
        futures = [batcher.submit(image(SIZES[n % 3], number), 0) for n in range(50)]
        answers.extend(int(future.result(10).alpha[0, 0]) for future in futures)

    owner = threading.Thread(target=engine)
    owner.start()
    producers = [threading.Thread(target=producer, args=(n,)) for n in range(8)]
    for thread in producers:
        thread.start()
    for thread in producers:
        thread.join()
    batcher.close()
    owner.join()
    assert sorted(answers) == sorted(n for n in range(8) for _ in range(50))
