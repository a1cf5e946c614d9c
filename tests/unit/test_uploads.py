"""The uploads of an encode child: how many at once, how they are kept, and that closing waits for them."""

import itertools
import threading
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest

from pipeline.ids import ETag, Key, RunId
from pipeline.ledger import Ledger, Taken
from pipeline.runs import Item, item_id
from tests.conftest import WaitUntil
from workers.uploads import MOST, Uploads


def image(number: int) -> Taken:
    key = Key(f"{number}.jpg")
    return Taken(RunId("r"), Item(item_id(key), key, ETag("e"), 1, "320x320"), number, b"")


class Site:
    """Uploads that last until `go` is set."""

    def __init__(self, interval: float = 60) -> None:
        self.ledger = Mock(spec=Ledger)
        self.uploads = Uploads(self.ledger, interval)
        self.go = threading.Event()
        self.begun: list[int] = []
        self.ended: list[int] = []
        self._threads: list[threading.Thread] = []

    def start(self, number: int, size: int = 1) -> None:
        """From a thread, as it may have to wait for room."""
        thread = threading.Thread(target=self.uploads.start, args=(image(number), size, self.upload(number)))
        thread.start()
        self._threads.append(thread)

    def upload(self, number: int) -> Callable[[], None]:
        def work() -> None:
            self.begun.append(number)
            self.go.wait()
            self.ended.append(number)

        return work

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self.go.set()
        self.join()
        self.uploads.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


def test_a_few_go_on_at_once_and_the_next_waits_for_room(site: Site, wait_until: WaitUntil) -> None:
    for number in range(MOST):
        site.start(number)
    wait_until(lambda: len(site.begun) == MOST)
    site.join()  # none of them had to wait
    site.start(MOST)
    assert len(site.begun) == MOST
    site.go.set()
    wait_until(lambda: len(site.ended) == MOST + 1)
    assert sorted(site.ended) == list(range(MOST + 1))


@pytest.mark.parametrize("sizes", [(9 << 20, 8 << 20), (1, 1 << 30), (1 << 30, 1)])
def test_what_is_too_large_together_goes_one_after_the_other(
    site: Site, wait_until: WaitUntil, sizes: tuple[int, int]
) -> None:
    site.start(1, sizes[0])
    wait_until(lambda: site.begun == [1])
    site.start(2, sizes[1])
    site.go.set()
    wait_until(lambda: len(site.ended) == 2)
    assert site.ended == [1, 2]


def test_one_that_fails_makes_room_for_the_next(site: Site, wait_until: WaitUntil) -> None:
    def broken() -> None:
        raise ConnectionError("Redis is away")

    for number in range(2 * MOST):
        site.uploads.start(image(number), 1, broken)
    site.start(99)
    wait_until(lambda: site.begun == [99])


def test_what_is_on_its_way_is_kept_held(wait_until: WaitUntil) -> None:
    site = Site(interval=0.01)
    site.ledger.touch.side_effect = itertools.chain([ConnectionError("Redis is away")], itertools.repeat(None))
    for number in (1, 2):
        site.start(number)
    wait_until(lambda: site.ledger.touch.call_count > 8)
    touched = {(run, *fed) for run, fed in (call.args for call in site.ledger.touch.call_args_list)}
    assert touched == {("r", (image(number).item.id, number)) for number in (1, 2)}
    site.close()


def test_closing_waits_for_what_is_on_its_way(site: Site, wait_until: WaitUntil) -> None:
    site.start(1)
    wait_until(lambda: site.begun == [1])
    closing = threading.Thread(target=site.uploads.close)
    closing.start()
    assert not site.ended
    site.go.set()
    closing.join()
    assert site.ended == [1]
