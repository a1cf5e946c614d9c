"""A picture that comes again skips the engine; memory stays bounded."""

from concurrent.futures import Future

import numpy as np
import pytest

from workers.batcher import Matte
from workers.recent import RecentMattes


def compute(recent: RecentMattes, digest: bytes, side: int = 10, noise: bool = False) -> None:
    future, mine = recent.claim(digest)
    assert mine
    alpha = np.random.default_rng(3).integers(0, 256, (side, side), np.uint8) if noise else np.full((side, side), 7)
    computed: Future[Matte] = Future()
    computed.set_result(Matte(alpha.astype(np.uint8), 0.5, 0.25))
    recent.settle(digest, future, computed)


def known(recent: RecentMattes, digest: bytes) -> bool:
    future, mine = recent.claim(digest)
    if mine:  # give the claim back
        failed: Future[Matte] = Future()
        failed.cancel()
        recent.settle(digest, future, failed)
    return not mine


def test_a_repeat_gets_the_same_matte_and_is_counted() -> None:
    recent = RecentMattes(2, 1000)
    compute(recent, b"a")
    future, mine = recent.claim(b"a")
    assert not mine
    assert future.result(0).alpha[0, 0] == 7
    assert (recent.hits, recent.misses) == (1, 1)


@pytest.mark.parametrize("noise", [False, True])
def test_a_matte_is_the_same_after_others_have_come(noise: bool) -> None:
    recent = RecentMattes(10, 1_000_000)
    compute(recent, b"a", 30, noise)
    before = recent.claim(b"a")[0].result(0)
    for other in (b"b", b"c"):
        compute(recent, other)
    after = recent.claim(b"a")[0].result(0)
    np.testing.assert_array_equal(after.alpha, before.alpha)
    assert (after.waited, after.computed) == (before.waited, before.computed) == (0.5, 0.25)


def test_memory_is_counted_rightly_over_many_mattes() -> None:
    recent = RecentMattes(5, 60_000)
    for number in range(100):
        compute(recent, number.to_bytes(2, "big"), 100, noise=number % 2 == 0)
        if number % 3 == 0:
            again = b"again" if number % 2 else b"and again"  # forgotten and remembered many times
            if not known(recent, again):
                compute(recent, again, 30)
    for number in range(200, 205):
        compute(recent, number.to_bytes(2, "big"), 100, noise=True)
    assert all(known(recent, number.to_bytes(2, "big")) for number in range(200, 205))


def test_mattes_take_less_memory_than_their_pixels() -> None:
    recent = RecentMattes(100, 100_000)
    for number in range(50):
        compute(recent, bytes([number]), 100)  # 10 000 pixels each
    assert all(known(recent, bytes([number])) for number in range(50))


def test_the_same_picture_twice_at_once_is_computed_once() -> None:
    recent = RecentMattes(0, 0)
    first, mine = recent.claim(b"a")
    second, again = recent.claim(b"a")
    assert (mine, again) == (True, False)
    computed: Future[Matte] = Future()
    computed.set_result(Matte(np.zeros((2, 2), np.uint8), 0.0, 0.0))
    recent.settle(b"a", first, computed)
    assert second.result(0) is first.result(0)
    assert not known(recent, b"a")  # 0 remembers nothing


def test_the_least_recently_used_goes_first_when_there_are_too_many() -> None:
    recent = RecentMattes(2, 10_000)
    for digest in (b"a", b"b"):
        compute(recent, digest)
    recent.claim(b"a")
    compute(recent, b"c")
    assert [known(recent, digest) for digest in (b"a", b"b", b"c")] == [True, False, True]


def test_bytes_are_bounded_too() -> None:
    recent = RecentMattes(100, 25_000)
    for number in range(5):
        compute(recent, bytes([number]), 100, noise=True)  # 10 000 bytes each, packed or not
    assert [known(recent, bytes([number])) for number in range(5)] == [False, False, False, True, True]
    compute(recent, b"large", 200)
    assert not known(recent, b"large")  # one that would push out all others is not worth it
    assert known(recent, bytes([4]))


def test_a_failure_reaches_everybody_who_waits_and_is_forgotten() -> None:
    recent = RecentMattes(2, 1000)
    first, _ = recent.claim(b"a")
    second, _ = recent.claim(b"a")
    computed: Future[Matte] = Future()
    computed.set_exception(ValueError("the engine failed"))
    recent.settle(b"a", first, computed)
    with pytest.raises(ValueError, match="failed"):
        second.result(0)
    assert not known(recent, b"a")
