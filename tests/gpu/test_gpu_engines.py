"""The engines on a real GPU, against ONNX Runtime on the processor."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine_build.build import BuildOptions, EngineBuilder
from engine_build.parity import onnx_runner
from engine_build.progress import Progress
from model.engines.base import Engine, EngineError
from model.engines.cuda.device import DeviceMemoryError
from model.engines.cuda.gpus import Gpu, Inventory, used_memory
from model.engines.libraries import Library, Runtime
from model.engines.opener import open_backend, open_tensorrt
from model.engines.tensorrt import TensorRTEngine
from model.store import ModelStore
from pipeline.ids import SizeBucket
from tests.gpu.conftest import SIZES

LARGEST = 8


@pytest.fixture
def built(home: Path, library: Library, inventory: Inventory, gpu: Gpu) -> Path:
    """A home with an engine of this runtime for this GPU."""
    builder = EngineBuilder(home, library, Inventory(inventory.driver, inventory.cuda, (gpu,)))
    capabilities = (gpu.compute_capability,)
    builder.build("tiny", BuildOptions(compute_capabilities=capabilities), Progress(lambda _, __: None))
    return home


@pytest.fixture
def engine(built: Path, library: Library, gpu: Gpu) -> Iterator[TensorRTEngine]:
    with open_tensorrt("tiny", built, library, gpu, LARGEST) as opened:
        opened.warm_up()
        yield opened


def photos(count: int, size: SizeBucket) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, size.height, size.width, 3), np.uint8)


def check_against_the_processor(engine: Engine, home: Path, bound: int) -> None:
    reference = onnx_runner(ModelStore(home).path("tiny").read_bytes())
    for size in engine.size_buckets:
        for count in range(1, engine.max_batch + 1):
            images = photos(count, size)
            gap = np.abs(reference(images).astype(int) - engine.infer(images))
            assert gap.max() <= bound, (size, count)


def test_tensorrt_gives_the_alpha_of_every_batch_and_size(engine: TensorRTEngine, built: Path) -> None:
    check_against_the_processor(engine, built, 2)


def test_an_alpha_does_not_depend_on_its_neighbours(engine: TensorRTEngine) -> None:
    images = photos(LARGEST, SIZES[0])
    together = engine.infer(images)
    for image, alpha in zip(images, together, strict=True):
        assert np.abs(engine.infer(image[None])[0].astype(int) - alpha).max() <= 1


def test_sizes_may_alternate(engine: TensorRTEngine) -> None:
    first = [engine.infer(photos(3, size)) for size in SIZES]
    again = [engine.infer(photos(3, size)) for size in SIZES]
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)


def test_engines_that_come_and_go_take_no_memory_with_them(built: Path, library: Library, gpu: Gpu) -> None:
    if "MIG" in gpu.uuid or not gpu.memory:
        pytest.skip("NVML tells the memory of whole GPUs with memory of their own reliably only")
    used = []
    for _ in range(4):
        with open_tensorrt("tiny", built, library, gpu, LARGEST) as opened:
            opened.warm_up()
        used.append(used_memory(gpu.uuid))
    assert used[-1] - used[0] < 64 << 20, used  # the first one loads what CUDA keeps


def test_a_full_gpu_harms_nothing(engine: TensorRTEngine, gpu: Gpu) -> None:
    """Whatever fits is right, what does not is an error of its images, and afterwards all fits again."""
    if not gpu.memory:
        pytest.skip("its memory is the machine's, which nobody wants full")
    images = photos(LARGEST, SIZES[0])
    expected = engine.infer(images)
    backend = open_backend()
    backend.open()
    engine._owner.submit(engine._buffers.release).result()  # type: ignore[union-attr]
    held, size = [], 1 << 30
    while size >= 1 << 20:
        try:
            held.append(backend.allocate(size))
        except DeviceMemoryError:
            size //= 2
    why = ""
    try:
        assert np.abs(engine.infer(images).astype(int) - expected).max() <= 1
    except EngineError as error:
        why = f"{type(error).__name__}: {error}"
    for address in held:
        backend.free(address)
    backend.close()
    assert not why or why.startswith("EngineError: The GPU has not enough memory for one image"), why
    engine._lanes[SIZES[0]].fits = LARGEST
    assert np.array_equal(engine.infer(images), expected)


def test_the_worker_leaves_nothing_of_a_photo_in_a_smaller_batch(engine: TensorRTEngine) -> None:
    """Buffers are shared by all sizes and batches: what a larger batch left there must not come back."""
    one = photos(1, SIZES[1])
    fresh = engine.infer(one)
    engine.infer(255 - photos(LARGEST, SIZES[0]))
    assert np.array_equal(engine.infer(one), fresh)


def test_a_worker_leaves_with_70_when_its_context_is_gone(built: Path, library: Library, gpu: Gpu) -> None:
    """The scratch and the tensors are sent to an address that is not there, which no later call survives."""
    code = """
