"""The live page and Flower as a person meets them: in a browser, while real workers work."""

import base64
import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
import redis
from selenium import webdriver
from selenium.webdriver.common.by import By

from pipeline.ledger import Ledger
from pipeline.settings import Settings
from tests.browser import BROWSER, browser, resize, until
from tests.conftest import WaitUntil
from tests.processes import photo, process, put_run
from workers.local.ports import free_ports, is_free

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

pytestmark = [*BROWSER, pytest.mark.timeout(300)]

PASSWORD = "sesame sesame"
HOSTILE = "in/<img src=x onerror=alert(1)>产品 01.jpg"
WORKER = ("producer.commands", "worker")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with browser(tmp_path_factory.mktemp("chromium"), "--lang=en-GB") as driver:
        yield driver


@contextmanager
def live_page(environment: dict[str, str], wait_until: WaitUntil) -> Iterator[str]:
    """Its address, with user and password, as a person may type it."""
    env = environment | {"MATTEMILL_WEB_PASSWORD": PASSWORD}
    with ExitStack() as stack:
        for _ in range(3):  # somebody else may take a port that was free
            port = free_ports(1)[0]
            web = stack.enter_context(process(env, "producer.commands", "web", "--port", str(port)))
            wait_until(lambda: web.poll() is not None or not is_free(port), 30)  # noqa: B023 - called here
            if web.poll() is None:
                break
        yield f"http://mattemill:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/"


def texts(driver: webdriver.Chrome, css: str) -> list[str]:
    return [
        str(driver.execute_script("return arguments[0].innerText", element))
        for element in driver.find_elements(By.CSS_SELECTOR, css)
    ]


def painted(driver: webdriver.Chrome) -> bool:
    return bool(
        driver.execute_script(
            "return document.images.length > 0 && [...document.images].every("
            "i => { i.scrollIntoView(); return i.complete && i.naturalWidth > 0; })"
        )
    )


def follow(driver: webdriver.Chrome, text: str) -> None:
    """Click a link; the page may scroll smoothly, where a click meets something else."""
    link = driver.find_element(By.LINK_TEXT, text)
    driver.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", link)
    link.click()


