"""The file of named sweeps, and when they are due."""

from datetime import datetime
from pathlib import Path

import pytest

from pipeline.errors import SetupError
from pipeline.settings import load_settings
from producer.sweeps.duration import seconds_of
from producer.sweeps.file import SweepsFile, load_sweeps
from producer.sweeps.timetable import Timetable

GOOD = """
[sweeps.shoes]
source = "s3://photos/shoes/"
to = "s3://cutouts/shoes/"
recipe = "webp=90,crop"
model = "u2netp"
cron = "30 2 * * *"
time_zone = "Europe/Berlin"
include = ["*.jpg"]
exclude = ["*/thumbs/*"]
limit = 1000
reports_to = "s3://reports/"
retention = { reports = "90d", outputs = "30d" }
hook = "https://hooks.example.com/s3cret"

[sweeps.hats]
source = "s3://photos/hats/"
to = "s3://cutouts/hats/"
cron = "0 3 * * mon-fri"
hook = ["/usr/bin/logger", "--stderr"]

[clean]
cron = "0 6 * * *"
older_than = "14d"
"""


def load(tmp_path: Path, text: str) -> SweepsFile:
    path = tmp_path / "sweeps.toml"
    path.write_text(text, "utf-8")
    return load_sweeps(load_settings(sweeps=path))


def test_a_file_says_everything_of_its_sweeps(tmp_path: Path) -> None:
    file = load(tmp_path, GOOD)
    shoes, hats = file.sweep("shoes"), file.sweep("hats")
    assert (shoes.name, shoes.selection.limit, shoes.retention.outputs) == ("shoes", 1000, "30d")
    assert shoes.selection.exclude == ("*/thumbs/*",)
    assert (hats.time_zone, hats.hook) == ("UTC", ("/usr/bin/logger", "--stderr"))
    assert file.clean is not None
    assert file.clean.older_than == "14d"
    assert "s3cret" not in repr(file)
    with pytest.raises(SetupError, match=r"no sweep 'bags'.*shoes, hats"):
        file.sweep("bags")


@pytest.mark.parametrize(
    ("line", "wrong", "told"),
    [
        ('cron = "30 2 * * *"', 'cron = "30 2 * *"', "sweep shoes: cron: .*4 fields"),
        ('cron = "30 2 * * *"', 'cron = "30 25 * * *"', "sweep shoes: cron: .*no cron line"),
        ('cron = "30 2 * * *"', 'cron = "0 0 31 2 *"', "sweep shoes: cron: .*never due"),
        ('cron = "30 2 * * *"', "", "sweep shoes: cron: Field required"),
        ('"Europe/Berlin"', '"Europe/Atlantis"', "sweep shoes: time_zone: .*no time zone"),
        ('"Europe/Berlin"', '"../../etc/passwd"', "sweep shoes: time_zone: .*no time zone"),
        ('"s3://photos/shoes/"', '"photos/shoes"', "sweep shoes: source: an S3 address"),
        ('"s3://reports/"', '"reports"', "sweep shoes: reports_to: an S3 address"),
        ('"webp=90,crop"', '"webp=900"', "sweep shoes: recipe: webp=900 is no number"),
        ("limit = 1000", "limit = 0", "sweep shoes: limit: "),
        ("limit = 1000", "limits = 1000", "sweep shoes: limits: "),
        ('outputs = "30d"', 'outputs = "30"', "sweep shoes: retention.outputs: .*12h, 30d"),
        ('"https://hooks.example.com/s3cret"', '"ftp://hooks.example.com/s3cret"', "sweep shoes: hook: "),
        ('"https://hooks.example.com/s3cret"', "3", "sweep shoes: hook: "),
        ('["/usr/bin/logger", "--stderr"]', '["/usr/bin/logger", ""]', "sweep hats: hook: .*empty"),
        ("[sweeps.hats]", "[sweeps.Hats]", "sweep Hats: name: "),
        ("[clean]", "[cleaning]", "cleaning: there are only"),
        ('older_than = "14d"', 'older_than = "soon"', "clean.older_than: .*length of time"),
        ("[sweeps.shoes]", "[sweeps.shoes", "is no TOML"),
    ],
)
def test_an_error_names_file_sweep_and_field_and_no_secret(tmp_path: Path, line: str, wrong: str, told: str) -> None:
    assert line in GOOD
    with pytest.raises(SetupError, match=rf"sweeps\.toml.*{told}") as raised:
        load(tmp_path, GOOD.replace(line, wrong, 1))
    assert "s3cret" not in f"{raised.value} {raised.value.__cause__}"


def test_a_missing_file_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="MATTEMILL_SWEEPS"):
        load_sweeps(load_settings(sweeps=tmp_path / "none.toml"))
    with pytest.raises(SetupError, match="MATTEMILL_SWEEPS"):
        load_sweeps(load_settings())


@pytest.mark.parametrize(
    ("cron", "now", "last", "following"),
    [
        # The clocks go forward at 2:00 on 29 March and back at 3:00 on 25 October.
        ("30 2 * * *", "2026-03-29T00:59:59+00:00", "2026-03-28T01:30", "2026-03-29T01:30"),
        ("30 2 * * *", "2026-03-29T01:30:00+00:00", "2026-03-29T01:30", "2026-03-30T00:30"),
        ("30 2 * * *", "2026-10-25T01:00:00+00:00", "2026-10-25T00:30", "2026-10-26T01:30"),
        ("0 0 * * *", "2026-01-01T12:00:00+00:00", "2025-12-31T23:00", "2026-01-01T23:00"),
        ("*/20 9 * * mon", "2026-11-24T12:00:00+00:00", "2026-11-23T08:40", "2026-11-30T08:00"),
        ("0 12 29 2 *", "2026-01-01T00:00:00+00:00", "2024-02-29T11:00", "2028-02-29T11:00"),
    ],
)
def test_scheduled_times_are_those_of_the_clock_on_the_wall(cron: str, now: str, last: str, following: str) -> None:
    table, moment = Timetable(cron, "Europe/Berlin"), datetime.fromisoformat(now).timestamp()
    assert table.last(moment) == datetime.fromisoformat(f"{last}+00:00").timestamp()
    assert table.next(moment) == datetime.fromisoformat(f"{following}+00:00").timestamp()


def test_lengths_of_time() -> None:
    assert [seconds_of(text) for text in ("90m", "12h", "30d", "2w")] == [5400, 43200, 2592000, 1209600]
    for text in ("", "0d", "-1d", "1.5h", "1y", "d", "1234567d"):
        with pytest.raises(ValueError, match="no length of time"):
            seconds_of(text)
