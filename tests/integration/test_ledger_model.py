"""The ledger against a model of it: whatever happens, every listed item ends once.

Messages are lost, doubled and reordered, processes die between any two steps, clients' clocks lie, Redis grows younger.
"""

import copy
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from pipeline.errors import Code, ItemError, PermanentError, SetupError, TransientError
from pipeline.ids import ETag, ItemId, Key, RunId
from pipeline.ledger import Ledger, Listing, Taken, connect
from pipeline.runs import Item, RunSpec, item_id, matte_queue, new_run_id, short_hash
from pipeline.settings import Settings

MATTE = matte_queue("u2netp", "320x320")
KEYS = [Key(f"{n}.jpg") for n in range(6)]
TRIES, DEATHS = 2, 2


@dataclass(frozen=True)
class Message:
    queue: str
    fed: int
    id: ItemId


@dataclass
class Model:
    """What Redis must hold. A place is ("todo",), ("todo:encode",), ("waiting", queue, fed) or ("held", fed)."""

    places: dict[ItemId, tuple[object, ...]] = field(default_factory=dict)
    finished: dict[ItemId, str] = field(default_factory=dict)
    alpha: set[ItemId] = field(default_factory=set)
    counts: Counter[tuple[str, ItemId]] = field(default_factory=Counter)
    suspects: set[ItemId] = field(default_factory=set)
    messages: list[Message] = field(default_factory=list)
    page: int = 0
    state: str = "listing"
    incomplete: bool = False

    def holds(self, taken: Taken) -> bool:
        return self.places.get(taken.item.id) == ("held", taken.fed)

    def back(self, id: ItemId) -> None:
        self.places[id] = ("todo:encode",) if id in self.alpha else ("todo",)

    def finish(self, id: ItemId, outcome: str) -> None:
        del self.places[id]
        self.alpha.discard(id)
        self.finished[id] = outcome


