"""When a GPU worker may pull a message."""

from collections.abc import Callable
from unittest.mock import Mock

import pytest

import workers.flow
from workers.flow import Flow


class Queues:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lengths = {"encode": 0, "matte": 0}
        monkeypatch.setattr(workers.flow, "length", lambda client, queue: self.lengths[queue])


class Hub:
    def __init__(self) -> None:
        self.wakes = 0

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.wakes += 1


@pytest.fixture
def queues(monkeypatch: pytest.MonkeyPatch) -> Queues:
    return Queues(monkeypatch)


def make(in_hand: list[int], stuck: Mock | None = None, stuck_seconds: float = 1000) -> tuple[Flow, Mock, Hub]:
    flow = Flow(Mock(), ["matte"], lambda: in_hand[0], 10, 100, stuck_seconds, stuck or Mock())
    qos, hub = Mock(), Hub()
    qos.can_consume = lambda: True
    flow.attach(qos, hub)
    return flow, qos, hub


def test_it_pulls_no_more_than_it_can_hold_and_wakes_when_it_can(queues: Queues) -> None:
    in_hand = [9]
    flow, qos, hub = make(in_hand)
    assert qos.can_consume()
    in_hand[0] = 10
    assert not qos.can_consume()
    flow.ended()
    assert hub.wakes == 0  # still full
    in_hand[0] = 9
    flow.ended()
    assert hub.wakes == 1
    assert qos.can_consume()


def test_between_the_marks_it_stays_as_it_was(queues: Queues) -> None:
    flow, qos, _ = make([0])
    for waiting, expected in ((99, True), (100, False), (51, False), (50, True), (99, True)):
        queues.lengths["encode"] = waiting
        flow.look()
        assert qos.can_consume() is expected, waiting


def test_what_left_since_the_last_look_counts(queues: Queues) -> None:
    flow, qos, _ = make([0])
    queues.lengths["encode"] = 90
    flow.look()
    flow.moved(9)
    assert qos.can_consume()
    flow.moved(1)
    assert not qos.can_consume()
    flow.look()
    assert qos.can_consume()


def test_a_consumer_that_takes_nothing_from_a_full_queue_is_stuck(queues: Queues) -> None:
    stuck = Mock()
    flow, _, _ = make([0], stuck, stuck_seconds=0)
    flow.look()
    assert not stuck.called  # nothing waits
    queues.lengths["matte"] = 3
    flow.look()
    assert stuck.called


def test_a_worker_that_waits_for_encoding_is_not_stuck(queues: Queues) -> None:
    stuck = Mock()
    flow, _, _ = make([0], stuck, stuck_seconds=0)
    queues.lengths.update(matte=3, encode=500)
    flow.look()
    assert not stuck.called