import sys
from pathlib import Path
import numpy as np
from model.engines.base import EngineLostError
from model.engines.cuda.gpus import find_gpu, list_gpus
from model.engines.libraries import Runtime, load_library
from model.engines.opener import open_backend, open_tensorrt
home, runtime, uuid = sys.argv[1:]
gpu = find_gpu(list_gpus().gpus, uuid)
engine = open_tensorrt("tiny", Path(home), load_library(Runtime(runtime)), gpu, 8)
engine._buffers.device = lambda name, size: 4096
size = engine.size_buckets[0]
try:
    engine._backend.upload = lambda *_: None
    engine._backend.download = lambda *_: None
    engine.infer(np.zeros((1, size.height, size.width, 3), np.uint8))
except EngineLostError:
    import os
    os._exit(70)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(built), str(library.runtime), gpu.uuid],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 70, done.stderr


def test_the_commands_verify_and_bench(built: Path, library: Library) -> None:
    environment = {**os.environ, "MATTEMILL_HOME": str(built), "MATTEMILL_MODEL": "tiny"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "producer.commands", "engine", *words]
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)

    verified = run("verify", "--runtime", str(library.runtime), "--json")
    assert verified.returncode == 0, verified.stdout
    assert [check["state"] for check in json.loads(verified.stdout)] == ["ok", "ok", "ok"]
    measured = run("bench", "--seconds", "0.2", "--json")
    assert measured.returncode == 0, measured.stderr
    labels = {one["label"] for one in json.loads(measured.stdout)["engines"]}
    assert any(label.startswith("TensorRT") for label in labels)


def test_the_command_builds_again_from_its_timings(home: Path, library: Library, gpu: Gpu) -> None:
    environment = {**os.environ, "MATTEMILL_HOME": str(home), "MATTEMILL_MODEL": "tiny"}
    line = [sys.executable, "-m", "producer.commands", "engine", "build", "--runtime", str(library.runtime), "--json"]
    for _ in range(2):
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert gpu.compute_capability in told["compute_capabilities"]
    cache = home / "engines" / "timing"
    assert library.runtime is Runtime.TENSORRT_RTX or [one for one in cache.iterdir() if one.stat().st_size]


def torch_engine(cuda: bool) -> Engine:
    import torch

    from model.engines.torch import TorchEngine
    from model.networks import build

    torch.manual_seed(3)
    return TorchEngine(build("cvunet-lite-s").eval(), SIZES, LARGEST, cuda)


def test_torch_replays_graphs_that_give_what_the_processor_gives(torch_with_cuda: Callable[[], None]) -> None:
    with torch_engine(True) as engine, torch_engine(False) as reference:
        engine.warm_up()
        assert "FP16" in engine.name
        for size in SIZES:
            for count in (1, 3, LARGEST):
                images = photos(count, size)
                gap = np.abs(engine.infer(images).astype(int) - reference.infer(images))
                assert gap.max() <= 3
                assert np.array_equal(engine.infer(images), engine.infer(images))


def test_torch_out_of_memory_is_an_error_that_passes(torch_with_cuda: Callable[[], None]) -> None:
    import torch

    with torch_engine(True) as engine:
        torch.cuda.set_per_process_memory_fraction(1e-5)
        try:
            with pytest.raises(EngineError, match="not enough memory for one image"):
                engine.infer(photos(LARGEST, SIZES[0]))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert engine.infer(photos(2, SIZES[0])).shape[0] == 2


def test_onnx_runs_on_cuda_and_nowhere_else(home: Path, gpu: Gpu) -> None:
    import onnxruntime

    from model.engines.onnx import OnnxEngine

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    store = ModelStore(home)
    with OnnxEngine(store.path("tiny"), store.spec("tiny"), LARGEST, 1, cuda=True) as engine:
        engine.warm_up()
        assert "CUDA" in engine.name
        check_against_the_processor(engine, home, 1)