class Machine:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        ledger.client.flushall()
        self.spec = RunSpec(new_run_id(), "photos", "", "cutouts", "", "u2netp", "0" * 64, ("320x320",))
        ledger.create(self.spec)
        self.model = Model()
        self.hands: list[Taken] = []
        self.lister: tuple[int, int] | None = (0, 0)
        self.older: tuple[dict[bytes, bytes], Model] | None = None
        self.older_times = 0

    # --- what listers do

    def list_a_page(self, which: int, lives: bool, _: bool) -> None:
        if self.lister is None:
            return
        page, added = self.lister
        keys = [key for bit, key in enumerate(KEYS) if which >> bit & 1]
        skip = which % 7 == 3
        entries = [entry(self.spec, key, skip) for key in keys]
        model = self.model
        if model.state != "listing" or model.page != page:
            with pytest.raises(SetupError):
                self.ledger.list_page(self.spec.run, page, entries)
            self.lister = None
            return
        count = self.ledger.list_page(self.spec.run, page, entries)
        fresh = [one.item.id for one in entries if one.item.id not in {*model.places, *model.finished}]
        assert count == len(fresh)
        for id in fresh:
            if skip:
                model.finished[id] = "skipped"
            else:
                model.places[id] = ("todo",)
        model.page += 1
        self.lister = (page + 1, added + count) if lives else None

    def go_on_with_the_listing(self, *_: int) -> None:
        if self.lister is not None or self.model.state != "listing":
            return
        adopted = self.ledger.adopt_listing(self.spec.run, 0)
        assert adopted == (self.model.page, self.listed)
        self.lister = adopted

    def close_the_listing(self, *_: int) -> None:
        if self.lister is None:
            return
        self.ledger.close_listing(self.spec.run, self.lister[1])
        if self.model.state == "listing":
            self.model.state = "listed"
            self.model.incomplete = self.lister[1] != self.listed
        self.lister = None

    # --- what the housekeeper and the broker do

    def feed(self, which: int, sent: bool, _: bool) -> None:
        engines = which % 4 != 3
        fed = self.ledger.feed(self.spec, 100, 100 if engines else 0)
        model = self.model
        expected = {id: "encode" for id, place in model.places.items() if place == ("todo:encode",)}
        if engines:
            expected |= {id: MATTE for id, place in model.places.items() if place == ("todo",)}
        assert {one.item.id: one.queue for one in fed} == expected
        for one in fed:
            model.places[one.item.id] = ("waiting", one.queue, one.fed)
            if sent:  # else the feeder died between moving and sending
                model.messages.append(Message(one.queue, one.fed, one.item.id))

    def reclaim(self, *_: int) -> None:
        model = self.model
        oldest: dict[str, int | None] = {
            queue: min((one.fed for one in model.messages if one.queue == queue), default=None)
            for queue in self.ledger.queues(self.spec.run)
        }
        back = [id for id, place in model.places.items() if place[0] == "held"]
        for id, place in model.places.items():
            if place[0] == "waiting":
                first = oldest[str(place[1])]
                if first is None or int(str(place[2])) < first:
                    back.append(id)
        assert self.ledger.reclaim(self.spec.run, oldest) == len(back)
        for id in back:
            model.back(id)

    def reclaim_in_time(self, *_: int) -> None:
        """Nothing is taken from the living."""
        patient = Ledger(self.ledger.client, self.ledger._settings.model_copy(update={"held_timeout": 60.0}))
        oldest: dict[str, int | None] = dict.fromkeys(self.ledger.queues(self.spec.run), 0)
        assert patient.reclaim(self.spec.run, oldest) == 0

    def lose_or_double(self, which: int, twice: bool, _: bool) -> None:
        if not self.model.messages:
            return
        message = self.model.messages[which % len(self.model.messages)]
        if twice:
            self.model.messages.append(message)
        else:
            self.model.messages.remove(message)

    # --- what workers do

    def take(self, which: int, acked: bool, stale: bool) -> None:
        """Any message, in any order; one that is not acknowledged comes again."""
        if not self.model.messages:
            return
        model = self.model
        fitting = [one for one in model.messages if model.places.get(one.id) == ("waiting", one.queue, one.fed)]
        choice = fitting if fitting and not stale else model.messages
        message = choice[which % len(choice)]
        if acked:
            model.messages.remove(message)
        taken = self.ledger.take(self.spec.run, message.queue, message.fed, [message.id])
        fits = model.places.get(message.id) == ("waiting", message.queue, message.fed)
        assert len(taken) == fits
        if fits:
            model.places[message.id] = ("held", message.fed)
            assert (taken[0].alpha is not None, taken[0].suspect) == (
                message.id in model.alpha, message.id in model.suspects,
            )  # fmt: skip
            self.hands += taken

    def hand_over(self, which: int, sent: bool, again: bool) -> None:
        if not self.hands:
            return
        taken, model = self._hand(which, again), self.model
        (fed,) = self.ledger.hand_over(self.spec.run, [(taken, b"alpha")])
        assert (fed is not None) == model.holds(taken)
        if fed is not None:
            model.places[taken.item.id] = ("waiting", "encode", fed)
            model.alpha.add(taken.item.id)
            if sent:
                model.messages.append(Message("encode", fed, taken.item.id))

    def succeed(self, which: int, _: bool, again: bool) -> None:
        if not self.hands:
            return
        taken, model = self._hand(which, again), self.model
        counted = self.ledger.done(taken, {"key": taken.item.key, "outcome": "done"})
        assert counted == (taken.item.id in model.places)  # from any copy, once
        if counted:
            model.finish(taken.item.id, "done")

    def fail(self, which: int, _: bool, again: bool) -> None:
        if not self.hands:
            return
        taken, model = self._hand(which, again), self.model
        holds = model.holds(taken)
        assert self.ledger.fail(taken, PermanentError(Code.TRUNCATED, "no")) == ("failed" if holds else "stale")
        if holds:
            model.finish(taken.item.id, "failed")

    def try_again(self, which: int, _: bool, again: bool) -> None:
        if not self.hands:
            return
        taken, model = self._hand(which, again), self.model
        calls: dict[str, Callable[[], str]] = {
            "transient": lambda: self.ledger.fail(taken, TransientError(Code.UPLOAD_FAILED, "503")),
            "death": lambda: self.ledger.blame(taken, "signal 11"),
            "lost alpha": lambda: self.ledger.lost_alpha(taken, "damaged"),
        }
        how = list(calls)[which % 3]
        kind, limit = ("deaths", DEATHS) if how == "death" else ("tries", TRIES)
        self._sent_back(taken, calls[how](), kind, limit, drop=how == "lost alpha", told="again")
        assert model.counts[kind, taken.item.id] <= limit

    def the_engine_dies(self, which: int, alone: bool, again: bool) -> None:
        if not self.hands:
            return
        taken = self._hand(which, again)
        batch = [taken] if alone else [taken, replace(taken, fed=1)]
        holds = self.model.holds(taken)
        answer, *_ = self.ledger.suspect(batch)
        if holds:
            self.model.suspects.add(taken.item.id)
        self._sent_back(taken, answer, "alone" if alone else "", DEATHS, told="suspect")

    def give_back(self, which: int, _: bool, again: bool) -> None:
        if not self.hands:
            return
        taken = self._hand(which, again)
        self.ledger.give_back([taken])
        if self.model.holds(taken):
            self.model.back(taken.item.id)

    def touch(self, which: int, *_: bool) -> None:
        if not self.hands:
            return
        taken = self._hand(which, again=True)
        self.ledger.touch(self.spec.run, [(taken.item.id, taken.fed)])

    def die(self, which: int, *_: bool) -> None:
        if not self.hands:
            return
        self._hand(which, again=False)

    # --- what befalls all

    def cancel(self, which: int, *_: bool) -> None:
        if which % 8 != 5:
            return
        self.ledger.cancel(self.spec.run)
        self.model.state = "listed"
        for id in list(self.model.places):
            self.model.finish(id, "failed")

    def redis_saves(self, *_: int) -> None:
        client = self.ledger.client
        dump: dict[bytes, bytes] = {key: client.dump(key) for key in client.keys("mm:*")}  # type: ignore[misc,union-attr]
        self.older = (dump, copy.deepcopy(self.model))

    def redis_comes_back_older(self, *_: int) -> None:
        """The broker's messages with it; what workers and listers have in hand is of the lost time."""
        if self.older is None:
            return
        self.older_times += 1
        dump, model = self.older
        self.ledger.client.flushdb()
        for key, value in dump.items():
            self.ledger.client.restore(key, 0, value)
        self.model = copy.deepcopy(model)

    # --- what must hold

    @property
    def listed(self) -> int:
        return len(self.model.places) + len(self.model.finished)

    def every_item_is_in_one_place_and_the_counts_are_exact(self) -> None:
        client, base, model = self.ledger.client, f"mm:{{{self.spec.run}}}", self.model
        counts = self.ledger.counts(self.spec.run)
        tally = Counter(model.finished.values())
        assert (counts.listed, counts.done, counts.skipped, counts.failed, counts.pending) == (
            self.listed, tally["done"], tally["skipped"], tally["failed"], len(model.places),
        )  # fmt: skip
        assert counts.state == model.state
        assert ("incomplete" in counts.error) == model.incomplete
        found: list[tuple[str, str]] = []
        for name in self.ledger.places(self.spec.run):
            found += [(name, one.decode()) for one in client.zrange(f"{base}:{name}", 0, -1)]  # type: ignore[union-attr]
        names = [
            (f"waiting:{place[1]}" if place[0] == "waiting" else str(place[0]), id)
            for id, place in model.places.items()
        ]
        assert sorted(found) == sorted(names)
        for name, ids in (("items", set(model.places)), ("alpha", model.alpha)):
            assert {one.decode() for one in client.hkeys(f"{base}:{name}")} == ids  # type: ignore[union-attr]
        held = {id: str(place[1]) for id, place in model.places.items() if place[0] == "held"}
        fed: dict[bytes, bytes] = client.hgetall(f"{base}:fed")  # type: ignore[assignment]
        assert {id.decode(): number.decode() for id, number in fed.items()} == held
        rows = Counter(str(row["key"]) for row in self.ledger.rows(self.spec.run))
        assert rows == {KEY_OF[id]: 1 for id in model.finished}

    def end(self) -> None:
        """Whatever has happened: with one worker that lives, every listed item ends."""
        ledger, run = self.ledger, self.spec.run
        if self.model.state == "listing":
            adopted = ledger.adopt_listing(run, 0)
            assert adopted is not None
            assert ledger.close_listing(run, adopted[1]) == self.listed
        for _ in range(3):
            ledger.reclaim(run, dict.fromkeys(ledger.queues(run)))
            for one in ledger.feed(self.spec, 100, 100):
                for taken in ledger.take(run, one.queue, one.fed, [one.item.id]):
                    if taken.alpha is None:
                        ledger.hand_over(run, [(taken, b"alpha")])
                    else:
                        assert ledger.done(taken, {"key": taken.item.key, "outcome": "done"})
        counts = ledger.counts(run)
        assert (counts.pending, counts.finished, counts.listed) == (0, self.listed, self.listed)
        assert len({str(row["key"]) for row in ledger.rows(run)}) == counts.listed
        ledger.close(run)
        assert [key.decode() for key in ledger.client.keys("mm:{*")] == [f"mm:{{{run}}}"]  # type: ignore[union-attr]

    def _hand(self, which: int, again: bool) -> Taken:
        """What a worker has in hand; it does the same twice when `again`."""
        holding = [one for one in self.hands if self.model.holds(one)]
        choice = holding if holding and which % 4 else self.hands
        taken = choice[which % len(choice)]
        if not again:
            self.hands.remove(taken)
        return taken

    def _sent_back(self, taken: Taken, answer: str, kind: str, limit: int, *, told: str, drop: bool = False) -> None:
        model, id = self.model, taken.item.id
        if not model.holds(taken):
            assert answer == "stale"
            return
        if drop:
            model.alpha.discard(id)
        model.counts[kind, id] += kind != ""
        if kind and model.counts[kind, id] >= limit:
            assert answer == "failed"
            model.finish(id, "failed")
        else:
            assert answer == told
            model.back(id)


