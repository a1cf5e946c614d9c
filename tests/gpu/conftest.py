"""The GPU that these tests run on; without one they are skipped with the reason."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine_build.capabilities import check_capability
from engine_build.wrap import wrap
from model.catalogue import ModelSpec
from model.engines.cuda.gpus import Gpu, Inventory, list_gpus
from model.engines.libraries import Library, Runtime, load_library
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from tests.open_sides import open_sides
from tests.tiny_network import tiny_network

SIZES = (SizeBucket(64, 96), SizeBucket(96, 64))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is marked gpu."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def inventory() -> Inventory:
    try:
        known = list_gpus()
    except SetupError as error:
        pytest.skip(f"no GPU: {error}")
    if not known.gpus:
        pytest.skip("no GPU: the driver lists none")
    return known


@pytest.fixture(scope="session")
def gpu(inventory: Inventory) -> Gpu:
    """The first GPU, or its first MIG instance; pinned, as a worker pins it."""
    first = inventory.gpus[0]
    chosen = first.instances[0] if first.instances else first
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen.uuid
    return chosen


@pytest.fixture(scope="session", params=list(Runtime))
def library(request: pytest.FixtureRequest, gpu: Gpu) -> Library:
    """Each TensorRT that is installed."""
    try:
        loaded = load_library(request.param)
        check_capability(loaded, gpu)
    except SetupError as error:
        pytest.skip(str(error))
    return loaded


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one model, "tiny", of two size buckets."""
    data = open_sides(wrap(tiny_network(SIZES[0]), input_size=SIZES[0]))
    ModelStore(tmp_path).install(ModelSpec("tiny", "00" * 32, SIZES, "CC0-1.0", "made for this test"), data)
    return tmp_path


@pytest.fixture(scope="session")
def torch_with_cuda(gpu: Gpu) -> Callable[[], None]:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip(f"PyTorch {torch.__version__} finds no CUDA device")
    return lambda: torch.cuda.synchronize()
