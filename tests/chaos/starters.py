"""Whatever starts runs is killed: the producer while it lists, beat while it starts a night's sweep."""

import json
import signal
import time
from collections.abc import Callable
from random import Random

from pipeline.ids import RunId
from producer.run import Run
from tests.chaos.audit import Audit, audit
from tests.chaos.day import Line
from tests.chaos.system import BUCKET, System, wait_until

_PLACES = ("create:after", "list_page:before", "list_page:after", "close_listing:before", "", "")
"""Where the producer dies; "" is a random instant after the first page."""


def producer_killed(system: System, images: int, seed: int) -> Line:
    """kill -9 of `mattemill sweep` at every step of its listing; then the same command once more."""
    random, started = Random(seed), time.monotonic()
    before = set(system.ledger.runs())
    commands = [
        ("sweep", f"s3://{BUCKET}/in/", "--to", f"s3://{BUCKET}/out/producer-{number}/", "--limit", str(images))
        for number in range(len(_PLACES))
    ]
    for place, command in zip(_PLACES, commands, strict=True):
        _kill_listing(system, place, command, random)
    killed = [run for run in system.ledger.runs() if run not in before]
    struck = time.monotonic()
    again = [system.spawn("producer-again", *command) for command in commands]
    codes = [one.wait(300) for one in again]
    runs = [run for run in system.ledger.runs() if run not in before]
    ended = wait_until(lambda: all(_over(system, run) for run in runs), 600, 0.5)
    audits = [_best(system, runs, f"out/producer-{number}/", images) for number in range(len(_PLACES))]
    notes = [f"{len(killed)} runs broke off", *([f"exit codes {codes}"] if any(codes) else [])]
    return _line("producer killed while it lists", len(_PLACES), audits, started, struck, ended, notes)


def _kill_listing(system: System, place: str, command: tuple[str, ...], random: Random) -> None:
    before = set(system.ledger.runs())
    file = system.aims / f"sweep:{place}:self"
    if place:
        file.touch()
    child = system.spawn("producer", *command)
    if not place:

        def begun() -> bool:
            fresh = set(system.ledger.runs()) - before
            return any(system.ledger.counts(run).listed for run in fresh) or child.poll() is not None

        wait_until(begun, 60, 0.005)
        time.sleep(random.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
    child.wait(60)
    file.unlink(missing_ok=True)


def beat_killed(system: System, images: int, seed: int) -> Line:
    """kill -9 of `mattemill beat` at random instants and while its sweep lists; then it is left alone."""
    random, started = Random(seed), time.monotonic()
    before = set(system.ledger.runs())
    file = system.folder / "sweeps.toml"
    file.write_text(
        f'[sweeps.night]\nsource = "s3://{BUCKET}/in/"\nto = "s3://{BUCKET}/out/beat-night/"\n'
        f'cron = "0 0 * * *"\nlimit = {images}\n'
    )
    (system.home / "sweeps.json").write_text(json.dumps({"night": ["0 0 * * * UTC", 1.0]}))
    extra = {"MATTEMILL_SWEEPS": str(file)}
    aim = system.aims / "sweeps:list_page:after:parent"
    for pause in (random.uniform(0.5, 2), None, random.uniform(2, 6), random.uniform(0.5, 6)):
        child = system.spawn("beat", "beat", extra=extra)
        if pause is None:
            aim.touch()
            wait_until(lambda: not aim.exists(), 60, 0.01)
            aim.unlink(missing_ok=True)
        else:
            time.sleep(pause)
        child.kill()
        child.wait()
    struck = time.monotonic()
    child = system.spawn("beat", "beat", extra=extra)

    def runs() -> list[RunId]:
        return [run for run in system.ledger.runs() if run not in before]

    def night_is_over() -> bool:
        return any(_whole(system, run) for run in runs()) and all(_over(system, run) for run in runs())

    try:
        ended = wait_until(night_is_over, 600, 0.5)
        time.sleep(5)  # another run would begin now
        whole = sum(_whole(system, run) for run in runs())
    finally:
        child.terminate()
        child.wait(30)
    notes = [f"{len(runs()) - whole} runs broke off"]
    found = _best(system, runs(), "out/beat-night/", images)
    if whole != 1:
        found.wrong.append(f"the night has {whole} whole runs")
    return _line("beat killed", 4, [found], started, struck, ended, notes)


def _over(system: System, run: RunId) -> bool:
    return system.ledger.counts(run).state == "finished"


def _whole(system: System, run: RunId) -> bool:
    counts = system.ledger.counts(run)
    return counts.state == "finished" and not counts.error


def _best(system: System, runs: list[RunId], prefix: str, images: int) -> Audit:
    """The run that lists all there is; those that broke off must have ended, and say so."""
    mine = [run for run in runs if system.ledger.spec(run).target_prefix == prefix]
    whole = [run for run in mine if _whole(system, run)]
    run = Run(whole[0] if whole else mine[0], system.ledger, system.store, system.settings)
    found = audit(system, run, system.pictures[:images])
    for other in mine:
        counts = system.ledger.counts(other)
        if counts.pending or counts.state != "finished":
            found.wrong.append(f"{other} has {counts.pending} pictures without an outcome, and is {counts.state}")
    return found


def _line(
    fault: str, times: int, audits: list[Audit], started: float, struck: float, ended: bool, notes: list[str]
) -> Line:
    reasons: dict[str, int] = {}
    for one in audits:
        for code, count in one.reasons.items():
            reasons[code] = reasons.get(code, 0) + count
    total = Audit(
        listed=sum(one.listed for one in audits),
        done=sum(one.done for one in audits),
        failed=sum(one.failed for one in audits),
        lost=sum(one.lost for one in audits),
        doubled=sum(one.doubled for one in audits),
        wrong=[sentence for one in audits for sentence in one.wrong],
        again=sum(one.again for one in audits),
        reasons=reasons,
        repacked=[sentence for one in audits for sentence in one.repacked],
    )
    now = time.monotonic()
    return Line(fault, times, total, now - struck, None, now - started, ended, tuple(notes))


STARTERS: dict[str, Callable[[System, int, int], Line]] = {
    "producer killed while it lists": producer_killed,
    "beat killed": beat_killed,
}
