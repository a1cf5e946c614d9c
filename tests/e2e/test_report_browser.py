"""The report as a person meets it: opened from disk in a real browser."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from producer.report import Card, FailureRow, ReportData, render_report
from tests.browser import BROWSER, browser, resize, until

pytestmark = BROWSER

HOSTILE_KEY = "<script>document.title='owned'</script>/\"><img src=x onerror=alert(1)>\u202e" + "long" * 200


def _preview(mode: str, file_format: str, width: int, height: int) -> bytes:
    picture = Image.new(mode, (width, height), (200, 40, 40) if mode == "RGB" else (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((width // 4, height // 4, width * 3 // 4, height * 3 // 4), fill="navy")
    buffer = io.BytesIO()
    picture.save(buffer, file_format)
    return buffer.getvalue()


def _card(key: str, width: int, height: int) -> Card:
    return Card(
        key=key,
        output=f"cutouts/{key}.png",
        width=width * 8,
        height=height * 8,
        output_bytes=123_456,
        milliseconds={"fetch": 20.0, "decode": 12.0, "wait": 30.0, "infer": 9.0, "encode": 41.0},
        before=_preview("RGB", "JPEG", width, height),
        after=_preview("RGBA", "WEBP", width, height),
        flags=("low contrast",),
    )


def _report() -> str:
    failures = [FailureRow(HOSTILE_KEY, "truncated", "The JPEG ends after 81,920 of 204,112 bytes.")]
    failures += [FailureRow(f"texts/{i}.txt", "not_an_image", "Plain text.") for i in range(19)]
    cards = [_card("a/wide.jpg", 200, 120), _card("b/tall.jpg", 90, 200), _card(HOSTILE_KEY, 160, 160)]
    return render_report(
        ReportData(
            run="run-in-a-browser",
            source="s3://photos/" + "deep/" * 60,
            target="s3://cutouts/out/",
            listed=4_000_123,
            done=4_000_000,
            skipped=103,
            failed=20,
            seconds=9000.0,
            images_per_second=444.4,
            engine="fake",
            model="u2netp",
            started=datetime(2026, 11, 24, 1, 0, tzinfo=UTC),
            finished=datetime(2026, 11, 24, 3, 30, tzinfo=UTC),
            facts={"Weights": "sha256:" + "9f" * 32},
            latencies_ms=[80.0 + i % 37 for i in range(500)] + [4000.0],
            cards=cards,
            failures=failures,
        )
    )


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(driver: webdriver.Chrome, tmp_path: Path) -> webdriver.Chrome:
    path = tmp_path / "report.html"
    path.write_text(_report(), encoding="utf-8")
    resize(driver, 1280, 900)
    driver.get_log("browser")  # reading empties it: what comes next is this page's
    driver.get_log("performance")
    driver.get(path.as_uri())
    return driver


def _style(driver: webdriver.Chrome, css: str, name: str) -> str:
    element = driver.find_element(By.CSS_SELECTOR, css)
    value = driver.execute_script("return getComputedStyle(arguments[0])[arguments[1]]", element, name)
    assert isinstance(value, str)
    return value


def _requests(driver: webdriver.Chrome) -> list[str]:
    events: list[dict[str, Any]] = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def test_the_page_breaks_no_rule_of_its_own_and_asks_for_nothing(page: webdriver.Chrome) -> None:
    def all_painted() -> object:
        return page.execute_script(
            "return [...document.images].every(  i => { i.scrollIntoView(); return i.complete && i.naturalWidth > 0; })"
        )

    until(page, all_painted)
    assert page.get_log("browser") == []
    assert [url for url in _requests(page) if not url.startswith(("file:", "data:", "chrome:"))] == []
    assert page.title == "run-in-a-browser · Mattemill report"


def test_the_policy_stops_a_script_that_is_not_ours(page: webdriver.Chrome) -> None:
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = 'document.title = \"owned\"';"
        "document.body.append(s)"
    )
    assert page.title != "owned"
    assert any("Content Security Policy" in entry["message"] for entry in page.get_log("browser"))


def test_the_slider_moves_the_cut_by_keyboard(page: webdriver.Chrome) -> None:
    slider = page.find_element(By.CSS_SELECTOR, ".slider")
    assert _style(page, ".after", "clipPath") == "inset(0px 0px 0px 50%)"
    page.execute_script("arguments[0].focus()", slider)
    slider.send_keys(Keys.ARROW_LEFT * 10)
    until(page, lambda: _style(page, ".after", "clipPath") == "inset(0px 0px 0px 40%)")
    assert "60%" in _style(page, ".before", "clipPath")
    assert slider.get_attribute("aria-valuetext") == "40% original, 60% cutout"
    slider.send_keys(Keys.END)
    until(page, lambda: _style(page, ".after", "clipPath") == "inset(0px 0px 0px 100%)")
    # Only this picture moved.
    assert _style(page, "li:nth-child(2) .after", "clipPath") == "inset(0px 0px 0px 50%)"


def test_the_slider_moves_where_it_is_dragged(page: webdriver.Chrome) -> None:
    picture = page.find_element(By.CSS_SELECTOR, ".picture")
    slider = page.find_element(By.CSS_SELECTOR, ".slider")
    quarter = -round(picture.size["width"] / 4)
    webdriver.ActionChains(page).move_to_element(slider).click_and_hold().move_by_offset(quarter, 0).release().perform()
    until(page, lambda: slider.get_attribute("value") != "50")
    assert abs(int(slider.get_attribute("value") or 0) - 25) <= 1


def test_one_slider_moves_all(page: webdriver.Chrome) -> None:
    page.find_element(By.ID, "slide-all").send_keys(Keys.HOME)
    for number in (1, 2, 3):
        until(
            page,
            lambda n=number: _style(page, f"li:nth-child({n}) .after", "clipPath") == "inset(0px 0px 0px 0%)",
        )


def test_the_background_can_be_switched(page: webdriver.Chrome) -> None:
    assert "conic-gradient" in _style(page, ".picture", "backgroundImage")
    for value, expected in (("white", "rgb(255, 255, 255)"), ("black", "rgb(0, 0, 0)")):
        page.find_element(By.CSS_SELECTOR, f"input[value={value}]").click()
        until(page, lambda e=expected: _style(page, ".picture", "backgroundColor") == e)
        assert _style(page, ".picture", "backgroundImage") == "none"
    # The picker itself is the browser's; what it sends is an input event.
    page.execute_script(
        "const c = document.getElementById('colour'); c.value = '#123456';"
        "c.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    until(page, lambda: _style(page, ".picture", "backgroundColor") == "rgb(18, 52, 86)")
    assert page.find_element(By.CSS_SELECTOR, "input[value=colour]").is_selected()


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 2560])
def test_the_page_never_scrolls_sideways(page: webdriver.Chrome, width: int) -> None:
    resize(page, width, 800)
    page.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    until(page, lambda: page.execute_script("return innerWidth") == width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_failures_can_be_read_on_a_phone(page: webdriver.Chrome) -> None:
    resize(page, 360, 800)
    rows = page.find_elements(By.CSS_SELECTOR, ".failures tbody tr")
    assert len(rows) == 20
    page.execute_script("arguments[0].scrollIntoView()", rows[0])
    for cell, expected in zip(
        rows[0].find_elements(By.CSS_SELECTOR, "td"),
        ("<script>document.title='owned'</script>/", "cut off or damaged", "The JPEG ends after 81,920"),
        strict=True,
    ):
        assert cell.is_displayed()
        assert cell.text.startswith(expected)
        assert cell.rect["x"] >= 0
        assert cell.rect["x"] + cell.rect["width"] <= 360


def test_failures_can_be_filtered(page: webdriver.Chrome) -> None:
    page.find_element(By.ID, "filter").send_keys("TRUNCATED")
    until(page, lambda: page.find_element(By.ID, "filter-count").text == "1 of 20 rows match.")
    shown = [r for r in page.find_elements(By.CSS_SELECTOR, ".failures tbody tr") if r.is_displayed()]
    assert len(shown) == 1


def test_stages_open_by_keyboard(page: webdriver.Chrome) -> None:
    summary = page.find_element(By.CSS_SELECTOR, "summary")
    summary.send_keys(Keys.ENTER)
    stages = page.find_element(By.CSS_SELECTOR, "details .stages")
    until(page, stages.is_displayed)
    assert stages.text.split("\n")[:2] == ["fetch", "20 ms"]


def test_dark_follows_the_system(page: webdriver.Chrome) -> None:
    def brightness(scheme: str) -> int:
        page.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        colour = _style(page, "body", "backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    assert brightness("light") > 600 > 150 > brightness("dark")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
