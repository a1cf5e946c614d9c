"""`model evaluate`: the way from a folder of photos with truth to table, figures and sheet."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from engine_build.wrap import wrap
from model.card import Card, Figures, Footprint, Latency, Score
from model.catalogue import ModelSpec
from model.engines.fake import FakeEngine
from model.evaluation.dataset import find_pairs
from model.evaluation.evaluate import evaluate, machine
from model.evaluation.sheet import Shown, contact_sheet
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from producer.commands.model_list import Listed, as_entries, as_table
from producer.commands.models import model
from tests.tiny_network import tiny_network

SIZE = SizeBucket(32, 48)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Grey squares on black: to FakeEngine, which gives the luminance, an alpha of the square's brightness."""
    for split, levels in (("photo", (250, 160, 30)), ("studio", (255,))):
        folder = tmp_path / "set/validation" / split
        folder.mkdir(parents=True)
        for number, level in enumerate(levels):
            truth = np.zeros((64, 96), np.uint8)
            truth[16:48, 32:64] = 255
            cv2.imwrite(str(folder / f"{number:03d}.png"), truth)
            photo = np.where(truth[..., None] > 0, np.uint8(level), np.uint8(0)).repeat(3, axis=2)
            cv2.imwrite(str(folder / f"{number:03d}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 100])
    return tmp_path / "set"


def fake() -> FakeEngine:
    return FakeEngine(0, (SIZE,), 1)


def test_every_photo_is_measured_split_by_split(data: Path) -> None:
    pairs = find_pairs(data)
    assert [pair.name for pair in pairs] == ["studio/000", "photo/000", "photo/001", "photo/002"]
    calls: list[int] = []

    found = evaluate(fake(), "grey", pairs, lambda: calls.append(1))

    assert len(calls) == 4
    assert found.splits == ("studio", "photo")
    scores = found.scores()
    assert scores["studio"].images == 1
    assert scores["studio"].iou > 0.95
    # Of three squares the dark one is not found at all, the other two are.
    assert scores["photo"].iou == pytest.approx(2 / 3, abs=0.05)
    assert scores["photo"].iou_median > 0.85  # the square that fades at its edge
    assert [row.pair.name for row in found.worst(1)] == ["photo/002"]
    assert scores["photo"].mae == pytest.approx((5 + 95 + 225) / 3 / 255 / 6, abs=0.005)  # a sixth is square
    figures = found.figures("some set")
    assert figures.data == "some set"
    assert [latency.size for latency in figures.latencies] == [SIZE]


def test_the_sheet_shows_photos_truth_and_every_model(data: Path) -> None:
    pairs = find_pairs(data)
    engine = fake()
    one = Shown(engine, evaluate(engine, "grey", pairs, lambda: None))
    png = contact_sheet([one, one], of_each_split=2, worst=2)
    sheet = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert sheet is not None
    assert sheet.shape[1] == 4 * 246
    assert sheet.shape[0] > 5 * 160  # 1 studio, 2 photo, 2 worst
    assert (sheet == (225, 120, 225)).all(axis=2).any()  # chequers where nothing is


@pytest.mark.parametrize("damage", ["empty", "no truth", "size", "photo"])
def test_data_that_cannot_be_used(data: Path, damage: str) -> None:
    truth = data / "validation/studio/000.png"
    if damage == "empty":
        with pytest.raises(SetupError, match="no photos with their truth"):
            find_pairs(data / "validation")
        return
    if damage == "no truth":
        truth.unlink()
        assert len(find_pairs(data)) == 3
        return
    if damage == "size":
        cv2.imwrite(str(truth), np.zeros((10, 20), np.uint8))
    else:
        truth.with_suffix(".jpg").write_bytes(b"no photo")
    with pytest.raises(SetupError, match=r"000\.(png is 10x20, expected|jpg cannot be read)"):
        evaluate(fake(), "grey", find_pairs(data), lambda: None)


def test_the_machine_is_named(tmp_path: Path) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor : 0\nmodel name\t: A Processor\nmodel name\t: A Processor\n")
    assert machine(facts) == "A Processor"
    assert machine(tmp_path / "none") == ""


def test_the_command_writes_down_what_it_found(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("MATTEMILL_HOME", str(home))
    for name in ("one", "two"):
        spec = ModelSpec(name, "ab" * 32, (SIZE,), "CC0-1.0", "made for this test")
        ModelStore(home).install(spec, wrap(tiny_network(SIZE), input_size=SIZE))
    arguments = ["evaluate", "one", "--data", str(data), "--against", "two", "--out", str(tmp_path / "out")]

    told = CliRunner().invoke(model, [*arguments, "--json"], catch_exceptions=False)

    assert told.exit_code == 0
    entry = json.loads(told.stdout)
    assert [one["model"] for one in entry["models"]] == ["one", "two"]
    assert entry == json.loads((tmp_path / "out/evaluation.json").read_text())
    assert (tmp_path / "out/contact-sheet.png").stat().st_size > 1000
    card = ModelStore(home).card("one")
    assert set(card.figures.scores) == {"studio", "photo"}
    assert card.figures.data == "set, 4 photos"
    assert card.figures.latencies[0].milliseconds > 0

    shown = CliRunner().invoke(model, arguments, catch_exceptions=False)
    assert "photo" in shown.stdout
    assert "worst: " in shown.stdout
    listed = CliRunner().invoke(model, ["list"], catch_exceptions=False)
    assert any("u2netp" in line and " no " in line for line in listed.stdout.splitlines())
    assert "CC0-1.0" in listed.stdout
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(model, ["list", "--json"]).stdout)}
    assert rows["one"]["state"] == "installed"
    assert rows["one"]["scores"]["photo"]["images"] == 3
    # Installed without a count, as by an earlier version: counted when listed.
    assert rows["one"]["footprint"]["parameters"] == 28


def test_the_list_says_what_it_does_not_know() -> None:
    spec = ModelSpec("any", "ab" * 32, tuple(SizeBucket(32 * n, 32) for n in range(1, 7)), "MIT", "")
    latency = Latency(1234.5, SIZE, "tensorrt 11.4, engine of SM90", "H100")
    score = Score(3, 0.9, 0.9, 0.9, 0.1, 0.1, 1, 1, 1)
    models = [
        Listed(Card(spec, "", Footprint(2_900_000, None, SIZE, 5_000_000)), "installed"),
        Listed(Card(spec, "", None, Figures({"photo": score}, "x", (latency,))), "not installed"),
    ]
    table = as_table(models)
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert cells["GMAC"] == ["?", ""]
    assert cells["M par."] == ["2.90", ""]
    assert cells["IoU\nphoto"] == ["", "0.900"]
    assert cells["one image"] == ["", "1234 ms tensorrt 32x48"]
    assert cells["runs at"][0].endswith("+ 2 more")
    assert as_entries(models)[1]["footprint"] is None
