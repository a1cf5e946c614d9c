"""The picture of where the cores' time goes leaves nothing out and counts nothing twice."""

import json
from pathlib import Path

import pytest
from PIL import Image

from bench.machine import ROOT
from bench.throughput_plot import draw, parts

ANSWER = json.loads((ROOT / "bench" / "results" / "throughput.json").read_text())


def test_the_parts_are_the_whole() -> None:
    found = parts(ANSWER)
    whole = 1000 * ANSWER["machine"]["cores"] / ANSWER["images_per_second"]
    assert sum(value for _, value, _ in found) == pytest.approx(whole)
    # What is called unavoidable is what the bench calls efficiency.
    needed = sum(ANSWER["unavoidable_cpu_ms_an_image"].values())
    assert needed / whole == pytest.approx(ANSWER["efficiency"], abs=0.001)


def test_it_can_be_drawn(tmp_path: Path) -> None:
    draw([ANSWER, ANSWER], tmp_path / "limit.webp")
    with Image.open(tmp_path / "limit.webp") as picture:
        assert picture.size[0] > 900
