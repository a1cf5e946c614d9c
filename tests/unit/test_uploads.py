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
from workers.uploads import MOST, MOST_BYTES, Uploads


def image(number: int) -> Taken:
    key = Key(f"{number}.jpg")
    return Taken(RunId("r"), Item(item_id(key), key, ETag("e"), 1, "320x320"), number, b"")


class Site:
    """Uploads that last until `go` is set."""

    def __init__(self, interval: float, deadline: float) -> None:
        self.ledger = Mock(spec=Ledger)
        self.uploads = Uploads(self.ledger, interval, deadline)
        self.go = threading.Event()
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.late: list[int] = []
        self._threads: list[threading.Thread] = []

    def start(self, number: int, size: int = 1) -> threading.Thread:
        """In a thread, which lives as long as it waits for room."""
        arguments = (image(number), size, self.upload(number), lambda: self.late.append(number))
        thread = threading.Thread(target=self.uploads.start, args=arguments)
        thread.start()
        self._threads.append(thread)
        return thread

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
        self.uploads.close(60)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """With the interval and the deadline of its parameter."""
    site = Site(*getattr(request, "param", (60, 60)))
    try:
        yield site
    finally:
        site.close()


def waits(thread: threading.Thread) -> bool:
    thread.join(0.1)
    return thread.is_alive()


def test_a_few_go_on_at_once_and_the_next_waits_for_room(site: Site, wait_until: WaitUntil) -> None:
    for number in range(MOST):
        site.start(number)
    wait_until(lambda: len(site.begun) == MOST)
    site.join()  # none of them had to wait
    assert waits(site.start(MOST))
    assert len(site.begun) == MOST
    site.go.set()
    wait_until(lambda: len(site.ended) == MOST + 1)
    assert sorted(site.ended) == list(range(MOST + 1))


def test_what_is_too_large_together_waits_for_room(site: Site, wait_until: WaitUntil) -> None:
    site.start(1, 9 << 20)
    wait_until(lambda: site.begun == [1])
    assert waits(site.start(2, 8 << 20))
    assert site.begun == [1]
    site.go.set()
    wait_until(lambda: site.ended == [1, 2])


def test_what_is_too_large_alone_is_waited_for(site: Site, wait_until: WaitUntil) -> None:
    starter = site.start(1, MOST_BYTES + 1)
    wait_until(lambda: site.begun == [1])
    assert waits(starter)
    site.go.set()
    starter.join()
    assert site.ended == [1]


def test_one_that_fails_makes_room_for_the_next(site: Site, wait_until: WaitUntil) -> None:
    def broken() -> None:
        raise ConnectionError("Redis is away")

    for number in range(2 * MOST):
        site.uploads.start(image(number), 1, broken, Mock())
    site.start(99)
    wait_until(lambda: site.begun == [99])


def test_where_no_thread_can_be_had_the_child_uploads_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.go.set()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        site.uploads.start(image(1), 1, site.upload(1), Mock())
    assert site.ended == [1]
    site.uploads.close(0)
    assert not site.ledger.give_back.called


@pytest.mark.parametrize("site", [(0.01, 60)], indirect=True)
def test_what_is_on_its_way_is_kept_held(site: Site, wait_until: WaitUntil) -> None:
    site.ledger.touch.side_effect = itertools.chain([ConnectionError("Redis is away")], itertools.repeat(None))
    for number in (1, 2):
        site.start(number)
    wait_until(lambda: site.ledger.touch.call_count > 8)
    touched = {(run, *fed) for run, fed in (call.args for call in site.ledger.touch.call_args_list)}
    assert touched == {("r", (image(number).item.id, number)) for number in (1, 2)}


@pytest.mark.parametrize("site", [(0.01, 0.2)], indirect=True)
def test_one_that_takes_too_long_is_told_of_once_and_not_kept(site: Site, wait_until: WaitUntil) -> None:
    site.start(1)
    wait_until(lambda: site.late == [1])
    touched = site.ledger.touch.call_count
    site.start(2)
    wait_until(lambda: site.late == [1, 2])
    assert touched
    assert {call.args[1][0][1] for call in site.ledger.touch.call_args_list[touched:]} <= {2}


@pytest.mark.parametrize("site", [(60, 0.2)], indirect=True)
def test_an_image_that_finds_no_room_goes_back_without_blame(site: Site, wait_until: WaitUntil) -> None:
    for number in range(MOST):
        site.start(number)
    wait_until(lambda: len(site.begun) == MOST)
    site.start(99).join()
    site.ledger.give_back.assert_called_once_with([image(99)])
    assert 99 not in site.begun


def test_closing_waits_for_what_is_on_its_way(site: Site, wait_until: WaitUntil) -> None:
    site.start(1)
    wait_until(lambda: site.begun == [1])
    closing = threading.Thread(target=site.uploads.close, args=(60,))
    closing.start()
    assert waits(closing)
    site.go.set()
    closing.join()
    assert site.ended == [1]
    assert not site.ledger.give_back.called


def test_closing_gives_back_what_does_not_end(site: Site, wait_until: WaitUntil) -> None:
    site.start(1)
    wait_until(lambda: site.begun == [1])
    site.uploads.close(0.1)
    (given,) = site.ledger.give_back.call_args.args
    assert list(given) == [image(1)]
