import hashlib
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from model.card import Card, Figures, Footprint, Latency, Score, write_card, write_figures
from model.catalogue import CATALOGUE, SHIPPED, ModelSpec, find, known, shipped
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

SPEC = ModelSpec("tiny-1", "ab" * 32, (SizeBucket(32, 32), SizeBucket(32, 64)), "CC0-1.0", "made for this test")
SIZE = SPEC.size_buckets[0]
SCORE = Score(40, 0.9, 0.95, 0.92, 0.02, 0.01, 3.5, 4.5, 5.5)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder of shipped weights, with one model in it."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "own-1.onnx").write_bytes(b"own weights")
    spec = replace(SPEC, name="own-1", weights="cd" * 32)
    card = Card(spec, hashlib.sha256(b"own weights").hexdigest(), Footprint(3, 5, SIZE, 11), Figures({"photo": SCORE}))
    (folder / "own-1.json").write_bytes(write_card(card))
    return folder


@contextmanager
def disk_room(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: how a disk fills up, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_installed_is_there(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "home")
    before = store.installed()

    path = store.install(SPEC, b"weights")

    assert path == store.path("tiny-1") == tmp_path / "home/models/tiny-1/model.onnx"
    assert path.read_bytes() == b"weights"
    assert store.spec("tiny-1") == SPEC
    assert [spec for spec in store.installed() if spec not in before] == [SPEC]
    assert {file.name for file in path.parent.iterdir()} == {"model.onnx", "model.json"}


def test_installing_again_replaces(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.install(SPEC, b"old")
    assert store.install(SPEC, b"new").read_bytes() == b"new"
    assert store.path("tiny-1").read_bytes() == b"new"


def test_looking_creates_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "home")
    with pytest.raises(SetupError):
        store.path("u2netp")
    assert not (tmp_path / "home").exists()


def test_a_known_model_that_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="u2netp is not installed") as caught:
        ModelStore(tmp_path).path("u2netp")
    assert caught.value.hint == "mattemill model fetch u2netp"


@pytest.mark.parametrize("name", ["u2nettp", "", "../../etc", "/etc"])
def test_an_unknown_model_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetupError, match="no model named") as caught:
        ModelStore(tmp_path).spec(name)
    assert all(known in caught.value.hint for known in CATALOGUE)


def test_a_name_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "home")
    store.install(SPEC, b"weights")
    with pytest.raises(SetupError, match="no model named"):
        store.path("../models/tiny-1")
    with pytest.raises(SetupError, match="cannot be named"):
        store.install(ModelSpec("../up", SPEC.weights, SPEC.size_buckets, "CC0-1.0", ""), b"weights")


@pytest.mark.parametrize("damage", [b"weightz", b"weight", b""], ids=["a bit", "cut off", "empty"])
def test_a_damaged_file_is_noticed(tmp_path: Path, damage: bytes) -> None:
    store = ModelStore(tmp_path)
    store.install(SPEC, b"weights").write_bytes(damage)
    with pytest.raises(SetupError, match=r"expected 9a1290") as caught:
        store.path("tiny-1")
    assert caught.value.hint == "mattemill model import FILE --name tiny-1"


