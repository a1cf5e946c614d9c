"""The ledger's transitions against a real server."""

from collections.abc import Iterator

import pytest

from pipeline.errors import Code, PermanentError, SetupError, TransientError
from pipeline.ids import ETag, Key
from pipeline.ledger import Ledger, Listing, Taken, connect
from pipeline.runs import Item, RunSpec, item_id, matte_queue, new_run_id, short_hash
from pipeline.settings import Settings

QUEUE = matte_queue("u2netp", "320x320")


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    impatient = settings.model_copy(update={"held_timeout": 0.000001, "waiting_timeout": 0.000001})
    client = connect(settings)
    yield Ledger(client, impatient)
    client.close()


@pytest.fixture
def spec(ledger: Ledger) -> RunSpec:
    spec = RunSpec(new_run_id(), "photos", "", "cutouts", "", "u2netp", "0" * 64, ("320x320",))
    ledger.create(spec)
    return spec


def listing(spec: RunSpec, key: str) -> Listing:
    item = Item(item_id(spec.output_key(Key(key))), Key(key), ETag("e"), 10, "320x320")
    return Listing("todo", item, short_hash(key))


def take_one(ledger: Ledger, spec: RunSpec, engines: int = 10) -> Taken:
    (fed,) = ledger.feed(spec, 10, engines)
    (taken,) = ledger.take(spec.run, fed.queue, fed.fed, [fed.item.id])
    return taken


def test_an_item_goes_all_the_way_and_is_counted_once(ledger: Ledger, spec: RunSpec) -> None:
    assert ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")]) == 1
    assert ledger.close_listing(spec.run, 1) == 1
    taken = take_one(ledger, spec)
    assert taken.item.key == "a.jpg"
    (fed,) = ledger.hand_over(spec.run, [(taken, b"alpha\x00\xff")])
    assert fed is not None
    (at_encode,) = ledger.take(spec.run, "encode", fed, [taken.item.id])
    assert at_encode.alpha == b"alpha\x00\xff"
    assert ledger.done(at_encode, {"key": "a.jpg", "outcome": "done"})
    assert not ledger.done(at_encode, {"key": "a.jpg", "outcome": "done"})
    counts = ledger.counts(spec.run)
    assert (counts.listed, counts.done, counts.failed, counts.pending) == (1, 1, 0, 0)
    assert [row["key"] for row in ledger.rows(spec.run)] == ["a.jpg"]
    assert sum(ledger.places(spec.run).values()) == 0