def test_a_run_is_watched_from_its_first_image_to_its_last(
    driver: webdriver.Chrome, environment: dict[str, str], ledger: Ledger, bucket: str, s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:  # fmt: skip
    bodies = {f"in/{n}.jpg": photo(n) for n in range(8)} | {HOSTILE: photo(9), "in/cut off.jpg": photo(3)[:-300]}
    spec = put_run(ledger, s3_client, bucket, bodies)
    resize(driver, 1280, 900)
    driver.get_log("browser")
    with ExitStack() as stack:
        address = stack.enter_context(live_page(environment, wait_until))
        stack.enter_context(process(environment, *WORKER, "cpu", "--concurrency", "1"))
        driver.get(address)
        until(driver, lambda: texts(driver, ".runs .progress")[0].startswith("working"))
        assert "0 of 10 · 0%" in texts(driver, ".runs .progress")[0]
        follow(driver, spec.run)
        until(driver, lambda: texts(driver, "h1") == [spec.run])
        assert texts(driver, "#gallery .empty") == ["No image is finished yet."]

        stack.enter_context(process(environment, *WORKER, "gpu", "--devices", "fake:1"))
        # Nothing is loaded again: the page that is open changes by itself.
        driver.execute_script("window.same = true")
        until(driver, lambda: texts(driver, ".state") == ["finished"], 120)
        until(driver, lambda: len(driver.find_elements(By.CSS_SELECTOR, ".card")) == 9)
        assert driver.execute_script("return window.same")
        assert [text.split()[-1] for text in texts(driver, ".sum .term")] == ["10", "9", "0", "1"]
        until(driver, lambda: painted(driver))
        assert HOSTILE in texts(driver, ".card .name")
        (failure,) = texts(driver, ".failures tbody tr")
        assert failure.startswith("in/cut off.jpg")
        assert "cut off or damaged" in failure
        slider = driver.find_element(By.CSS_SELECTOR, ".slider")
        driver.execute_script("arguments[0].focus()", slider)
        slider.send_keys(webdriver.Keys.HOME)
        clip = "return getComputedStyle(document.querySelector('.after')).clipPath"
        until(driver, lambda: driver.execute_script(clip) == "inset(0px 0px 0px 0%)")
        # The next look leaves the slider and the focus where they are.
        looks = "return performance.getEntriesByType('resource').filter(e => e.initiatorType === 'fetch').length"
        before = driver.execute_script(looks)
        until(driver, lambda: driver.execute_script(looks) > before)
        assert driver.execute_script("return document.activeElement === arguments[0]", slider)
        assert driver.execute_script(clip) == "inset(0px 0px 0px 0%)"

        follow(driver, "All runs")
        until(driver, lambda: len(texts(driver, ".workers tbody tr")) == 2)
        assert ["fake" in row for row in sorted(texts(driver, ".workers tbody tr"))] == [False, True]

        for width in (320, 390):
            resize(driver, width, 800)
            for path in ("", f"runs/{spec.run}"):
                driver.get(address + path)
                until(driver, lambda w=width: driver.execute_script("return innerWidth") == w)
                assert driver.execute_script("return document.documentElement.scrollWidth") <= width

        follow(driver, "中文")
        until(driver, lambda: driver.find_element(By.TAG_NAME, "html").get_attribute("lang") == "zh-Hans")
        assert "已完成" in texts(driver, ".progress")[0]
        assert "文件不完整" in texts(driver, ".failures tbody tr")[0]
        driver.get(address)  # the choice is kept
        assert texts(driver, "h2") == ["运行", "工作进程"]
        follow(driver, "English")
        until(driver, lambda: texts(driver, "h2") == ["Runs", "Workers"])
        assert driver.get_log("browser") == []


def test_without_the_password_nothing_is_seen(
    driver: webdriver.Chrome, environment: dict[str, str], ledger: Ledger, bucket: str, s3_client: "S3Client",
    wait_until: WaitUntil,
) -> None:  # fmt: skip
    spec = put_run(ledger, s3_client, bucket, {"in/a.jpg": photo(1)})
    with live_page(environment, wait_until) as address:
        host = address.rpartition("@")[2]
        for who in ("", "mattemill:guess@", "admin:sesame%20sesame@"):
            driver.get(f"http://{who}{host}runs/{spec.run}")
            assert spec.run not in driver.page_source


def test_redis_may_go_away_and_come_back(
    driver: webdriver.Chrome, environment: dict[str, str], settings: Settings, wait_until: WaitUntil
) -> None:
    with live_page(environment, wait_until) as address:
        driver.get(address)
        assert texts(driver, "#runs .empty")
        with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
            client.execute_command("CLIENT", "PAUSE", "20000", "ALL")
            until(driver, lambda: driver.find_element(By.ID, "lost").is_displayed(), 60)
        until(driver, lambda: not driver.find_element(By.ID, "lost").is_displayed(), 60)
        assert texts(driver, "#runs .empty")


def test_flower_shows_workers_and_tasks_behind_its_password(
    driver: webdriver.Chrome, environment: dict[str, str], settings: Settings, ledger: Ledger, bucket: str,
    s3_client: "S3Client", wait_until: WaitUntil,
) -> None:  # fmt: skip
    port = free_ports(1)[0]
    flower = environment | {"FLOWER_BASIC_AUTH": "mattemill:sesame-sesame"}
    resize(driver, 1280, 900)
    with ExitStack() as stack:
        for role in (("gpu", "--devices", "fake:1"), ("cpu", "--concurrency", "1")):
            stack.enter_context(process(environment, *WORKER, *role))
        stack.enter_context(process(flower, "producer.commands", "flower", "--port", str(port)))
        wait_until(lambda: not is_free(port), 30)
        driver.get(f"http://127.0.0.1:{port}/workers")
        assert "gpu-" not in driver.page_source
        driver.get(f"http://mattemill:guess-guess@127.0.0.1:{port}/workers")
        assert "gpu-" not in driver.page_source

        address = f"http://mattemill:sesame-sesame@127.0.0.1:{port}/"
        driver.get(f"{address}workers")
        until(driver, lambda: {"gpu", "cpu"} <= {text[:3] for text in texts(driver, "#workers-table tbody a")}, 60)
        spec = put_run(ledger, s3_client, bucket, {HOSTILE: photo(1), "in/b.jpg": photo(2)})
        wait_until(lambda: ledger.counts(spec.run).done == 2, 90)
        login = base64.b64encode(b"mattemill:sesame-sesame").decode()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        stack.callback(connection.close)

        def states() -> list[str]:
            connection.request("GET", "/api/tasks", headers={"Authorization": f"Basic {login}"})
            return [task["state"] for task in json.loads(connection.getresponse().read()).values()]

        wait_until(lambda: states() == ["SUCCESS"] * 4, 30)  # the page shows what was known when it was asked for
        driver.get(f"{address}tasks")
        until(driver, lambda: len([row for row in texts(driver, "#tasks-table tbody tr") if "SUCCESS" in row]) == 4, 30)
        shown = "\n".join(texts(driver, "#tasks-table tbody tr"))
        assert f"320x320: {HOSTILE}" in shown
        assert f"encode: {HOSTILE}" in shown
        assert f"run {spec.run}" in shown
        assert not driver.find_elements(By.CSS_SELECTOR, "#tasks-table img")  # a key is shown and not obeyed
        connection.request("POST", "/api/task/async-apply/encode", "{}", {"Authorization": f"Basic {login}"})
        assert connection.getresponse().status == 403  # it is read-only
