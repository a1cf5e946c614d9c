"""The housekeeper's closing of runs, against a real server."""

import threading

import pytest
import redis

from pipeline.errors import SetupError
from pipeline.ids import ETag, Key, RunId
from pipeline.jobs import Job
from pipeline.ledger import LEADER, Ledger, Listing
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.settings import Settings
from tests.conftest import WaitUntil
from workers.housekeeping import Housekeeper, StoppedError


def ended_run(ledger: Ledger) -> RunId:
    """A run with one skipped image: nothing but its reports is left to do."""
    spec = RunSpec(new_run_id(), "photos", "", "cutouts", "", "u2netp", "0" * 64, ("320x320",))
    ledger.create(spec)
    key = Key("a.jpg")
    item = Item(item_id(spec.output_key(key)), key, ETag("e"), 10, "320x320")
    ledger.list_page(spec.run, 0, [Listing("skipped", item, short_hash(key), {"key": key, "outcome": "skipped"})])
    ledger.close_listing(spec.run, 1)
    return spec.run


@pytest.mark.parametrize(("listed", "keys"), [(1, 1), (399, 1), (400, 2), (2000, 10), (10_000, 32)])
def test_messages_hold_more_keys_the_larger_a_run_is(
    listed: int, keys: int, ledger: Ledger, settings: Settings
) -> None:
    spec = RunSpec(new_run_id(), "photos", "", "cutouts", "", "u2netp", "0" * 64, ("320x320",))
    ledger.create(spec)
    names = [Key(f"{n}.jpg") for n in range(listed)]
    items = [Item(item_id(spec.output_key(key)), key, ETag("e"), 10, "320x320") for key in names]
    for page, start in enumerate(range(0, listed, 500)):
        ledger.list_page(
            spec.run, page, [Listing("todo", item, short_hash(item.key)) for item in items[start : start + 500]]
        )
    ledger.close_listing(spec.run, listed)
    sent: list[Job] = []
    with Housekeeper(ledger, lambda jobs, priority: sent.extend(jobs), lambda run: None, settings) as keeper:
        assert keeper.step()
    assert max(len(job.keys) for job in sent) == keys


def test_a_slow_report_neither_costs_the_lead_nor_holds_up_others(
    ledger: Ledger, settings: Settings, wait_until: WaitUntil
) -> None:
    slow = ended_run(ledger)
    begun, release, calls = threading.Event(), threading.Event(), list[RunId]()

    def write(run: RunId) -> None:
        calls.append(run)
        begun.set()
        assert release.wait(20)

    with (
        Housekeeper(ledger, lambda jobs, priority: None, write, settings) as leader,
        Housekeeper(ledger, lambda jobs, priority: None, write, settings) as other,
    ):
        assert leader.step()
        assert begun.wait(20)
        ledger.client.pexpire(LEADER, 50)  # as if the lease were nearly over
        assert leader.step()
        assert int(ledger.client.pttl(LEADER)) > 1000  # type: ignore[arg-type]
        assert not other.step()
        assert ledger.counts(slow).state == "listed"
        release.set()
        wait_until(lambda: leader.step() and ledger.counts(slow).state == "finished")
    assert calls == [slow]


def test_when_the_leader_ends_another_leads_at_once_and_one_that_stood_by_takes_no_lead_away(
    ledger: Ledger, settings: Settings
) -> None:
    def keeper() -> Housekeeper:
        return Housekeeper(ledger, lambda jobs, priority: None, lambda run: None, settings)

    with keeper() as leader:
        assert leader.step()
        with keeper() as other:
            assert not other.step()
        with keeper() as third:
            assert not third.step()
    with keeper() as fourth:
        assert fourth.step()
        ledger.client.delete(LEADER)  # as if its lease had run out
        with keeper() as fifth:
            assert fifth.step()
            fourth.__exit__(None, None, None)
            with keeper() as sixth:
                assert not sixth.step()


def test_a_report_that_cannot_be_written_ends_the_run_and_is_kept_as_its_error(
    ledger: Ledger, settings: Settings, wait_until: WaitUntil
) -> None:
    run = ended_run(ledger)

    def write(run: RunId) -> None:
        raise redis.RedisError("the disk is full")

    with Housekeeper(ledger, lambda jobs, priority: None, write, settings, pauses=()) as leader:
        wait_until(lambda: leader.step() and ledger.counts(run).state == "finished")
    assert ledger.report_error(run) == "the disk is full"


def test_a_report_that_broke_off_is_written_again_and_one_that_never_can_be_is_not(
    ledger: Ledger, settings: Settings, wait_until: WaitUntil
) -> None:
    passing, hopeless = ended_run(ledger), ended_run(ledger)
    calls: list[RunId] = []

    def write(run: RunId) -> None:
        calls.append(run)
        if run == hopeless:
            raise SetupError("That place is not allowed.")
        if calls.count(passing) < 3:
            raise OSError("killed, or the disk is full for a while")

    with Housekeeper(ledger, lambda jobs, priority: None, write, settings, pauses=(0.05, 0.05, 9)) as leader:
        for run in (passing, hopeless):
            wait_until(lambda run=run: leader.step() and ledger.counts(run).state == "finished")
    assert (ledger.report_error(passing), ledger.report_error(hopeless)) == ("", "That place is not allowed.")
    assert (calls.count(passing), calls.count(hopeless)) == (3, 1)


@pytest.mark.parametrize("bad_first", [True, False])
def test_of_two_leaders_the_one_that_wrote_the_reports_is_right(ledger: Ledger, bad_first: bool) -> None:
    run = ended_run(ledger)
    for error in ("the parts are gone", "")[:: 1 if bad_first else -1]:
        ledger.close(run, error)
    assert ledger.report_error(run) == ""
    assert ledger.row_count(run) == 0


def test_a_leader_that_stops_leaves_the_reports_to_the_next(
    ledger: Ledger, settings: Settings, wait_until: WaitUntil
) -> None:
    run = ended_run(ledger)
    begun = threading.Event()

    def stopped(run: RunId) -> None:
        begun.set()
        raise StoppedError

    with Housekeeper(ledger, lambda jobs, priority: None, stopped, settings) as leader:
        assert leader.step()
        assert begun.wait(20)
        leader.step()
    assert ledger.counts(run).state == "listed"
    ledger.client.delete(LEADER)
    written: list[RunId] = []
    with Housekeeper(ledger, lambda jobs, priority: None, written.append, settings) as heir:
        wait_until(lambda: heir.step() and ledger.counts(run).state == "finished")
    assert written == [run]
