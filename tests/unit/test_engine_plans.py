"""Engine files and their sidecars: whatever does not fit is refused with what was expected and what came."""

import hashlib
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from model.catalogue import ModelSpec
from model.engines.cuda.gpus import Gpu
from model.engines.libraries import Library, Runtime, load_library
from model.engines.opener import OutdatedPlanError, check_plan, find_plan, open_backend, open_tensorrt
from model.engines.plans import ANY_GPU, PlanKey, PlanStore, read_plan
from model.engines.sidecar import read_sidecar, write_sidecar
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from tests.plans import DATA, SIDECAR, plan

L4 = Gpu(0, "GPU-aaaa1111", "NVIDIA L4", 24 << 30, "8.9")
TENSORRT = Library(Runtime.TENSORRT, ModuleType("tensorrt"), "11.4.0.106")
SPEC = ModelSpec("tiny", "00" * 32, (SizeBucket(32, 48),), "CC0-1.0", "made for this test")
KEY = PlanKey("tiny", Runtime.TENSORRT, "11.4.0.106", "sm89-nvidia-l4", "fp16")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return PlanStore(tmp_path).install(KEY, DATA, b"network", SIDECAR)


def test_a_sidecar_is_the_same_after_writing_and_reading() -> None:
    assert read_sidecar(write_sidecar(SIDECAR)) == SIDECAR


def test_an_installed_engine_is_read_back(path: Path) -> None:
    assert path.name == "tensorrt-11.4.0.106-sm89-nvidia-l4-fp16.engine"
    assert read_plan(path).data == DATA
    assert read_plan(path).sidecar == SIDECAR
    assert path.with_suffix(".onnx").read_bytes() == b"network"
    assert [one.name for one in path.parent.iterdir() if one.name.endswith(".part")] == []


def test_what_a_killed_process_left_is_swept_away(path: Path, tmp_path: Path) -> None:
    left = path.with_name(f".{path.stem}.0123abcd.part")
    left.write_bytes(b"half")
    PlanStore(tmp_path).install(KEY, DATA, b"network", SIDECAR)
    assert not left.exists()


@pytest.mark.parametrize(
    ("suffix", "data", "says"),
    [
        (".engine", DATA[:-1], r"is damaged or another's: 13 bytes with sha256"),
        (".engine", b"another engine", r"sidecar expects"),
        (".engine", None, r"Engine .*\.engine is missing"),
        (".json", None, r"sidecar of an engine.*\.json is missing"),
        (".json", b"{", "cannot be trusted: the sidecar cannot be read"),
        (".json", b"[]", "cannot be trusted"),
        (".json", b'{"format": 99}', "it has format 99, expected 1"),
    ],
    ids=["truncated", "foreign", "gone", "no sidecar", "half a sidecar", "no object", "another format"],
)
def test_a_damaged_engine_is_refused(path: Path, suffix: str, data: bytes | None, says: str) -> None:
    broken = path.with_suffix(suffix)
    if data is None:
        broken.unlink()
    else:
        broken.write_bytes(data)
    with pytest.raises(SetupError, match=says) as caught:
        read_plan(path, KEY.command)
    assert caught.value.hint == "mattemill engine build tiny --runtime tensorrt"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"runtime_version": "10.12.0.36"}, r"built by tensorrt 10.12.0.36; installed here is tensorrt 11.4.0.106"),
        ({"runtime": "tensorrt-rtx"}, r"built by tensorrt-rtx"),
        ({"compute_capabilities": ("9.0",)}, r"NVIDIA L4 has compute capability 8.9, it was built for 9.0"),
        ({"gpu": "NVIDIA L40S"}, r"was built on NVIDIA L40S; the GPU here is NVIDIA L4\."),
        ({"onnx_sha256": "99" * 32}, r"built from another tiny: ONNX 999999999999…, installed is 111111111111…"),
    ],
    ids=["version", "runtime", "compute capability", "gpu", "model"],
)
def test_an_engine_that_does_not_fit_here_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        check_plan(plan(**changes), TENSORRT, L4, SIDECAR.onnx_sha256, KEY.command)


def test_an_rtx_engine_for_other_gpus_names_the_command_for_all_of_them() -> None:
    rtx = Library(Runtime.TENSORRT_RTX, ModuleType("tensorrt_rtx"), "1.7.1.116")
    old = plan(runtime="tensorrt-rtx", runtime_version="1.7.1.116", compute_capabilities=("8.6", "8.9"))
    with pytest.raises(OutdatedPlanError) as caught:
        check_plan(old, rtx, replace(L4, compute_capability="7.5"), SIDECAR.onnx_sha256, "mattemill engine build tiny")
    assert caught.value.hint == (
        "mattemill engine build tiny --compute-capability 8.6 --compute-capability 8.9 --compute-capability 7.5"
    )


