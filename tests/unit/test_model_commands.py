"""`mattemill model ...`: what a user types, and what becomes of it."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from producer.commands.models import model
from tests.tiny_network import tiny_network

SIZE = SizeBucket(24, 40)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATTEMILL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_network(SIZE))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(model, [str(argument) for argument in arguments])


def options_of(home: Path, name: str) -> dict[str, object]:
    return dict(ModelStore(home).card(name).made)


def test_import_with_options(home: Path, file: Path) -> None:
    told = run(
        *("import", file, "--name", "mine", "--size", "24x40", "--mean", "0.5", "--std", "0.1,0.2,0.3"),
        *("--output", "side", "--licence", "MIT", "--origin", "a friend"),
    )
    assert told.exit_code == 0, told.output
    spec = ModelStore(home).spec("mine")
    assert (spec.licence, spec.origin, spec.size_buckets) == ("MIT", "a friend", (SIZE,))
    made = options_of(home, "mine")
    assert made["mean"] == [0.5, 0.5, 0.5]
    assert made["std"] == [0.1, 0.2, 0.3]
    assert made["output"] == "side"


def test_options_win_over_those_of_a_preset(home: Path, file: Path) -> None:
    told = run("import", file, "--name", "mine", "--preset", "rmbg-2.0", "--std", "0.5")
    assert told.exit_code == 0, told.output
    assert "no commercial use" in told.output
    assert options_of(home, "mine")["mean"] == [0.485, 0.456, 0.406]
    assert options_of(home, "mine")["std"] == [0.5, 0.5, 0.5]
    assert ModelStore(home).spec("mine").licence == "CC-BY-NC-4.0"


def test_a_sigmoid_of_a_preset_can_be_left_away(home: Path, file: Path) -> None:
    told = run("import", file, "--name", "mine", "--preset", "birefnet")
    assert isinstance(told.exception, SetupError)
    assert "--no-sigmoid" in told.exception.hint
    assert run("import", file, "--name", "mine", "--preset", "birefnet", "--no-sigmoid").exit_code == 0


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--size", "big", "write one side"),
        ("--size", "0x32", "write one side"),
        ("--mean", "1,2", "neither one number nor three"),
        ("--mean", "nan", "neither one number nor three"),
        ("--std", "0.2,0,0.2", "above 0"),
    ],
)
def test_options_that_cannot_be(option: str, value: str, says: str, home: Path, file: Path) -> None:
    told = run("import", file, "--name", "mine", option, value)
    assert told.exit_code == 2
    assert says in told.output
    assert not home.exists()


@pytest.mark.parametrize("library", ["torch", "safetensors"])
def test_export_without_pytorch_says_what_to_install(library: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library or name.startswith("engine_build")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # what is not installed
    told = run("export", "cvunet-lite-s", "--checkpoint", "x.pth")
    assert isinstance(told.exception, SetupError)
    assert f"needs {library}" in str(told.exception)
    assert "mattemill[train]" in told.exception.hint


def test_a_damaged_model_does_not_hide_the_others(home: Path, file: Path) -> None:
    for name in ("first", "second"):
        assert run("import", file, "--name", name).exit_code == 0
    (home / "models/first/model.json").write_text("{")
    told = run("list")
    assert told.exit_code == 0
    assert "second" in told.stdout
    assert "first cannot be used" in told.stderr
