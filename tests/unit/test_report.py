"""The report of a run: what it says, and what hostile keys cannot do to it."""

import base64
import hashlib
import io
import re
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import Code
from producer.report import Card, FailureRow, ReportData, render_report
from producer.report.chart import lay_out
from producer.report.histogram import make_histogram, nearest_rank, round_step
from producer.report.wording import duration, milliseconds, plain_key, rate, size, visible_key

_VOID = {"meta", "link", "img", "input"}
_INLINE = {"a", "b", "bdi", "span", "time"}


class Page(HTMLParser):
    """Collects elements and visible text the way a browser would read them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.raw: dict[str, str] = {"style": "", "script": ""}
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"elements left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag not in _INLINE:
            self._text.append(" ")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.raw:
            self.raw[self._open[-1]] += data
        else:
            self._text.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self._text).replace("\u00a0", " ").split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]


def _encoded(mode: str, file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (8, 6), "red").save(buffer, file_format)
    return buffer.getvalue()


JPEG = _encoded("RGB", "JPEG")
WEBP = _encoded("RGBA", "WEBP")
PNG = _encoded("RGBA", "PNG")
STAGES = {"fetch": 30.0, "decode": 20.0, "wait": 10.0, "infer": 15.0, "encode": 25.0}


def make_card(key: str = "a/cat.jpg", **changes: Any) -> Card:
    fields: dict[str, Any] = {
        "key": key,
        "output": "out/cat.png",
        "width": 1600,
        "height": 1200,
        "output_bytes": 41_234,
        "milliseconds": STAGES,
        "before": JPEG,
        "after": WEBP,
    }
    return Card(**(fields | changes))


def make_data(**changes: Any) -> ReportData:
    fields: dict[str, Any] = {
        "run": "run-7",
        "source": "s3://photos/in/",
        "target": "s3://cutouts/out/",
        "listed": 7,
        "done": 4,
        "skipped": 2,
        "failed": 1,
        "seconds": 252.4,
        "images_per_second": 12.44,
        "engine": "onnx cpu",
        "model": "u2netp",
        "started": datetime(2026, 11, 23, 23, 58, 0, tzinfo=UTC),
        "finished": datetime(2026, 11, 24, 0, 2, 12, tzinfo=UTC),
        "facts": {"Weights": "sha256:9f31", "Recipe": "RGBA PNG"},
        "latencies_ms": [100.0, 110.0, 120.0, 190.0],
        "cards": [make_card()],
        "failures": [FailureRow("b.txt", "not_an_image", "The first bytes are plain text.")],
    }
    return ReportData(**(fields | changes))


def render(**changes: Any) -> Page:
    return Page(render_report(make_data(**changes)))


# --- what it says


def test_the_sum_stands_in_the_page() -> None:
    page = render()
    assert "listed 7 = done 4 + skipped 2 + failed 1" in page.text
    assert page.all("meta", name="description")[0]["content"] == "listed 7 = done 4 + skipped 2 + failed 1"
    assert "Every listed image is accounted for; 1 failed" in page.text


def test_codes_and_flags_are_said_in_words_and_found_by_their_code() -> None:
    codes = [*Code, "code_of_another_version"]
    flags = ("empty", "full", "speckle", "cut_by_frame")
    page = render(cards=[make_card(flags=flags)], failures=[FailureRow("b.txt", code, "It is so.") for code in codes])
    assert {a["title"] for a in page.all("span", class_="code")} == set(codes)
    assert [a["title"] for a in page.all("li") if "title" in a] == list(flags)
    assert "nothing kept nothing removed specks cut by the frame" in page.text
    assert "cut off or damaged" in page.text
    assert re.findall(r"\w+_\w+", page.text) == ["code_of_another_version"] * 2


def test_a_sum_that_does_not_hold_is_said_loudly() -> None:
    page = render(listed=10)
    assert "The sum does not hold: 3 images unaccounted for." in page.text
    assert page.all("section", class_="verdict bad")
    assert "1 more ended than were listed" in render(listed=6).text


def test_the_header_names_the_facts_a_manager_asks_for() -> None:
    text = render().text
    for expected in (
        "Mattemill",
        "run-7",
        "24 November 2026 (UTC)",
        "s3://photos/in/",
        "s3://cutouts/out/",
        "images/s 12.4",
        "duration 4 min 12 s",
        "engine onnx cpu",
        "model u2netp",
    ):
        assert expected in text


def test_dates_are_utc_whatever_zone_they_come_in() -> None:
    abroad = datetime(2026, 11, 24, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    text = render(started=abroad, finished=abroad).text
    assert "23 November 2026 (UTC)" in text
    assert "Started 2026-11-23 23:30:00 UTC" in text


def test_a_card_shows_both_pictures_and_its_numbers() -> None:
    page = render()
    (before,) = page.all("img", class_="before")
    (after,) = page.all("img", class_="after")
    assert before["src"] == "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()
    assert after["src"] == "data:image/webp;base64," + base64.b64encode(WEBP).decode()
    assert (before["loading"], before["decoding"]) == ("lazy", "async")
    assert "1,600 \N{MULTIPLICATION SIGN} 1,200" in page.text
    assert "41.2 kB" in page.text
    assert "fetch 30 ms decode 20 ms wait 10 ms infer 15 ms encode 25 ms" in page.text.replace("Stages of cat.jpg", "")


def test_stages_are_stacked_in_order_and_to_scale() -> None:
    bar = re.findall(r'<rect class="(stage-\w+)" x="([\d.]+)%" width="([\d.]+)%"', render_report(make_data()))
    one_card = [(style, float(x), float(width)) for style, x, width in bar[: len(STAGES)]]
    assert one_card == [
        ("stage-0", 0.0, 30.0),
        ("stage-1", 30.0, 20.0),
        ("stage-wait", 50.0, 10.0),
        ("stage-2", 60.0, 15.0),
        ("stage-3", 75.0, 25.0),
    ]


@pytest.mark.parametrize(("cards", "expected"), [(1, "1 of 4 shown, a sample."), (4, "4 of 4 shown.")])
def test_a_gallery_says_how_much_of_the_run_it_shows(cards: int, expected: str) -> None:
    assert expected in render(cards=[make_card(f"{i}.jpg") for i in range(cards)]).text


def test_every_failure_is_listed_and_skipping_is_explained() -> None:
    rows = [FailureRow(f"k{i}.jpg", "truncated", f"Ends after {i} bytes.") for i in range(300)]
    page = render(listed=306, failed=300, failures=rows)
    for row in rows:
        assert f"{row.key} cut off or damaged {row.reason}" in page.text
    assert "cut off or damaged 300" in page.text
    assert "2 images were left alone because a cutout with the same fingerprint" in page.text
    page = render(no_images=1)
    assert "1 image was left alone because a cutout with the same fingerprint" in page.text
    assert "1 of the listed keys is no image that can be read" in page.text


def test_missing_failure_rows_are_admitted() -> None:
    assert "counts 1 failed, but 0 are listed here" in render(failures=[]).text


def test_given_facts_follow_ours_and_win_over_them() -> None:
    text = render(facts={"engine": "tensorrt 10.13", "Workers": "2 GPU"}).text
    facts = text[text.index("Facts of the run") :]
    assert "Engine tensorrt 10.13" in facts
    assert "onnx cpu" not in facts
    assert facts.index("Finished") < facts.index("Workers")


def test_an_empty_run_renders() -> None:
    page = render(
        listed=0, done=0, skipped=0, failed=0, seconds=0.0, images_per_second=0.0,
        latencies_ms=[], cards=[], failures=[], facts={},
    )  # fmt: skip
    assert "listed 0 = done 0 + skipped 0 + failed 0" in page.text
    assert "Nothing was listed" in page.text
    assert "This run made no cutout" in page.text
    assert "No image failed." in page.text
    assert not page.all("table")


def test_a_run_without_previews_is_not_called_empty() -> None:
    assert "No previews were kept of the 4 images that were finished." in render(cards=[]).text


def test_stages_that_took_no_time_divide_nothing_by_zero() -> None:
    assert "fetch 0 ms" in render(cards=[make_card(milliseconds={"fetch": 0.0})]).text
    assert "cat.jpg" in render(cards=[make_card(milliseconds={})]).text


# --- what hostile text cannot do

HOSTILE = [
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror=alert(1)>.jpg',
    "' onfocus='alert(1)' autofocus='.jpg",
    "</style></title><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}.jpg",
    "a&amp;b&lt;c.jpg",
    "trailing/",
    "k" * 1024,
]


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_text_stays_text(key: str) -> None:
    harmless = render(cards=[make_card("x/y")])
    page = render(
        run=key, source=key, target=key, engine=key, model=key, facts={"Weights": key, "Recipe": key},
        cards=[make_card(key, output=key, flags=(key,), milliseconds={key: 1.0})],
        failures=[FailureRow(key, key, key)],
    )  # fmt: skip
    assert page.text.count(" ".join(key.split())) >= 12
    assert len(page.all("script")) == 1
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in harmless.elements} | {"ul", "li"}
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert page.raw == {"style": page.raw["style"], "script": harmless.raw["script"]}


def test_direction_overrides_and_control_characters_are_made_visible() -> None:
    html = render_report(make_data(cards=[make_card("photo\u202egpj.exe")], source="s3://b/\x00\ud800\n"))
    page = Page(html)
    assert "\u202e" not in html
    assert "photoU+202Egpj.exe" in page.text
    assert "s3://b/U+0000U+D800U+000A" in page.text
    html.encode()  # a lone surrogate would make the file unwritable


def test_honest_foreign_names_stay_as_they_are() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u0645\u06cc\u200c\u062e\u0648.jpg"
    assert plain_key(family) == family
    assert str(visible_key(family)) == f'<bdi class="key" dir="ltr">{family}</bdi>'


def test_nothing_is_loaded_from_anywhere() -> None:
    page = render(source="https://evil.example/a", cards=[make_card("http://evil.example/x.jpg")])
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            value = attributes.get(name, "data:")
            assert value.startswith(("data:", "#")), f"{tag} {name}={value}"
    assert not re.search(r"url\(|@import|https?:", page.raw["style"])
    assert not re.search(r"fetch\(|import|XMLHttp|https?:", page.raw["script"])


def test_the_policy_fits_what_is_inlined_and_allows_nothing_else() -> None:
    page = render()
    (policy,) = [a["content"] for a in page.all("meta", **{"http-equiv": "Content-Security-Policy"})]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        digest = base64.b64encode(hashlib.sha256(page.raw[tag].encode()).digest()).decode()
        assert directives[name] == f"'sha256-{digest}'"
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    # A style attribute would be refused by this policy.
    assert not [a for _, a in page.elements if "style" in a]


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "size in pixels, got 0 x 1200"),
        ({"output_bytes": -1}, "output_bytes"),
        ({"milliseconds": {"fetch": float("nan")}}, "finite"),
        ({"before": b"GIF89a"}, "JPEG, PNG or WebP"),
        ({"after": b""}, "JPEG, PNG or WebP"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_card(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"done": -1}, "done must not be negative"),
        ({"finished": datetime(2026, 11, 24)}, "finished must carry a time zone"),  # noqa: DTZ001, RUF100
        ({"latencies_ms": [1.0, float("inf")]}, "latencies_ms"),
        ({"seconds": -0.1}, "seconds"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_data(**changes)


def test_extreme_shapes_and_png_previews_render() -> None:
    page = render(cards=[make_card(width=30_000, height=10, after=PNG), make_card(width=10, height=30_000)])
    assert ".ratio-3000{--ratio:3.0}" in page.raw["style"]
    assert ".ratio-333{--ratio:0.333}" in page.raw["style"]


# --- the histogram


def test_histogram_of_hand_computed_latencies() -> None:
    # 12 values from 10 to 68: the floor of 6 bins wants (68 - 10) / 6 = 9.67 each, so the step is 10.
    histogram = make_histogram([68, 10, 12, 19, 20, 21, 25, 29, 33, 35, 47, 50])
    assert histogram is not None
    assert [(b.start_ms, b.end_ms, b.count) for b in histogram.bins] == [
        (10, 20, 3), (20, 30, 4), (30, 40, 2), (40, 50, 1), (50, 60, 1), (60, 70, 1),
    ]  # fmt: skip
    assert (histogram.fastest, histogram.slowest, histogram.count) == (10, 68, 12)
    assert histogram.median == 27.0  # between 25 and 29
    assert histogram.p95 == 68  # rank ceil(0.95 * 12) = 12


def test_chart_places_bars_and_markers() -> None:
    histogram = make_histogram([68, 10, 12, 19, 20, 21, 25, 29, 33, 35, 47, 50])
    assert histogram is not None
    chart = lay_out(histogram)
    # The axis runs from 10 to 70 ms: 27 is at 17/60 of it, 68 at 58/60.
    assert chart.median_x == pytest.approx(28.333, abs=0.001)
    assert chart.p95_x == pytest.approx(96.667, abs=0.001)
    tallest = max(chart.bars, key=lambda bar: bar.height)
    assert (tallest.bin.count, tallest.y) == (4, chart.top)
    assert tallest.height == pytest.approx(4 * min(bar.height for bar in chart.bars))
    assert [tick.label for tick in chart.down] == ["0", "1", "2", "3", "4"]
    assert [(tick.label, tick.at) for tick in chart.across][:2] == [("10", 0.0), ("20", 16.667)]


def test_a_long_tail_shares_the_last_bar() -> None:
    histogram = make_histogram([*(100.0 + i % 50 for i in range(1000)), 9000.0, 60_000.0])
    assert histogram is not None
    last = histogram.bins[-1]
    assert (last.open, last.count, last.end_ms) == (True, 2, 60_000.0)
    assert histogram.bins[-2].end_ms == last.start_ms <= 160
    assert sum(b.count for b in histogram.bins) == 1002
    text = render(latencies_ms=[*(100.0 + i % 50 for i in range(1000)), 9000.0, 60_000.0]).text
    assert "gathers the 2 images beyond 150 ms, up to 60.0 s" in text


@pytest.mark.parametrize(
    "values",
    [[0.0], [0.0, 0.0], [5.0], [100.0] * 50, [0.1 * i for i in range(70)], [1e6, 2e6], [1e-4, 2e-4]],
)
def test_no_latency_is_lost_between_bins(values: list[float]) -> None:
    histogram = make_histogram(values)
    assert histogram is not None
    assert sum(b.count for b in histogram.bins) == len(values)
    for left, right in zip(histogram.bins, histogram.bins[1:], strict=False):
        assert left.end_ms == right.start_ms
    for bar in lay_out(histogram).bars:
        assert 0 <= bar.x < bar.x + bar.width <= 100
    assert "median" in render(latencies_ms=values).text


def test_percentiles_are_times_of_real_images() -> None:
    twenty = [float(i) for i in range(1, 21)]
    assert nearest_rank(twenty, 95) == 19
    assert nearest_rank(twenty, 100) == 20
    assert nearest_rank([7.0], 95) == 7
    assert make_histogram([]) is None


@pytest.mark.parametrize(("raw", "step"), [(0.15, 0.2), (1, 1), (1.01, 2), (2.1, 5), (7, 10), (600, 1000)])
def test_steps_are_round(raw: float, step: float) -> None:
    assert round_step(raw) == step


# --- words


def test_numbers_read_well() -> None:
    def plain(text: str) -> str:
        return text.replace("\u00a0", " ")

    assert [rate(v) for v in (0.0, 0.834, 12.44, 1204.3)] == ["0.00", "0.83", "12.4", "1,204"]
    assert [plain(milliseconds(v)) for v in (0.0, 0.44, 9.96, 183.4, 999.6, 1240, 75_000, 200_000)] == [
        "0 ms", "0.4 ms", "10 ms", "183 ms", "1.00 s", "1.24 s", "75.0 s", "3 min 20 s",
    ]  # fmt: skip
    assert [plain(duration(v)) for v in (8.44, 59.96, 252.4, 11_100)] == [
        "8.4 s", "1 min 0 s", "4 min 12 s", "3 h 5 min",
    ]  # fmt: skip
    assert [plain(size(v)) for v in (0, 999, 41_234, 999_600, 1_300_000, 2_500_000_000)] == [
        "0 B", "999 B", "41.2 kB", "1.00 MB", "1.30 MB", "2.50 GB",
    ]  # fmt: skip


def test_a_large_gallery_is_loaded_lazily() -> None:
    page = render(listed=503, done=500, cards=[make_card(f"{i}.jpg") for i in range(500)])
    images = page.all("img")
    assert len(images) == 1000
    assert all(image["loading"] == "lazy" and image["decoding"] == "async" for image in images)
    # One rule serves all cards of a shape.
    assert page.raw["style"].count("--ratio:") == 1