def test_an_engine_that_fits_is_found(tmp_path: Path) -> None:
    ModelStore(tmp_path).install(SPEC, b"the model")
    fitting = replace(SIDECAR, onnx_sha256=hashlib.sha256(b"the model").hexdigest())
    assert find_plan("tiny", tmp_path, TENSORRT, L4) is None
    PlanStore(tmp_path).install(KEY, DATA, b"network", fitting)
    found = find_plan("tiny", tmp_path, TENSORRT, L4)
    assert found is not None
    assert found.sidecar == fitting
    assert find_plan("tiny", tmp_path, TENSORRT, replace(L4, compute_capability="9.0")) is None


def test_a_missing_engine_is_named_with_the_command_that_builds_it(tmp_path: Path) -> None:
    ModelStore(tmp_path).install(SPEC, b"the model")
    rtx = Library(Runtime.TENSORRT_RTX, ModuleType("tensorrt_rtx"), "1.7.1.116")
    with pytest.raises(SetupError, match=r"no engine of tiny for tensorrt-rtx 1.7.1.116 here") as caught:
        open_tensorrt("tiny", tmp_path, rtx, L4, 8)
    assert caught.value.hint == "mattemill engine build tiny --runtime tensorrt-rtx"


def test_one_process_at_a_time_builds_an_engine(tmp_path: Path) -> None:
    store, order = PlanStore(tmp_path), []
    asked = threading.Event()

    def second() -> None:
        asked.set()
        with store.lock(KEY):
            order.append("second")

    with store.lock(KEY):
        thread = threading.Thread(target=second)
        thread.start()
        asked.wait()
        thread.join(0.2)  # it must still wait; a lock that did not hold would have let it through by now
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_rtx_has_one_file_for_all_gpus_and_another_home_cannot_be_written(tmp_path: Path) -> None:
    key = PlanKey("tiny", Runtime.TENSORRT_RTX, "1.7.1.116", ANY_GPU, "fp16")
    assert PlanStore(tmp_path).path(key).name == "tensorrt-rtx-1.7.1.116-any-fp16.engine"
    (tmp_path / "engines").write_text("a file")
    with pytest.raises(SetupError, match="cannot be written"):
        PlanStore(tmp_path).install(key, DATA, b"network", SIDECAR)


def test_without_a_cuda_package_the_extra_is_named() -> None:
    def missing() -> object:
        raise ImportError

    with pytest.raises(SetupError, match=r"Neither pycuda nor cuda-bindings.*mattemill\[gpu\]"):
        open_backend((missing, missing))  # type: ignore[arg-type]


def fake_module(version: str) -> ModuleType:
    module = ModuleType("tensorrt")
    module.__dict__["__version__"] = version
    return module


@pytest.mark.parametrize(
    ("version", "says"),
    [("8.6.1", "tensorrt 8.6.1 is too old, expected 10.12 or newer"), ("10.11.0.33", "is too old"), ("12.0", "")],
)
def test_an_old_tensorrt_is_refused(version: str, says: str) -> None:
    def load() -> Library:
        return load_library(Runtime.TENSORRT, lambda _: fake_module(version), lambda name: Path(name))

    if not says:
        assert load().version == version
        return
    with pytest.raises(SetupError, match=says) as caught:
        load()
    assert "pip install tensorrt-cu12" in caught.value.hint


def test_a_missing_or_broken_runtime_is_named_with_what_installs_it() -> None:
    with pytest.raises(SetupError, match=r"tensorrt-rtx is not installed here.*mattemill\[gpu\]"):
        load_library(Runtime.TENSORRT_RTX, locate=lambda _: None)

    def fail(_: str) -> ModuleType:
        raise OSError("libnvinfer.so.11: cannot open shared object file")

    with pytest.raises(SetupError, match="is installed but cannot be loaded: libnvinfer"):
        load_library(Runtime.TENSORRT, fail, lambda name: Path(name))


def test_the_real_rtx_loads_from_its_wheels_without_a_library_path() -> None:
    library = load_library(Runtime.TENSORRT_RTX)
    assert library.version.startswith("1.7.")
    assert library.cuda == 12
