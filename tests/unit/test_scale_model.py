"""The night on paper, and the cost page's script."""

import json
from dataclasses import asdict

import pytest

from bench.cost import cost
from bench.scale import RESULT, STANDARD
from bench.scale_model import Costs, Night, Result, check, limits, needs, of_kind, written
from tests.conftest import ROOT

COSTS = Costs({"redis": 0.5, "housekeeping": 0.1, "producer": 0.02, "matte": 0.8, "encode parent": 1.5}, 60, 9000, 270)


def point(images: int, ms: float, per_second: float, **fields: object) -> Result:
    return {
        "machine": {"cores": 2}, "images": images, "done": images, "engine_ms": 5.0, "chunk": 16, "gpus": 1,
        "matte_only": False, "real": False, "images_per_second": per_second, "cpu_ms_per_image": {"matte": ms},
        "redis_bytes_per_item": 270.0, "redis_per_image": {}, "memory": {"matte 0": {"mb": 9.0}}, **fields,
    }  # fmt: skip


def test_a_night_needs_the_rate_times_what_an_image_costs() -> None:
    night = Night(images=36e6, hours=10, gpus=10)  # 1000 images/s
    told = needs(night, COSTS)
    assert told["images/s"] == "1,000"
    assert told["images/s of each GPU"] == "100.0"
    assert told["Redis commands/s"] == "60,000"
    assert told["Redis network, MB/s"] == "9.0"
    assert told["Redis, cores"] == "0.5"
    assert told["Redis memory with all listed at once, GB"] == "9.7"
    assert told["S3 requests/s"] == "3,001"
    assert told["matte process of each GPU, cores"] == "0.08"
    assert told["first to break"].startswith("redis, at 2,000 images/s")


def test_what_there_are_many_of_is_never_the_first_to_break() -> None:
    assert set(limits(COSTS)) == {"redis", "housekeeping", "producer"}
    assert limits(COSTS)["housekeeping"] == pytest.approx(10_000)


def test_a_cost_that_grows_with_the_run_is_told() -> None:
    points = {"a": point(1000, 4.0, 450), "b": point(10_000, 4.2, 440), "c": point(100_000, 5.0, 400)}
    lines = check({"points": points})
    assert ["NOT CONSTANT" in line for line in lines] == [False, True]
    assert "+5.0%, constant; 440 images/s, 500 with all cores busy" in lines[0]


def test_more_gpu_workers_are_held_against_one() -> None:
    one, two = point(6000, 1.0, 900, matte_only=True), point(6000, 1.1, 1500, matte_only=True, gpus=2)
    (line,) = check({"points": {"one": one, "two": two}})
    assert "1500 images/s, 2000 expected (engines 3200)" in line
    assert "+10.0% against one worker" in line


def test_the_page_gets_its_tables_and_keeps_its_text() -> None:
    page = (ROOT / "docs/scale.md").read_text()
    assert {name for name in ("points", "check", "commands", "night") if f"<!-- {name} -->\n" not in page} == set()
    loads = {"matte": {"commands": 16.0, "received": 2000.0, "sent": 300.0}}
    whole = point(10_000, 4.0, 450, redis_per_image=loads, cpu_ms_per_image=dict(COSTS.cpu_ms))
    result = {"points": {"whole": whole}, "commands": {"K 8": {"commands_per_image": {"matte": 2.84}}}}
    new = written(page, result, 270)
    assert "| whole | 450 |" in new
    assert "| K 8 | 2.84 |" in new
    assert "| images/s | 3,472 |" in new
    assert written(new, {}, 270) == written(page, {}, 270)


@pytest.mark.skipif(not RESULT.exists(), reason="bench.scale has not been run")
def test_the_page_shows_the_result() -> None:
    result = json.loads(RESULT.read_text())
    page = (ROOT / "docs/scale.md").read_text()
    assert {name for name in result.get("points", {}) if name not in page} == set()


def test_the_standard_points_have_what_the_model_wants() -> None:
    points = {one.name: {**asdict(one), "machine": {"cores": 2}} for one in STANDARD}
    assert len(points) == len(STANDARD)
    for engine_ms in (5.0, 1.0):
        assert [one["images"] for one in of_kind({"points": points}, engine_ms=engine_ms)] == [1000, 10_000, 100_000]


def test_the_price_of_images() -> None:
    found = cost(3.6, 100, encode_cpu_ms=80, core_per_hour=0.036, usable=0.8, thousand_gets=0.4, thousand_puts=5)
    assert found.gpu == pytest.approx(1e-5)
    assert found.encode == pytest.approx(1e-6)
    assert found.requests == pytest.approx(0.0008 + 0.005005)
    assert found.total == pytest.approx(found.gpu + found.encode + found.requests)
    with pytest.raises(ValueError, match="above 0"):
        cost(1, 0)
