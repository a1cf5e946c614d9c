import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model.catalogue import CATALOGUE, ModelSpec
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

SPEC = ModelSpec("tiny-1", "ab" * 32, (SizeBucket(32, 32), SizeBucket(32, 64)), "CC0-1.0", "made for this test")


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
    assert store.installed() == []

    path = store.install(SPEC, b"weights")

    assert path == store.path("tiny-1") == tmp_path / "home/models/tiny-1/model.onnx"
    assert path.read_bytes() == b"weights"
    assert store.spec("tiny-1") == SPEC
    assert store.installed() == [SPEC]
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
    assert caught.value.hint == "mattemill model fetch tiny-1"


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


def test_the_catalogue_is_consistent() -> None:
    for name, spec in CATALOGUE.items():
        assert name == spec.name
        assert len(bytes.fromhex(spec.weights)) == 32
        assert spec.size_buckets
