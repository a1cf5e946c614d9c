"""A headless Chromium for tests that look at a page as a person does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
WAIT_SECONDS = 20

BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM.exists() and CHROMEDRIVER.exists()),
        reason=f"needs {CHROMIUM} and {CHROMEDRIVER} (Debian: chromium, chromium-driver)",
    ),
]
"""The marks of such a test."""


@contextmanager
def browser(profile: Path, *flags: str) -> Iterator[webdriver.Chrome]:
    """A browser with a fresh profile; it must leave no process behind."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
        *flags,
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Naming the driver keeps selenium from looking for one to download.
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    family: list[psutil.Process] = []
    try:
        family = psutil.Process(driver.service.process.pid).children(recursive=True)
        yield driver
    finally:
        driver.quit()
    _, alive = psutil.wait_procs(family, timeout=WAIT_SECONDS)
    assert alive == [], "the browser left processes behind"


def resize(driver: webdriver.Chrome, width: int, height: int) -> None:
    """Give the page this many CSS pixels: a headless window has a least width; the emulated screen has none."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


def until(driver: webdriver.Chrome, condition: Callable[[], object], timeout: float = WAIT_SECONDS) -> None:
    """Wait for a condition that a page will meet."""
    WebDriverWait(driver, timeout).until(lambda _: condition())
