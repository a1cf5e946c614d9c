"""One suite for every engine that runs without a GPU."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine_build.wrap import wrap
from model.catalogue import ModelSpec
from model.engines.base import Engine, EngineError, EngineLostError, check_alpha
from model.engines.fake import FakeEngine
from model.engines.onnx import OnnxEngine
from model.engines.tensorrt import TensorRTEngine
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from tests.fake_gpu import FakeDevice, FakeTensorRT
from tests.plans import plan
from tests.tiny_network import tiny_network

SIZE = SizeBucket(32, 48)
SPEC = ModelSpec("tiny", "00" * 32, (SIZE,), "CC0-1.0", "made for this test")
MAX_BATCH = 4


def onnx_engine(folder: Path, threads: int) -> Engine:
    path = folder / "model.onnx"
    path.write_bytes(wrap(tiny_network(SIZE), input_size=SIZE))
    return OnnxEngine(path, SPEC, MAX_BATCH, threads)


def fake_engine(folder: Path) -> Engine:
    return FakeEngine(0, (SIZE,), MAX_BATCH)


def tensorrt_engine(folder: Path) -> Engine:
    device = FakeDevice()
    api = FakeTensorRT(device, [(SizeBucket(8, 8), 2), (SIZE, MAX_BATCH)])
    return TensorRTEngine(plan(), api, device, (SIZE,), MAX_BATCH)


def torch_engine(folder: Path) -> Engine:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from model.engines.torch import TorchEngine

    class Tiny(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.normalise = torch.nn.Identity()
            self.conv = torch.nn.Conv2d(3, 1, 3, padding=1)

        def forward(self, rgb: object) -> object:
            return self.conv(self.normalise(rgb)) * 8

    torch.manual_seed(1)
    return TorchEngine(Tiny().eval(), (SIZE,), MAX_BATCH, cuda=False)


@pytest.fixture(params=["onnx 1", "onnx 3", "fake", "tensorrt", "torch"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    makers: dict[str, Callable[[Path], Engine]] = {
        "onnx 1": partial(onnx_engine, threads=1),
        "onnx 3": partial(onnx_engine, threads=3),
        "fake": fake_engine,
        "tensorrt": tensorrt_engine,
        "torch": torch_engine,
    }
    with makers[request.param](tmp_path) as opened:
        yield opened


def photos(count: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE.height, SIZE.width, 3), np.uint8)


def test_says_what_it_is(engine: Engine) -> None:
    assert engine.size_buckets == (SIZE,)
    assert engine.max_batch == MAX_BATCH
    assert engine.name.startswith("fake,") == isinstance(engine, FakeEngine)


@pytest.mark.parametrize("count", range(1, MAX_BATCH + 1))
def test_gives_one_alpha_for_each_image(engine: Engine, count: int) -> None:
    alpha = engine.infer(photos(count))
    assert alpha.dtype == np.uint8
    assert alpha.shape == (count, SIZE.height, SIZE.width)
    assert np.ptp(alpha) > 50


def test_an_alpha_does_not_depend_on_place_or_neighbours(engine: Engine) -> None:
    images = photos(MAX_BATCH)
    together = engine.infer(images)
    assert np.array_equal(together[::-1], engine.infer(np.ascontiguousarray(images[::-1])))
    for image, alpha in zip(images, together, strict=True):
        assert np.array_equal(engine.infer(image[None])[0], alpha)


def test_warms_up_and_then_works(engine: Engine) -> None:
    engine.warm_up()
    engine.warm_up()
    assert engine.infer(photos(2)).shape[0] == 2


def test_images_and_earlier_answers_stay_as_they_are(engine: Engine) -> None:
    images = photos(2)
    images.flags.writeable = False
    first = engine.infer(images)
    kept = first.copy()
    engine.infer(photos(2, seed=4))
    assert np.array_equal(images, photos(2))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (photos(1).astype(np.float32), r"uint8 \[N, H, W, 3\]; got float32 \[1, 32, 48, 3\]"),
        (photos(1)[0], r"got uint8 \[32, 48, 3\]"),
        (photos(1)[..., :2], r"got uint8 \[1, 32, 48, 2\]"),
        (photos(1)[:0], "1 to 4 images"),
        (photos(MAX_BATCH + 1), "1 to 4 images"),
        (np.zeros((1, 48, 32, 3), np.uint8), "images of 32x48; got uint8"),
        (photos(4)[::2], "C-contiguous"),
    ],
    ids=["dtype", "dimensions", "channels", "none", "too many", "size", "strides"],
)
def test_refuses_what_it_does_not_take(engine: Engine, images: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        engine.infer(images)


def test_is_closed_after_its_block(engine: Engine) -> None:
    with engine:
        pass
    with pytest.raises(EngineError, match="closed"):
        engine.infer(photos(1))


@pytest.mark.parametrize(
    "alpha",
    [np.zeros((1, 32, 48), np.uint8), np.zeros((2, 32, 48), np.float32), np.zeros((2, 1, 32, 48), np.uint8)],
    ids=["count", "dtype", "dimensions"],
)
def test_an_answer_that_does_not_fit_is_an_error(alpha: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"expected uint8 \[2, 32, 48\]"):
        check_alpha(alpha, photos(2))


def test_fake_takes_its_time_once_a_batch() -> None:
    waits: list[float] = []
    with FakeEngine(20, (SIZE, SizeBucket(8, 8)), MAX_BATCH, sleep=waits.append) as engine:
        engine.warm_up()
        assert waits == [0.02] * 4  # two size buckets, alone and full
        engine.infer(photos(3))
        assert waits == [0.02] * 5


def test_onnx_names_its_runtime_and_threads(tmp_path: Path) -> None:
    with onnx_engine(tmp_path, threads=2) as engine:
        assert engine.name.startswith("onnxruntime ")
        assert engine.name.endswith(" CPU, 2 threads")


def test_onnx_never_runs_on_the_processor_when_cuda_is_asked_for(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed here")
    path = tmp_path / "model.onnx"
    path.write_bytes(wrap(tiny_network(SIZE), input_size=SIZE))
    with pytest.raises(SetupError, match=r"knows no CUDA.*pip install 'onnxruntime-gpu\[cuda,cudnn\]'"):
        OnnxEngine(path, SPEC, MAX_BATCH, 1, cuda=True)


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_onnx_whose_cuda_cannot_be_loaded_says_which_wheels_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As onnxruntime-gpu behaves without cuDNN: it lists the provider, and takes the processor with a warning."""
    loaded: list[bool] = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: loaded.append(True))
    path = tmp_path / "model.onnx"
    path.write_bytes(wrap(tiny_network(SIZE), input_size=SIZE))
    with pytest.raises(SetupError, match=r"cannot use CUDA here.*CPUExecutionProvider.*\[cuda,cudnn\].*<1\.27"):
        OnnxEngine(path, SPEC, MAX_BATCH, 1, cuda=True)
    assert loaded


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered", EngineLostError),
        ("CUDA failure 2: out of memory", EngineError),
        ("the shapes do not fit", EngineError),
    ],
)
def test_onnx_tells_a_lost_context_from_other_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, kind: type[EngineError]
) -> None:
    class Failing:
        def run(self, *_: object) -> list[np.ndarray]:
            raise RuntimeError(message)

    with onnx_engine(tmp_path, threads=1) as engine:
        monkeypatch.setattr(engine, "_session", Failing())
        with pytest.raises(EngineError, match=message) as caught:
            engine.infer(photos(1))
    assert type(caught.value) is kind


