"""A picture that comes again skips the engine; memory stays bounded."""

from concurrent.futures import Future

import numpy as np
import pytest

from workers.batcher import Matte
from workers.recent import RecentMattes


def compute(recent: RecentMattes, digest: bytes, side: int = 10) -> None:
    future, mine = recent.claim(digest)
    assert mine
    computed: Future[Matte] = Future()
    computed.set_result(Matte(np.full((side, side), 7, np.uint8), 0.0, 0.0))
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
    recent = RecentMattes(100, 250)
    for number in range(5):
        compute(recent, bytes([number]))  # 100 bytes each
    assert [known(recent, bytes([number])) for number in range(5)] == [False, False, False, True, True]
    compute(recent, b"large", 100)
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
