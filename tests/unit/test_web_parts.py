"""The live page without servers: words, doors, rates, heartbeats, escaping."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pipeline.ids import ItemId, RunId
from pipeline.ledger import Counts
from pipeline.runs import RunSpec
from producer.report.meanings import MEANINGS
from producer.web.heartbeats import Heartbeats
from producer.web.rates import Rates, average, seconds_left
from producer.web.reading import Overview, RunLine, RunPage
from producer.web.render import Renderer
from producer.web.results import Results
from producer.web.server import Door, is_loopback
from producer.web.texts import CHINESE, choose, duration, say
from tests.conftest import ROOT

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e产品.jpg"
COUNTS = Counts(
    listed=100, done=40, skipped=5, failed=5, retried=0, state="listed", error="", cancelled=False,
    created=1000.0, moved=1050.0, now=1050.0,
)  # fmt: skip
SPEC = RunSpec(RunId("20261124-000000-abcdef"), "photos", f"in/{HOSTILE}/", "cutouts", "out/", "u2netp", "0" * 64, ())


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def handlers(page: str) -> list[str]:
    """Attributes of a page that would run as script."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.extend(name for name, _ in attrs if name.startswith("on"))  # type: ignore[method-assign]
    parser.feed(page)
    return found


def heartbeat(**fields: object) -> bytes:
    event = {"hostname": "gpu-7@box", "type": "worker-heartbeat", "active": 3, "processed": 9, "engine": "fake:1"}
    return json.dumps({"body": base64.b64encode(json.dumps(event | fields).encode()).decode()}).encode()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (basic("mattemill", "pässwörd"), True),
        (basic("mattemill", "pässwörd").replace("Basic", "basic"), True),
        (basic("mattemill", "passw0rd"), False),
        (basic("admin", "pässwörd"), False),
        (basic("mattemill", ""), False),
        ("", False),
        ("Basic", False),
        ("Basic ???", False),
        ("Bearer " + base64.b64encode(b"mattemill:x").decode(), False),
    ],
)
def test_only_the_right_password_opens_the_door(header: str, expected: bool) -> None:
    assert Door("pässwörd").lets_in(header) is expected


def test_without_a_password_only_this_machines_names_are_answered() -> None:
    assert all(map(Door(None).knows, ("localhost:8080", "127.0.0.1:8080", "[::1]:8080")))
    assert not any(map(Door(None).knows, ("evil.example:8080", "127.0.0.1.evil.example", "", "[broken")))
    assert Door("secret").knows("mattemill.example")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.1", False), ("a.b", False)],
)
def test_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("de-DE,de;q=0.9,zh-TW;q=0.5,en;q=0.1", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("fr", "en"),
        ("zh;q=nonsense", "en"),
        ("zh;q=0", "en"),
    ],
)
def test_the_browser_chooses_the_language(header: str, expected: str) -> None:
    assert choose(header) == expected


def test_every_text_has_its_chinese_with_the_same_values() -> None:
    folder = ROOT / "producer" / "web"
    texts = {text for path in folder.glob("*.j2") for text in re.findall(r'say\("([^"]+)"', path.read_text())}
    errors = (folder / "server.py").read_text().partition("def write_error")[2].partition("set_status")[0]
    texts |= set(re.findall(r'"([A-Z][^"]+\.)"', errors))
    texts |= {"alive", "silent", "Checker", "White", "Black", "listing", "working", "closing", "finished"}
    texts |= {"cancelled", "incomplete", *MEANINGS}
    assert texts - set(CHINESE) == set()
    names = re.compile(r"\{(\w+)\}")
    assert {
        text for text, chinese in CHINESE.items() if set(names.findall(text)) != set(names.findall(chinese))
    } == set()


@pytest.mark.parametrize(
    ("language", "truncated", "empty"),
    [("en", "cut off or damaged", "nothing kept"), ("zh", "文件不完整", "什么都没留下")],
)
def test_codes_and_flags_are_shown_in_words(language: str, truncated: str, empty: str) -> None:
    row: dict[str, object] = {
        "key": "a.jpg", "outcome": "done", "width": 1, "height": 1, "output_bytes": 1, "suspects": ["empty", "new"],
    }  # fmt: skip
    failure: dict[str, object] = {"key": "b.jpg", "code": "truncated", "reason": "It ends."}
    results = Results(((ItemId("0123456789ab"), row),), (failure,), "")
    page = Renderer().run(language, RunPage(RunLine(SPEC, COUNTS, "working", 1.0, None, 0.0), {}, results))
    assert re.search(rf'<span class="code" title="truncated"><bdi[^>]*>{truncated}</bdi>', page)
    assert re.search(rf'<li title="empty"><bdi[^>]*>{empty}</bdi>', page)
    assert re.search(r'<li title="new"><bdi[^>]*>new</bdi>', page)