def entry(spec: RunSpec, key: Key, skip: bool) -> Listing:
    item = Item(item_id(spec.output_key(key)), key, ETag("e"), 10, "320x320")
    row = {"key": key, "outcome": "skipped"} if skip else None
    return Listing("skipped" if skip else "todo", item, short_hash(key), row)


KEY_OF = {
    entry(RunSpec(new_run_id(), "", "", "", "", "", "", ()), key, skip=False).item.id: key for key in KEYS
}  # fmt: skip


@pytest.fixture
def ledger(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    now, lie = time.time, random.Random(7)
    monkeypatch.setattr(time, "time", lambda: now() + lie.uniform(-1e6, 1e6))  # a client's clock is worth nothing
    monkeypatch.setattr("pipeline.ledger.ledger._BACKOFF", 0.0)
    impatient = settings.model_copy(
        update={"held_timeout": 1e-6, "waiting_timeout": 1e-6, "max_tries": TRIES, "max_deaths": DEATHS}
    )
    client = connect(settings)
    yield Ledger(client, impatient)
    client.close()


Action: TypeAlias = Callable[[Machine, int, bool, bool], None]
BY_HAND: dict[Action, int] = {
    Machine.hand_over: 15, Machine.succeed: 4, Machine.fail: 2, Machine.try_again: 12, Machine.the_engine_dies: 6,
    Machine.give_back: 3, Machine.touch: 2, Machine.die: 4,
}  # fmt: skip
BY_MESSAGE: dict[Action, int] = {Machine.take: 30, Machine.lose_or_double: 5}
ALWAYS: dict[Action, int] = {
    Machine.list_a_page: 5, Machine.go_on_with_the_listing: 2, Machine.close_the_listing: 1, Machine.feed: 12,
    Machine.reclaim: 3, Machine.reclaim_in_time: 1, Machine.cancel: 2, Machine.redis_saves: 2,
    Machine.redis_comes_back_older: 1,
}  # fmt: skip
"""What may happen, and how often."""


def play(ledger: Ledger, most: int = 150) -> Counter[str]:
    """Let things happen, in so many examples at `most`; gives how often the model saw each outcome."""
    seen = Counter[str]()

    # The steps come of a seed: lists of steps that hypothesis makes by itself seldom get far.
    @effort(
        max_examples=most, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 2**32 - 1))
    def happen(seed: int) -> None:
        chance, machine = random.Random(seed), Machine(ledger)
        machine.list_a_page(15, True, True)
        for _ in range(chance.randrange(40, 120)):
            may = ALWAYS | (BY_HAND if machine.hands else {}) | (BY_MESSAGE if machine.model.messages else {})
            (action,) = chance.choices(list(may), list(may.values()))
            action(machine, chance.randrange(256), chance.random() < 0.7, chance.random() < 0.2)
            machine.every_item_is_in_one_place_and_the_counts_are_exact()
        seen.update(machine.model.finished.values())
        seen.update(f"{kind} {count}" for (kind, _), count in machine.model.counts.items() if kind)
        seen["older"] += machine.older_times
        machine.end()

    happen()
    return seen


