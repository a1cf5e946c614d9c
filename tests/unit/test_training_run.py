import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from safetensors.torch import save_file  # noqa: E402

from model.networks import build  # noqa: E402
from model.training import checkpoint, curves  # noqa: E402
from model.training.batches import Batches  # noqa: E402
from model.training.checkpoint import Average, averaged_weights  # noqa: E402
from model.training.compose import Composer  # noqa: E402
from model.training.config import TrainingConfig, load_config  # noqa: E402
from model.training.pack import Entry, Pack  # noqa: E402
from model.training.score import score  # noqa: E402
from model.training.trainer import Folders, Trainer  # noqa: E402
from pipeline.errors import SetupError  # noqa: E402

SMALL = """
network = "cvunet-lite-s"
minutes = 60
ranks = 1
frozen_layers = 4
validate_side = 64
[optimiser]
encoder_rate = 1e-3
decoder_rate = 1e-2
weight_decay = 0
warm_up_steps = 1
final = 0.1
clip = 3
ema = 0.5
[[phases]]
until = 1
sides = [32]
batch = 2
[composition]
kinds = { photo = 1 }
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other make a busy machine's tests ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(folder: Path, text: str = SMALL) -> TrainingConfig:
    path = folder / "run.toml"
    path.write_text(text)
    return load_config(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One cut-out, one background, one validation composite of each group."""
    folder = tmp_path / "data"
    square = np.full((40, 40, 4), (200, 10, 10, 255), np.uint8)
    blue = np.full((64, 64, 3), (0, 0, 220), np.uint8)
    folder.mkdir()
    (folder / "pack.bin").write_bytes(square.tobytes() + blue.tobytes())
    entries = [
        Entry("cutout", "photo", "train", False, 0, (40, 40, 4)),
        Entry("background", "photo", "train", False, square.size, (64, 64, 3)),
    ]
    (folder / "pack.json").write_text(json.dumps([asdict(entry) for entry in entries]))
    for group in ("studio", "photo"):
        (folder / "validation" / group).mkdir(parents=True)
        Image.fromarray(blue).save(folder / "validation" / group / "000.jpg")
        Image.new("L", (64, 64), 255).save(folder / "validation" / group / "000.png")
    return folder


class Run:
    """A trainer that is asked to stop after some steps."""

    def __init__(self, data: Path, run: Path, settings: TrainingConfig, steps: int) -> None:
        run.mkdir(exist_ok=True)
        self.lines: list[str] = []
        self._left = steps
        batches = Batches(Composer(Pack(data), "train", settings.composition.recipe()), settings, 0, None)
        self.trainer = Trainer(
            settings, Folders(data, run, None), batches, 0, self._stop, lambda line, _share: self.lines.append(line)
        )

    def _stop(self) -> bool:
        self._left -= 1
        return self._left <= 0


def test_a_run_that_is_stopped_goes_on_where_it_was(tmp_path: Path, data: Path) -> None:
    settings = config(tmp_path)
    first = Run(data, tmp_path / "run", settings, 2)
    at = first.trainer.run()

    second = Run(data, tmp_path / "run", settings, 3)
    weights = second.trainer.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.trainer.network.state_dict().items())
    after = second.trainer.run()

    assert (at.step, after.step) == (2, 5)
    assert after.images > at.images
    assert after.seconds > at.seconds > 0


def test_training_moves_the_weights_but_not_the_frozen_ones(tmp_path: Path, data: Path) -> None:
    run = Run(data, tmp_path / "run", config(tmp_path), 2)
    before = {name: value.clone() for name, value in run.trainer.network.state_dict().items()}

    run.trainer.run()

    moved = {
        name
        for name, value in run.trainer.network.state_dict().items()
        if value.is_floating_point() and not torch.equal(value, before[name])
    }
    assert "head.logits.weight" in moved
    assert "encoder.features.18.0.weight" in moved
    assert not [name for name in moved if name.startswith(tuple(f"encoder.features.{layer}." for layer in range(4)))]


def test_the_end_of_a_run_is_validated_and_drawn(tmp_path: Path, data: Path) -> None:
    run = Run(data, tmp_path / "run", config(tmp_path, SMALL.replace("minutes = 60", "minutes = 1e-6")), 99)

    run.trainer.run()

    (report,) = curves.read(tmp_path / "run" / "history.jsonl")
    assert report.studio is not None
    assert "IoU studio" in run.lines[-1]
    with Image.open(tmp_path / "run" / "curves.png") as picture:
        assert picture.size == (900, 560)