def test_a_known_model_that_is_damaged_is_fetched_again(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.install(CATALOGUE["u2netp"], b"weights").write_bytes(b"weightz")
    with pytest.raises(SetupError, match="cannot be used") as caught:
        store.path("u2netp")
    assert caught.value.hint == "mattemill model fetch u2netp"


def test_a_file_that_is_gone_is_noticed(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.install(SPEC, b"weights").unlink()
    with pytest.raises(SetupError, match=r"model\.onnx is missing"):
        store.path("tiny-1")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"contract": 1}', "\xff"], ids=["empty", "cut", "list", "null", "keys", "bytes"]
)
def test_a_damaged_sidecar_is_noticed(tmp_path: Path, text: str) -> None:
    store = ModelStore(tmp_path)
    store.install(SPEC, b"weights").with_name("model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SetupError, match=r"model\.json cannot be read"):
        store.spec("tiny-1")


def test_a_model_wrapped_for_another_contract_is_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    sidecar = store.install(SPEC, b"weights").with_name("model.json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"contract": 99}))
    with pytest.raises(SetupError, match="contract 99, expected 1"):
        store.path("tiny-1")


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    with pytest.raises(SetupError, match="cannot be written") as caught:
        ModelStore(tmp_path / "home").install(SPEC, b"weights")
    assert "MATTEMILL_HOME" in caught.value.hint


def test_a_full_disk_leaves_the_old_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.install(SPEC, b"old")
    with disk_room(4096), pytest.raises(SetupError, match="cannot be written") as caught:
        store.install(SPEC, b"x" * 100_000)
    assert "MATTEMILL_HOME" in caught.value.hint
    assert store.path("tiny-1").read_bytes() == b"old"
    assert {file.name for file in (tmp_path / "models/tiny-1").iterdir()} == {"model.onnx", "model.json"}


def test_a_shipped_model_needs_no_installation(tmp_path: Path, package: Path) -> None:
    store = ModelStore(tmp_path / "home", package)
    assert store.path("own-1") == package / "own-1.onnx"
    assert store.spec("own-1").weights == "cd" * 32
    assert [spec.name for spec in store.installed()] == ["own-1"]
    assert find("own-1", package) == store.spec("own-1")
    assert not (tmp_path / "home").exists()


def test_the_name_of_a_shipped_model_cannot_be_installed_over(tmp_path: Path, package: Path) -> None:
    store = ModelStore(tmp_path / "home", package)
    with pytest.raises(SetupError, match="comes with Mattemill"):
        store.install(replace(SPEC, name="own-1"), b"other weights")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("damage", [b"own weightz", None], ids=["a bit", "gone"])
def test_a_damaged_package_is_noticed(tmp_path: Path, package: Path, damage: bytes | None) -> None:
    (package / "own-1.onnx").unlink()
    if damage is not None:
        (package / "own-1.onnx").write_bytes(damage)
    with pytest.raises(SetupError, match="own-1 cannot be used") as caught:
        ModelStore(tmp_path / "home", package).path("own-1")
    assert caught.value.hint == "install Mattemill again"


def test_a_damaged_shipped_card_is_noticed(tmp_path: Path, package: Path) -> None:
    (package / "own-1.json").write_text("{")
    with pytest.raises(SetupError, match="cannot be read"):
        ModelStore(tmp_path / "home", package).installed()


def test_a_card_keeps_what_it_was_told(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    footprint = Footprint(1_125_485, 19_756_089_600, SIZE, 4_574_787)
    store.install(SPEC, b"weights", footprint, {"file": "tiny.onnx", "mean": [0.5]})
    card = store.card("tiny-1")
    assert (card.spec, card.footprint) == (SPEC, footprint)
    assert dict(card.made) == {"file": "tiny.onnx", "mean": [0.5]}
    assert card.model_sha256 == hashlib.sha256(b"weights").hexdigest()


def test_a_model_installed_by_an_earlier_version_can_still_be_used(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    sidecar = store.install(SPEC, b"weights").with_name("model.json")
    entry = json.loads(sidecar.read_text())
    for newer in ("footprint", "figures", "made"):
        del entry[newer]
    sidecar.write_text(json.dumps(entry))
    assert store.card("tiny-1") == Card(SPEC, entry["model_sha256"])
    assert store.path("tiny-1").read_bytes() == b"weights"


def test_figures_are_kept_and_renewed(tmp_path: Path, package: Path) -> None:
    """Of an installed model and of a shipped one, whose own figures stand until this machine has others."""
    store = ModelStore(tmp_path / "home", package)
    store.install(SPEC, b"weights")
    slow, fast = (Latency(ms, SIZE, "onnxruntime", "a processor") for ms in (20.0, 10.0))
    gpu = Latency(1.0, SIZE, "tensorrt", "a GPU")
    for name in ("tiny-1", "own-1"):
        store.record(name, Figures(latencies=(slow, gpu)))
        store.record(name, Figures({"studio": SCORE}, "some set", (fast,)))
        figures = store.card(name).figures
        assert dict(figures.scores) == {"studio": SCORE}
        assert figures.data == "some set"
        assert set(figures.latencies) == {fast, gpu}
    assert dict(shipped(package)["own-1"].figures.scores) == {"photo": SCORE}


def test_figures_that_ship_stand_until_this_machine_has_its_own(tmp_path: Path, package: Path) -> None:
    known_spec = CATALOGUE["u2netp"]
    shipped_latency, own_latency = (Latency(ms, SIZE, "onnxruntime", where) for ms, where in ((9.0, "a"), (8.0, "b")))
    figures = Figures({"photo": SCORE}, "shipped set", (shipped_latency,))
    (package / "u2netp.figures.json").write_bytes(write_figures(known_spec.weights, figures))
    assert dict(known(package)["u2netp"].figures.scores) == {"photo": SCORE}
    assert set(shipped(package)) == {"own-1"}
    store = ModelStore(tmp_path / "home", package)
    store.install(known_spec, b"weights")
    assert store.card("u2netp").figures == figures
    store.record("u2netp", Figures({"studio": SCORE}, "own set", (own_latency,)))
    assert store.card("u2netp").figures.data == "own set"
    assert set(store.card("u2netp").figures.latencies) == {shipped_latency, own_latency}


def test_figures_of_other_weights_do_not_count(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.install(SPEC, b"weights")
    store.record("tiny-1", Figures({"studio": SCORE}))
    store.install(replace(SPEC, weights="ef" * 32), b"other weights")
    assert not store.card("tiny-1").figures.scores


def test_damaged_figures_are_noticed_and_harm_no_worker(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.install(SPEC, b"weights").with_name("figures.json").write_text("[]")
    with pytest.raises(SetupError, match=r"figures\.json is damaged"):
        store.card("tiny-1")
    assert store.spec("tiny-1") == SPEC
    assert store.path("tiny-1").exists()


def test_the_catalogue_is_consistent() -> None:
    for name, spec in CATALOGUE.items():
        assert name == spec.name
        assert len(bytes.fromhex(spec.weights)) == 32
        assert spec.size_buckets
    assert set(known()) == set(CATALOGUE) | set(shipped())


def test_the_shipped_models_are_whole(tmp_path: Path) -> None:
    for name, card in shipped().items():
        assert ModelStore(tmp_path).path(name) == SHIPPED / f"{name}.onnx"
        assert card.spec.name == name
        assert card.footprint is not None
        assert card.spec.licence