@pytest.mark.timeout(600)
def test_whatever_happens_every_listed_item_ends_once(ledger: Ledger) -> None:
    wanted = ("done", "failed", "skipped", "older", "tries 2", "deaths 2", "alone 2")
    seen = play(ledger)
    # Redis's clock is part of every example: now and then the rarest has not come five times yet.
    for _ in range(2):
        if any(seen[what] < 5 for what in wanted):
            seen += play(ledger)
    assert all(seen[what] >= 5 for what in wanted), seen


def test_a_ledger_that_counts_a_stale_failure_is_found_out(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(taken: Taken, error: ItemError) -> str:
        fed = ledger.client.hget(f"mm:{{{taken.run}}}:fed", taken.item.id)
        return Ledger.fail(ledger, replace(taken, fed=int(fed or taken.fed)), error)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "fail", fail)
    with pytest.raises(AssertionError):
        play(ledger, 2000)  # until one is found: Redis's clock is part of every example, so none is the same twice


def test_a_ledger_that_takes_late_copies_is_found_out(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(run: RunId, queue: str, fed: int, ids: list[ItemId]) -> list[Taken]:
        score = ledger.client.zscore(f"mm:{{{run}}}:waiting:{queue}", ids[0])
        return Ledger.take(ledger, run, queue, int(score or fed), ids)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "take", take)
    with pytest.raises(AssertionError):
        play(ledger, 2000)  # until one is found: Redis's clock is part of every example, so none is the same twice