def test_the_averaged_weights_of_a_checkpoint_fit_the_network(tmp_path: Path, data: Path) -> None:
    Run(data, tmp_path / "run", config(tmp_path), 1).trainer.run()

    build("cvunet-lite-s").load_state_dict(averaged_weights(tmp_path / "run" / "checkpoint.pt", "cvunet-lite-s"))
    with pytest.raises(ValueError, match="holds cvunet-lite-s"):
        averaged_weights(tmp_path / "run" / "checkpoint.pt", "cvunet")


def test_a_run_can_start_from_another_ones_average(tmp_path: Path, data: Path) -> None:
    Run(data, tmp_path / "first", config(tmp_path), 2).trainer.run()
    path = tmp_path / "first" / "checkpoint.pt"

    second = Run(data, tmp_path / "second", config(tmp_path, f'start_from = "{path}"\n' + SMALL), 1)

    average = averaged_weights(path, "cvunet-lite-s")
    assert all(torch.equal(value, average[name]) for name, value in second.trainer.network.state_dict().items())


def test_a_run_can_start_from_weights_that_ship(tmp_path: Path, data: Path) -> None:
    shipped = build("cvunet-lite-s").state_dict()
    trained = {name: value for name, value in shipped.items() if not name.startswith("auxiliary.")}
    path = tmp_path / "own.safetensors"
    save_file({n: v.half() if v.is_floating_point() else v for n, v in trained.items()}, path)

    run = Run(data, tmp_path / "run", config(tmp_path, f'start_from = "{path}"\n' + SMALL), 1)

    state = run.trainer.network.state_dict()
    assert all(torch.allclose(state[name].float(), value.float(), atol=1e-2) for name, value in trained.items())

    save_file({"other.weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"own\.safetensors holds no weights of cvunet-lite-s"):
        Run(data, tmp_path / "other", config(tmp_path, f'start_from = "{path}"\n' + SMALL), 1)


def test_a_step_always_gets_the_same_batch_and_ranks_get_different_ones(tmp_path: Path, data: Path) -> None:
    settings = config(tmp_path)
    composer = Composer(Pack(data), "train", settings.composition.recipe())

    first, again, other = (Batches(composer, settings, rank, None).make(7, settings.phases[0]) for rank in (0, 0, 1))

    assert torch.equal(first.images, again.images)
    assert first.images.shape == other.images.shape
    assert not torch.equal(first.images, other.images)
    assert 0 <= float(first.images.min()) <= float(first.images.max()) <= 1


def test_the_average_follows_faster_at_first() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = Average(network, 0.9)
    torch.nn.init.ones_(network.weight)

    average.update(network, 1)

    assert float(average.state["weight"]) == pytest.approx(1 - 2 / 11)


def test_a_checkpoint_that_was_cut_off_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Linear(1, 1)
    optimiser = torch.optim.AdamW(network.parameters())
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, "a", network, Average(network, 0.9), optimiser, checkpoint.Progress(3, 4, 5.0))

    def fail(_state: object, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="space"):
        checkpoint.save(path, "a", network, Average(network, 0.9), optimiser, checkpoint.Progress(4, 5, 6.0))

    assert checkpoint.load(path, "a", network, Average(network, 0.9), optimiser) == checkpoint.Progress(3, 4, 5.0)


def test_scores_of_a_network_that_sees_a_subject_everywhere(data: Path) -> None:
    class Everywhere(torch.nn.Module):
        def forward(self, rgb: "torch.Tensor") -> "torch.Tensor":
            return torch.ones_like(rgb[:, :1])

    scores = score(Everywhere(), data / "validation", 64, torch.device("cpu"))

    assert (scores.studio, scores.photo) == (1, 1)


def test_the_default_configuration_is_one() -> None:
    settings = load_config(None)

    assert settings.network == "cvunet-lite-s"
    assert settings.phases[-1].until == 1


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[32]", "[40]", "multiples of 32"),
        ("until = 1", "until = 0.5", "the last at 1"),
        ('"cvunet-lite-s"', '"unet"', "network is one of"),
        ("minutes = 60", "minuets = 60", "minuets"),
        ("ranks = 1", 'ranks = 2\ndevice = "cuda"', "one rank"),
        ("[optimiser]", "[optimiser", "cannot be read"),
    ],
)
def test_an_impossible_configuration_is_refused_with_the_reason(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    with pytest.raises(SetupError, match=complaint):
        config(tmp_path, SMALL.replace(old, new))


def test_a_line_of_history_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    curves.append(path, curves.Report(1, 2, 3.0, 192, 0.5, 1e-3))
    with path.open("a") as file:
        file.write('{"step": 2, "im')

    assert curves.read(path) == [curves.Report(1, 2, 3.0, 192, 0.5, 1e-3)]
