"""Nights: one run for each scheduled time, whoever starts it, whatever breaks."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import SetupError
from pipeline.ids import RunId
from pipeline.ledger import Ledger
from pipeline.runs import RunSpec
from pipeline.settings import Settings
from producer.api import Producer
from producer.sweeps.file import NamedSweep
from producer.sweeps.nights import Nights, Outlook
from producer.sweeps.start import start_by_hand, start_if_due
from tests.command_line import refused, run
from tests.conftest import WaitUntil
from tests.processes import empty, metrics, process
from workers.local.ports import free_ports

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

DAY = 86400.0
BERLIN_NOON = datetime(2026, 11, 24, 11, 0, tzinfo=UTC).timestamp()


class Clock:
    now = BERLIN_NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bucket(s3_bucket: str, s3_client: "S3Client") -> Iterator[str]:
    for number in range(3):
        s3_client.put_object(Bucket=s3_bucket, Key=f"in/{number}.jpg", Body=b"x" * number)
    yield s3_bucket
    empty(s3_client, s3_bucket)


@pytest.fixture
def sweep(bucket: str) -> NamedSweep:
    return NamedSweep(
        name="shoes", source=f"s3://{bucket}/in/", to=f"s3://{bucket}/out/", cron="0 2 * * *", time_zone="Europe/Berlin"
    )


def nights(ledger: Ledger, settings: Settings, clock: Clock) -> Nights:
    return Nights(ledger, settings.home, clock)


def take(ledger: Ledger, night: Nights, sweep: NamedSweep, name: str, outlook: Outlook | None = None) -> bool:
    """As a process that lists nothing: the run is there, and open."""
    taken = night.take(sweep, outlook or night.look(sweep), name)
    if taken:
        ledger.create(RunSpec(RunId(name), "a", "", "b", "", "u2netp", "0" * 64, ("320x320",)))
    return taken


def test_a_night_has_one_run_however_many_look(settings: Settings, ledger: Ledger, sweep: NamedSweep) -> None:
    clock = Clock()
    one, other = nights(ledger, settings, clock), nights(ledger, settings, clock)
    assert one.look(sweep).what == "later"  # last night was before anybody knew of this sweep
    clock.now += 3 * DAY
    looked, at_once = one.look(sweep), other.look(sweep)
    assert (looked.what, at_once.what) == ("due", "due")
    assert looked.night == datetime(2026, 11, 27, 1, 0, tzinfo=UTC).timestamp()  # three nights were missed: one run
    assert take(ledger, one, sweep, "r1", looked)
    assert not take(ledger, other, sweep, "r2", at_once)
    one.listed(sweep, "r1")
    assert other.look(sweep).what == "later"
    clock.now -= 10 * DAY  # a clock that goes back starts nothing
    assert other.look(sweep).what == "later"


def test_a_night_waits_for_the_end_of_the_last_run(settings: Settings, ledger: Ledger, sweep: NamedSweep) -> None:
    clock = Clock()
    night = nights(ledger, settings, clock)
    night.look(sweep)
    clock.now += DAY
    assert take(ledger, night, sweep, "r1")
    night.listed(sweep, "r1")
    clock.now += DAY
    waiting = night.look(sweep)
    assert (waiting.what, waiting.record.run) == ("waits", "r1")
    ledger.close_listing(RunId("r1"), 0)
    assert night.look(sweep).what == "waits"
    ledger.close(RunId("r1"))
    assert night.look(sweep).what == "due"
    assert take(ledger, night, sweep, "r2")
    ledger.client.delete("mm:{r2}")  # it has left Redis
    night.listed(sweep, "r2")
    assert night.look(sweep).what == "later"


def test_a_night_whose_listing_broke_off_is_due_again_three_times_at_most(
    settings: Settings, ledger: Ledger, sweep: NamedSweep
) -> None:
    clock = Clock()
    night = nights(ledger, settings, clock)
    night.look(sweep)
    clock.now += DAY
    assert night.take(sweep, night.look(sweep), "r0")  # killed before its run was there
    assert night.look(sweep).what == "later"
    clock.now += 121
    assert night.look(sweep).what == "due"
    for name in ("r1", "r2"):  # killed while they listed
        assert take(ledger, night, sweep, name)
        assert night.look(sweep).what == "later"
        assert ledger.close_listing(RunId(name), 7) == 0  # the ledger knows of fewer keys
        assert night.look(sweep).what == "later"
        ledger.close(RunId(name))
    assert night.look(sweep).what == "later"
    clock.now += DAY
    assert night.look(sweep).what == "due"


def test_after_the_loss_of_redis_the_last_night_is_started_again(
    settings: Settings, ledger: Ledger, sweep: NamedSweep
) -> None:
    clock = Clock()
    night = nights(ledger, settings, clock)
    night.look(sweep)
    clock.now += DAY
    assert take(ledger, night, sweep, "r1")
    night.listed(sweep, "r1")
    ledger.client.flushall()
    assert nights(ledger, settings, clock).look(sweep).what == "due"
    other_home = settings.model_copy(update={"home": settings.home / "other"})
    ledger.client.flushall()
    assert nights(ledger, other_home, clock).look(sweep).what == "later"


def test_another_timetable_begins_anew(settings: Settings, ledger: Ledger, sweep: NamedSweep) -> None:
    clock = Clock()
    night = nights(ledger, settings, clock)
    night.look(sweep)
    earlier = sweep.model_copy(update={"cron": "0 11 * * *"})  # an hour ago
    assert night.look(earlier).what == "later"
    clock.now += DAY
    assert night.look(earlier).what == "due"


def test_a_sweep_that_cannot_start_leaves_its_night_to_the_next(
    settings: Settings, environment: dict[str, str], ledger: Ledger, sweep: NamedSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    clock = Clock()
    night = nights(ledger, settings, clock)
    producer = Producer(settings)
    assert start_if_due(producer, night, sweep) is None
    clock.now += DAY
    with pytest.raises(SetupError, match="no-such-bucket"):
        start_if_due(producer, night, sweep.model_copy(update={"to": "s3://no-such-bucket-here/"}))
    assert night.look(sweep).what == "due"
    started = start_if_due(producer, night, sweep)
    assert started is not None
    assert (started.spec.sweep, started.counts().listed, night.look(sweep).record.run) == ("shoes", 3, started.id)
    assert start_if_due(producer, night, sweep) is None
    with pytest.raises(SetupError, match=f"{started.id}, is not finished"):
        start_by_hand(producer, night, sweep)
    clock.now += DAY
    with pytest.raises(SetupError, match="the next one waits"):
        start_if_due(producer, night, sweep)
    started.cancel()
    ledger.close(started.id)
    by_hand = start_by_hand(producer, night, sweep)
    assert by_hand.spec.sweep == "shoes"
    assert night.look(sweep).what == "waits"  # it is no night's run


@pytest.mark.timeout(240)
def test_beat_says_in_its_log_why_a_sweep_did_not_start_and_prometheus_sees_it(
    environment: dict[str, str], settings: Settings, sweeps_file: Path, bucket: str, wait_until: WaitUntil,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sweeps_file.write_text(sweeps_file.read_text().replace(f"s3://{bucket}/hats/", "s3://no-such-bucket-here/"))
    settings.home.mkdir()
    (settings.home / "sweeps.json").write_text(
        json.dumps({"shoes": ["0 0 * * * UTC", 1.0], "hats": ["0 0 1 1 * UTC", 1.0]})
    )
    (port,) = free_ports(1)
    environment |= {"MATTEMILL_METRICS_PORT": str(port), "MATTEMILL_LOG_FORMAT": "json"}
    said = ""

    def not_started() -> list[dict[str, object]]:
        nonlocal said
        said += capfd.readouterr().err
        return [json.loads(line) for line in said.splitlines() if '"sweep_not_started"' in line]

    with process(environment, "producer.commands", "beat"):
        wait_until(not_started, 120)
        shown = metrics(port)
        wait_until(lambda: metrics(port).get('mattemill_sweep_starts_total{outcome="ok",sweep="shoes"}') == 1, 120)
    (line,) = not_started()
    assert line["sweep"] == "hats"
    assert line["status"] == 2
    assert str(line["error"]).startswith("There is no bucket no-such-bucket-here")
    assert "Hint:" in str(line["error"])
    assert "Traceback" not in said
    assert all(line.startswith("{") for line in said.splitlines())
    assert shown['mattemill_sweep_starts_total{outcome="failed",sweep="hats"}'] == 1
    assert shown['mattemill_sweep_starts_total{outcome="failed",sweep="shoes"}'] == 0


@pytest.fixture
def sweeps_file(tmp_path: Path, bucket: str, environment: dict[str, str]) -> Path:
    path = tmp_path / "sweeps.toml"
    path.write_text(
        f'[sweeps.shoes]\nsource = "s3://{bucket}/in/"\nto = "s3://{bucket}/out/"\ncron = "0 0 * * *"\n'
        f'[sweeps.hats]\nsource = "s3://{bucket}/in/"\nto = "s3://{bucket}/hats/"\ncron = "0 0 1 1 *"\n'
    )
    environment["MATTEMILL_SWEEPS"] = str(path)
    return path


@pytest.mark.timeout(400)
def test_two_beats_that_are_killed_and_restarted_catch_up_one_run_for_each_sweep(
    environment: dict[str, str], settings: Settings, ledger: Ledger, sweeps_file: Path, wait_until: WaitUntil
) -> None:
    settings.home.mkdir()
    seen = {"shoes": ["0 0 * * * UTC", 1.0], "hats": ["0 0 1 1 * UTC", 1.0]}
    (settings.home / "sweeps.json").write_text(json.dumps(seen))
    beat = ("producer.commands", "beat")

    def names() -> list[str]:
        return sorted(ledger.spec(run).sweep for run in ledger.runs() if ledger.counts(run).state == "listed")

    with process(environment, *beat) as one, process(environment, *beat):
        wait_until(lambda: names() == ["hats", "shoes"], 150)
        one.kill()
        with process(environment, *beat):
            # What is lost comes again, once, and shows that both have looked at everything again.
            ledger.client.delete("mm:nights:hats")
            wait_until(lambda: names() == ["hats", "hats", "shoes"], 150)
    assert names() == ["hats", "hats", "shoes"]
    rows = json.loads(run(environment, "sweeps", "list", "--json").stdout)
    assert [(row["sweep"], bool(row["last_run"]), row["state"]) for row in rows] == [
        ("shoes", True, ""), ("hats", True, ""),
    ]  # fmt: skip
    again = run(environment, "sweeps", "run", "shoes", "--due")
    assert (again.returncode, again.stdout) == (0, "Sweep shoes: nothing is due.\n")


@pytest.mark.timeout(400)
def test_the_commands_say_what_is_wrong(environment: dict[str, str], sweeps_file: Path, bucket: str) -> None:
    checked = run(environment, "sweeps", "check")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith(f"ok    shoes  s3://{bucket}/in/ -> s3://{bucket}/out/, 0 0 * * * UTC")
    started = run(environment, "sweeps", "run", "shoes")
    assert started.returncode == 0, started.stderr
    refused(run(environment, "sweeps", "run", "shoes"), started.stdout.strip(), "not finished", "mattemill status")
    refused(run(environment, "sweeps", "run", "bags"), "no sweep 'bags'", "shoes, hats")
    assert f"last run {started.stdout.strip()}" in run(environment, "sweeps", "list").stdout
    text = sweeps_file.read_text()
    sweeps_file.write_text(text.replace(f"s3://{bucket}/hats/", "s3://no-such-bucket-here/"))
    checked = run(environment, "sweeps", "check")
    assert checked.returncode == 2
    assert "BAD   hats   There is no bucket no-such-bucket-here" in checked.stdout
    sweeps_file.write_text(text.replace(f"s3://{bucket}/hats/", f"s3://{bucket}/in/").replace("0 0 1", "0 1 1"))
    checked = run(environment, "sweeps", "check")
    assert checked.returncode == 2
    assert "among the photos that this sweep reads" in checked.stdout
    sweeps_file.write_text(text.replace("cron", "corn", 1))
    for command in (("sweeps", "check"), ("sweeps", "list"), ("sweeps", "run", "shoes"), ("beat",)):
        refused(run(environment, *command), str(sweeps_file), "sweep shoes", "cron")
    del environment["MATTEMILL_SWEEPS"]
    refused(run(environment, "beat"), "MATTEMILL_SWEEPS")