def test_a_late_copy_of_a_message_takes_nothing(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    (fed,) = ledger.feed(spec, 10, 10)
    assert len(ledger.take(spec.run, QUEUE, fed.fed, [fed.item.id])) == 1
    assert ledger.take(spec.run, QUEUE, fed.fed, [fed.item.id]) == []


def test_work_of_a_dead_worker_comes_back_and_its_late_failure_does_not_count(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    stale = take_one(ledger, spec)
    assert ledger.reclaim(spec.run, {}) == 1
    fresh = take_one(ledger, spec)
    assert ledger.fail(stale, PermanentError(Code.TRUNCATED, "no")) == "stale"
    assert ledger.done(fresh, {"key": "a.jpg", "outcome": "done"})
    assert ledger.counts(spec.run).failed == 0


def test_a_row_says_how_often_the_item_was_tried_and_a_failure_what_is_known_of_its_source(
    ledger: Ledger, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ledger.ledger._BACKOFF", 0.0)
    names = ["at once.jpg", "at last.jpg", "never.jpg", "deadly.jpg", "hopeless.jpg", "alone.jpg", "stopped.jpg"]
    ledger.list_page(spec.run, 0, [listing(spec, name) for name in names])
    again = TransientError(Code.ENGINE_ERROR, "It may pass.")
    while held := [
        take for fed in ledger.feed(spec, 10, 10) for take in ledger.take(spec.run, fed.queue, fed.fed, [fed.item.id])
    ]:
        tried = {
            name: int(ledger.client.hget(f"mm:{{{spec.run}}}:tries", item_id(spec.output_key(Key(name)))) or 0)
            for name in names
        }
        for taken in held:
            match taken.item.key:
                case "at last.jpg" if tried["at last.jpg"] < 2:
                    ledger.fail(taken, again)
                case "never.jpg":
                    ledger.fail(taken, PermanentError(Code.TRUNCATED, "It is cut off."))
                case "deadly.jpg":
                    ledger.blame(taken, "it died")
                case "hopeless.jpg":
                    ledger.fail(taken, again)
                case "alone.jpg":
                    ledger.suspect([taken])
                case "stopped.jpg":
                    pass
                case name:
                    ledger.done(taken, {"key": name, "outcome": "done"})
    ledger.cancel(spec.run)
    rows = {str(row["key"]): row for row in ledger.rows(spec.run)}
    assert {name: rows[name]["attempts"] for name in names} == {
        "at once.jpg": 1, "at last.jpg": 3, "never.jpg": 1, "deadly.jpg": 3, "hopeless.jpg": 8, "alone.jpg": 3,
        "stopped.jpg": 0,
    }  # fmt: skip
    for row in rows.values():
        assert row["outcome"] == "done" or (row["bytes"], row["etag"]) == (10, "e")


def test_what_workers_still_say_of_a_run_that_redis_has_lost_leaves_nothing_there(
    ledger: Ledger, spec: RunSpec
) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    taken = take_one(ledger, spec)
    ledger.client.flushall()
    assert ledger.hand_over(spec.run, [(taken, b"alpha")]) == [None]
    assert not ledger.done(taken, {"key": "a.jpg", "outcome": "done"})
    assert ledger.fail(taken, PermanentError(Code.TRUNCATED, "no")) == "stale"
    assert ledger.blame(taken, "it died") == "stale"
    assert ledger.suspect([taken]) == ["stale"]
    ledger.touch(spec.run, [(taken.item.id, taken.fed)])
    ledger.give_back([taken])
    assert ledger.client.keys("mm:{*") == []


def test_a_success_counts_from_a_stale_copy(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    stale = take_one(ledger, spec)
    ledger.reclaim(spec.run, {})
    assert ledger.done(stale, {"key": "a.jpg", "outcome": "done"})
    assert ledger.counts(spec.run).pending == 0
    assert ledger.feed(spec, 10, 10) == []


def test_waiting_work_comes_back_only_when_its_message_must_be_gone(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    (fed,) = ledger.feed(spec, 10, 10)
    assert ledger.reclaim(spec.run, {}) == 0  # the queue's oldest message cannot be read: never
    assert ledger.reclaim(spec.run, {QUEUE: fed.fed}) == 0  # its message is the oldest
    assert ledger.reclaim(spec.run, {QUEUE: fed.fed + 1}) == 1
    ledger.feed(spec, 10, 10)
    assert ledger.reclaim(spec.run, {QUEUE: None}) == 1  # the queue is empty


def test_an_item_with_alpha_is_fed_to_encode_even_when_engines_take_no_more(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    taken = take_one(ledger, spec)
    ledger.hand_over(spec.run, [(taken, b"alpha")])
    assert ledger.reclaim(spec.run, {"encode": None}) == 1
    (fed,) = ledger.feed(spec, 10, 0)
    assert fed.queue == "encode"
    (again,) = ledger.take(spec.run, "encode", fed.fed, [fed.item.id])
    assert ledger.lost_alpha(again, "damaged") == "again"
    (fed,) = ledger.feed(spec, 10, 10)
    assert fed.queue == QUEUE


def test_three_deaths_convict_and_two_do_not(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    answers = [ledger.blame(take_one(ledger, spec), "signal 11") for _ in range(3)]
    assert answers == ["again", "again", "failed"]
    (row,) = ledger.rows(spec.run)
    assert row["code"] == "attempts_exhausted"
    assert "signal 11" in str(row["reason"])


def test_a_transient_failure_waits_before_it_is_fed_again(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    assert ledger.fail(take_one(ledger, spec), TransientError(Code.UPLOAD_FAILED, "503")) == "again"
    assert ledger.feed(spec, 10, 10) == []
    assert ledger.places(spec.run)["todo"] == 1


def test_a_page_is_added_once_and_a_second_source_of_one_output_is_a_conflict(ledger: Ledger, spec: RunSpec) -> None:
    first, twin = listing(spec, "a.jpg"), listing(spec, "a.png")
    assert first.item.id == twin.item.id
    assert ledger.list_page(spec.run, 0, [first]) == 1
    with pytest.raises(SetupError, match="another process"):
        ledger.list_page(spec.run, 0, [first])
    assert ledger.list_page(spec.run, 1, [first]) == 0
    assert ledger.claimed(spec.run, [twin.item.id]) == [first.source]
    conflict = Listing("conflict", twin.item, twin.source, {"key": "a.png", "outcome": "failed"})
    assert ledger.list_page(spec.run, 2, [conflict, conflict]) == 1
    counts = ledger.counts(spec.run)
    assert (counts.listed, counts.failed, counts.pending) == (2, 1, 1)


def test_a_listing_with_another_number_than_the_ledger_knows_is_said_to_be_incomplete(
    ledger: Ledger, spec: RunSpec
) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    assert ledger.close_listing(spec.run, 2) == 1
    assert "incomplete" in ledger.counts(spec.run).error


def test_cancel_explains_every_item(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, f"{n}.jpg") for n in range(1200)])
    ledger.feed(spec, 100, 100)
    ledger.cancel(spec.run)
    counts = ledger.counts(spec.run)
    assert (counts.pending, counts.failed) == (0, 1200)
    assert {row["code"] for row in ledger.rows(spec.run)} == {"cancelled"}
    assert sum(ledger.places(spec.run).values()) == 0


def test_a_closed_run_leaves_nothing_that_stays_for_ever(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    ledger.done(take_one(ledger, spec), {"key": "a.jpg"})
    ledger.close(spec.run)
    assert ledger.counts(spec.run).state == "finished"
    left = list(ledger.client.scan_iter("mm:{*"))
    assert left
    assert all(ledger.client.ttl(key) > 0 for key in left)
    assert ledger.runs(active=True) == []


def test_an_unknown_run_is_named(ledger: Ledger) -> None:
    with pytest.raises(SetupError, match="no run"):
        ledger.counts(new_run_id())


def test_a_suspect_runs_alone_and_is_convicted_only_there(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg"), listing(spec, "b.jpg")])
    ledger.close_listing(spec.run, 2)

    def take_both() -> list[Taken]:
        fed = ledger.feed(spec, 10, 10)
        return [one for each in fed for one in ledger.take(spec.run, each.queue, each.fed, [each.item.id])]

    for _ in range(5):  # in company nobody is convicted, however often
        both = take_both()
        assert ledger.suspect(both) == ["suspect", "suspect"]
    both = take_both()
    assert [one.suspect for one in both] == [True, True]
    for outcome in ("suspect", "suspect", "failed"):
        assert ledger.suspect(both[:1]) == [outcome]
        if outcome == "suspect":
            both[0] = take_one(ledger, spec)
    (row,) = ledger.rows(spec.run)
    assert (row["key"], row["code"]) == (both[0].item.key, "attempts_exhausted")
    assert ledger.suspect(both[:1]) == ["stale"]
    assert ledger.counts(spec.run).pending == 1


def test_what_waits_for_encoding_is_fed_while_engines_are_not(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, f"{n}.jpg") for n in range(20)])
    (fed,) = ledger.feed(spec, 1, 1)
    (taken,) = ledger.take(spec.run, fed.queue, fed.fed, [fed.item.id])
    (number,) = ledger.hand_over(spec.run, [(taken, b"alpha")])
    assert number is not None
    (at_encode,) = ledger.take(spec.run, "encode", number, [taken.item.id])
    ledger.give_back([at_encode])
    assert ledger.places(spec.run) == {
        "todo": 19,
        "todo:encode": 1,
        "held": 0,
        f"waiting:{QUEUE}": 0,
        "waiting:encode": 0,
    }
    (again,) = ledger.feed(spec, 10, 0)  # 19 older ones wait for an engine: they are not in its way
    assert (again.item.id, again.queue) == (taken.item.id, "encode")


def test_a_finished_run_cannot_be_cancelled(ledger: Ledger, spec: RunSpec) -> None:
    ledger.list_page(spec.run, 0, [listing(spec, "a.jpg")])
    ledger.close_listing(spec.run, 1)
    ledger.done(take_one(ledger, spec), {"key": "a.jpg", "outcome": "done"})
    ledger.close(spec.run)
    ledger.cancel(spec.run)
    counts = ledger.counts(spec.run)
    assert (counts.state, counts.done, counts.failed, counts.cancelled) == ("finished", 1, 0, False)