def test_torch_never_runs_on_the_processor_when_cuda_is_asked_for() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from model.engines.torch import TorchEngine

    if torch.cuda.is_available():
        pytest.skip("PyTorch finds a CUDA device here")
    with pytest.raises(SetupError, match="finds no CUDA device"):
        TorchEngine(torch.nn.Identity(), (SIZE,), MAX_BATCH, cuda=True)


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"no network", "cannot load"), (tiny_network(SIZE), "does not fulfil the contract")],
    ids=["no network", "not wrapped"],
)
def test_onnx_refuses_another_file(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(SetupError, match=says) as caught:
        OnnxEngine(path, SPEC, MAX_BATCH, 1)
    assert caught.value.hint == "mattemill model fetch tiny"


@pytest.mark.parametrize(
    ("shape", "says"),
    [([1, 32 * 3, 48], "expected uint8"), ([5, 5, 5], "ONNX Runtime failed")],
    ids=["another shape", "a failing node"],
)
def test_onnx_that_goes_wrong_while_running(tmp_path: Path, shape: list[int], says: str) -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["images", "shape"], ["alpha"])],
        "wrong",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("alpha", TensorProto.UINT8, [None, None, None])],
        [numpy_helper.from_array(np.array(shape, np.int64), "shape")],
    )
    path = tmp_path / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    with OnnxEngine(path, SPEC, MAX_BATCH, 2) as engine, pytest.raises(EngineError, match=says):
        engine.infer(photos(3))


@pytest.mark.parametrize(("beside", "threads"), [(1e-6, 3), (1e9, 1)])
def test_onnx_leaves_cores_to_those_beside_it(tmp_path: Path, beside: float, threads: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(wrap(tiny_network(SIZE), input_size=SIZE))
    with OnnxEngine(path, SPEC, MAX_BATCH, 3) as alone, OnnxEngine(path, SPEC, MAX_BATCH, 3, beside=beside) as engine:
        engine.warm_up()
        engine.warm_up()  # changes nothing more
        assert engine.name.endswith(f"CPU, {threads} thread{'s' if threads > 1 else ''}")
        before = {thread.name for thread in threading.enumerate() if thread.name.startswith("onnx")}
        np.testing.assert_array_equal(engine.infer(photos(3)), alone.infer(photos(3)))
        assert len(before) <= threads