def test_a_run_of_a_newer_version_has_a_row_that_says_so() -> None:
    newer = RunId("20261125-000000-abcdef")
    page = Renderer().overview("en", Overview((), (newer,), 1, True, True, (), 0, 0, 0.0))
    assert re.search(rf"{newer}(?s:.*)A newer Mattemill has started this run", page)
    assert "There are no runs yet" not in page


def test_durations_are_read_in_both_languages() -> None:
    assert duration("en", 252) == "4\u00a0min 12\u00a0s"
    assert duration("zh", 252) == "4\u00a0分 12\u00a0秒"
    assert say("zh", "{left} left", left=duration("zh", 3.0)) == "剩余 3.0\u00a0秒"


def test_the_rate_is_the_last_minutes() -> None:
    rates, run = Rates(), RunId("r")
    assert rates.note(run, COUNTS) == average(COUNTS) == 0.8
    for second in range(1, 200):
        rate = rates.note(run, replace(COUNTS, done=40 + 10 * second, now=1050.0 + second))
    assert rate == pytest.approx(10.0)
    for second in range(200, 270):
        rate = rates.note(run, replace(COUNTS, done=2030, now=1050.0 + second))
    assert rate == 0.0


def test_failed_images_are_no_throughput() -> None:
    counts = replace(COUNTS, done=0, skipped=0, failed=50)
    assert average(counts) == 0.0
    assert average(replace(counts, done=50)) == pytest.approx(50 / (COUNTS.moved - COUNTS.created))


def test_the_end_is_foretold_only_where_it_can_be() -> None:
    assert seconds_left(COUNTS, 10.0) == 5.0
    assert seconds_left(COUNTS, 0.0) is None
    assert seconds_left(replace(COUNTS, state="listing"), 10.0) is None
    assert seconds_left(replace(COUNTS, done=90), 10.0) is None


def test_workers_are_alive_as_long_as_they_are_heard() -> None:
    now = [0.0]
    heartbeats = Heartbeats(None, clock=lambda: now[0])  # type: ignore[arg-type]
    heartbeats.hear(heartbeat())
    heartbeats.hear(heartbeat(hostname="cpu-1@other", engine=""))
    cpu, gpu = heartbeats.workers()
    assert (gpu.role, gpu.host, gpu.engine, gpu.active, gpu.processed, gpu.alive) == (
        "gpu",
        "box",
        "fake:1",
        3,
        9,
        True,
    )
    assert (cpu.role, cpu.host) == ("cpu", "other")
    heartbeats.hear(heartbeat(hostname="cpu-1@other", type="worker-offline"))
    now[0] = 5.0
    assert [worker.alive for worker in heartbeats.workers()] == [False, True]
    now[0] = 11.0
    assert [worker.alive for worker in heartbeats.workers()] == [False, False]
    now[0] = 700.0
    assert heartbeats.workers() == []


def test_what_is_no_heartbeat_harms_nothing_and_names_are_bounded() -> None:
    heartbeats = Heartbeats(None)  # type: ignore[arg-type]
    for data in (b"", b"[]", b"{}", b'{"body": 7}', b'{"body": "!"}', b"\xff", b'{"body": "e30="}'):
        heartbeats.hear(data)
    for number in range(1500):
        heartbeats.hear(heartbeat(hostname=f"gpu-{number}@" + "x" * 1000))
    assert len(heartbeats.workers()) == 1000
    assert max(len(worker.name) for worker in heartbeats.workers()) == 200


@pytest.mark.parametrize("language", ["en", "zh"])
def test_hostile_names_are_shown_and_not_obeyed(language: str) -> None:
    heartbeats = Heartbeats(None)  # type: ignore[arg-type]
    heartbeats.hear(heartbeat(hostname=HOSTILE, engine=HOSTILE))
    line = RunLine(SPEC, replace(COUNTS, error=HOSTILE), "incomplete", 1.0, None, 90.0)
    row: dict[str, object] = {
        "key": HOSTILE, "outcome": "done", "output": "x", "width": 10, "height": 20, "output_bytes": 1,
        "suspects": [HOSTILE], "engine": HOSTILE, "ms": {"fetch": 1.0},
    }  # fmt: skip
    failure: dict[str, object] = {"key": HOSTILE, "code": HOSTILE, "reason": HOSTILE}
    results = Results(((ItemId("0123456789ab"), row),), (failure,), HOSTILE)
    pages = [
        Renderer().overview(language, Overview((line,), (), 1, True, True, tuple(heartbeats.workers()), 0, 0, 0.0)),
        Renderer().run(language, RunPage(line, {f"waiting:{HOSTILE}": 3}, results)),
    ]
    for page in pages:
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "\u202e" not in page
        assert "产品.jpg" in page
        assert "style=" not in page  # the policy forbids it
        assert handlers(page) == []
