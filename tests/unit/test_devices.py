"""Choosing devices and engines: what is asked for, or a sentence; what is asked for and nothing else."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from model.engines.cuda.gpus import Gpu, GpuLoad, Inventory, gpu_loads, list_gpus, usable_gpu
from model.engines.fake import FakeEngine
from model.engines.libraries import Library, Runtime
from model.engines.opener import check_driver
from pipeline.errors import SetupError
from pipeline.settings import load_settings
from workers.devices import Assignment, choose_devices, hold, open_engine, pin
from workers.plans import options_for

L4 = Gpu(0, "GPU-aaaa1111", "NVIDIA L4", 24 << 30, "8.9")
A10 = Gpu(1, "GPU-aabb2222", "NVIDIA A10", 24 << 30, "8.6")
SLICE = Gpu(2, "MIG-cccc3333", "NVIDIA A100 MIG 1g.5gb", 5 << 30, "8.0")
A100 = Gpu(2, "GPU-dddd4444", "NVIDIA A100", 40 << 30, "8.0", (SLICE,), mig=True)
EMPTY = Gpu(3, "GPU-eeee5555", "NVIDIA A100", 40 << 30, "8.0", (), mig=True)


def machine(*gpus: Gpu) -> Callable[[], Inventory]:
    return lambda: Inventory("580.65.06", "13.0", gpus)


def everything(_: Runtime) -> bool:
    return True


def choose(devices: str, *gpus: Gpu, engine: str | None = None, share: bool = False) -> list[str]:
    return choose_devices(devices, engine, share, machine(*gpus), everything)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("all", ["GPU-aaaa1111", "GPU-aabb2222"]),
        ("1,0", ["GPU-aabb2222", "GPU-aaaa1111"]),
        ("GPU-aabb2222", ["GPU-aabb2222"]),
        ("GPU-aab", ["GPU-aabb2222"]),
        ("0, GPU-aabb2222", ["GPU-aaaa1111", "GPU-aabb2222"]),
    ],
)
def test_gpus_are_named_by_index_uuid_or_all(devices: str, expected: list[str]) -> None:
    assert choose(devices, L4, A10) == [f"tensorrt@{uuid}" for uuid in expected]


def test_all_takes_the_instances_of_a_gpu_in_mig_mode() -> None:
    assert choose("all", L4, A10, A100) == [f"tensorrt@{one.uuid}" for one in (L4, A10, SLICE)]
    assert choose("MIG-cccc3333", A100) == ["tensorrt@MIG-cccc3333"]


@pytest.mark.parametrize(
    ("devices", "gpus", "says"),
    [
        ("2", (L4, A10), r"There is no GPU '2'.*0: GPU-aaaa1111 NVIDIA L4, 1: GPU-aabb2222"),
        ("GPU-aa", (L4, A10), "There is no GPU 'GPU-aa'"),
        ("", (L4,), "There is no GPU ''"),
        ("banana", (L4,), "There is no GPU 'banana'"),
        ("all", (), "lists no GPU.*--devices cpu"),
        ("0,0", (L4,), "GPU-aaaa1111 is named twice.*--share"),
        ("0", (A100,), "GPU 0 is in MIG mode.*MIG-cccc3333"),
        ("all", (EMPTY,), "is in MIG mode.*it has none"),
    ],
    ids=["index", "two fit", "empty", "no name", "none", "twice", "mig", "mig without instances"],
)
def test_what_is_not_there_is_refused(devices: str, gpus: tuple[Gpu, ...], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        choose(devices, *gpus)


def test_a_shared_gpu_may_be_named_twice() -> None:
    assert choose("0,0", L4, share=True) == ["tensorrt@GPU-aaaa1111+share"] * 2


@pytest.mark.parametrize(
    ("there", "expected"),
    [({Runtime.TENSORRT, Runtime.TENSORRT_RTX}, "tensorrt"), ({Runtime.TENSORRT_RTX}, "tensorrt-rtx")],
)
def test_the_usual_engine_is_the_tensorrt_that_is_installed(there: set[Runtime], expected: str) -> None:
    assert choose_devices("0", None, False, machine(L4), lambda one: one in there) == [f"{expected}@GPU-aaaa1111"]


def test_without_any_tensorrt_the_user_has_to_choose() -> None:
    with pytest.raises(SetupError, match=r"Neither TensorRT.*pip install.*--engine torch"):
        choose_devices("0", None, False, machine(L4), lambda _: False)
    assert choose_devices("0", "torch", False, machine(L4), lambda _: False) == ["torch@GPU-aaaa1111"]


def test_the_processor_and_the_fake_need_no_driver() -> None:
    def no_driver() -> Inventory:
        raise AssertionError

    assert choose_devices("cpu", inventory=no_driver) == ["onnx@cpu"]
    assert choose_devices("cpu", "torch", inventory=no_driver) == ["torch@cpu"]
    assert choose_devices("fake:2.5", inventory=no_driver) == ["fake:2.5"]
    with pytest.raises(SetupError, match=r"fake:2.5 is an engine of its own.*leave out --engine onnx"):
        choose_devices("fake:2.5", "onnx", inventory=no_driver)
    with pytest.raises(SetupError, match="tensorrt does not run on the processor"):
        choose_devices("cpu", "tensorrt", inventory=no_driver)


@pytest.mark.parametrize(
    "assignment",
    [
        Assignment("tensorrt", "GPU-1"),
        Assignment("onnx", "MIG-1", share=True),
        Assignment("fake:20", "cpu"),
        Assignment("onnx", "cpu"),
    ],
)
def test_an_assignment_is_the_same_as_text(assignment: Assignment) -> None:
    assert Assignment.parse(str(assignment)) == assignment


@pytest.mark.parametrize("text", ["", "gpu", "fake:", "fake:-1", "fake:x", "banana@GPU-1", "onnx@", "@cpu"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match="is no device"):
        Assignment.parse(text)


def test_a_fake_engine_opens(tmp_path: Path) -> None:
    with open_engine("fake:0", load_settings(home=tmp_path, model="u2netp")) as engine:
        assert isinstance(engine, FakeEngine)


def test_a_pinned_process_sees_one_device() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "0,1"}
    pin(A10, environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": "GPU-aabb2222", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_two_workers_on_one_gpu_are_refused_unless_both_share(tmp_path: Path) -> None:
    first = hold(tmp_path, L4, share=False)
    for share in (False, True):
        with pytest.raises(SetupError, match=r"Another worker runs on GPU 0 \(GPU-aaaa1111\).*--share"):
            hold(tmp_path, L4, share)
    other = hold(tmp_path, A10, share=False)
    os.close(first)
    sharing = [hold(tmp_path, L4, share=True) for _ in range(2)]
    with pytest.raises(SetupError, match="Another worker"):
        hold(tmp_path, L4, share=False)
    for descriptor in (other, *sharing):
        os.close(descriptor)


def test_a_killed_worker_holds_no_gpu(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.unit.test_devices import L4; "
        "from workers.devices import hold; hold(Path(sys.argv[1]), L4, False); "
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(SetupError):
            hold(tmp_path, L4, share=False)
        child.kill()
        child.wait()
    os.close(hold(tmp_path, L4, share=False))


def test_a_library_newer_than_the_driver_is_refused() -> None:
    library = Library(Runtime.TENSORRT, ModuleType("tensorrt"), "11.4.0", cuda=13)
    with pytest.raises(SetupError, match=r"made for CUDA 13, the driver 550.1 has CUDA 12.4") as caught:
        check_driver(library, Inventory("550.1", "12.4", ()))
    assert caught.value.hint.endswith(
        "pip uninstall tensorrt-cu13 tensorrt-cu13-bindings tensorrt-cu13-libs, then pip install tensorrt-cu12"
    )
    check_driver(library, Inventory("580.1", "13.0", ()))
    rtx = Library(Runtime.TENSORRT_RTX, ModuleType("tensorrt_rtx"), "1.7.1", cuda=12)
    with pytest.raises(SetupError) as caught:  # there is no tensorrt-rtx-cu11
        check_driver(rtx, Inventory("520.1", "11.8", ()))
    assert caught.value.hint == "install a newer driver"


def test_a_gpu_in_mig_mode_stands_for_its_first_instance() -> None:
    assert usable_gpu((L4, A100), "1") == SLICE
    assert usable_gpu((L4, A100), "0") == L4
    for gpus, wanted in (((EMPTY,), "0"), ((L4,), "1")):
        with pytest.raises(SetupError, match=f"There is no GPU '{wanted}' here"):
            usable_gpu(gpus, wanted)


def test_a_worker_builds_for_its_own_batch_and_gpu() -> None:
    settings = load_settings(max_batch=12)
    rtx = Library(Runtime.TENSORRT_RTX, ModuleType("tensorrt_rtx"), "1.7.1")
    assert options_for(settings, L4, rtx).batches == (1, 6, 12)
    assert "7.5" in options_for(settings, Gpu(0, "GPU-1", "T4", 1, "7.5"), rtx).compute_capabilities
    with pytest.raises(
        SetupError, match=r"does not run on NVIDIA H100 \(compute capability 9.0\).*tensorrt-cu12.*--engine tensorrt"
    ):
        options_for(settings, Gpu(0, "GPU-1", "NVIDIA H100", 1, "9.0"), rtx)


class Nvml(ModuleType):
    """pynvml as far as it is used: one plain GPU, one in MIG mode with a hole among its instances."""

    NVML_DEVICE_MIG_ENABLE = 1
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_OPERATING_SYSTEM = 17

    class NVMLError(Exception):
        def __init__(self, said: str, value: int = 999) -> None:
            super().__init__(said)
            self.value = value

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802 - NVIDIA's name
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802 - NVIDIA's name
        self.open -= 1

    def __getattr__(self, name: str) -> object:
        answers: dict[str, Callable[..., object]] = {
            "nvmlSystemGetDriverVersion": lambda: "580.65.06",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 13010,
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: (L4, A100)[index],
            "nvmlDeviceGetCudaComputeCapability": lambda gpu: tuple(map(int, gpu.compute_capability.split("."))),
            "nvmlDeviceGetMigMode": self._mig_mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda gpu: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": self._instance,
            "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(total=gpu.memory, used=gpu.memory // 4),
            "nvmlDeviceGetHandleByUUID": {L4.uuid: L4, SLICE.uuid: SLICE}.__getitem__,
            "nvmlDeviceGetUtilizationRates": self._rates,
        }
        if name not in answers:
            raise AttributeError(name)
        return answers[name]

    def _mig_mode(self, gpu: Gpu) -> list[int]:
        if gpu is L4:
            raise self.NVMLError("Not Supported")
        return [1, 1]

    def _rates(self, gpu: Gpu) -> SimpleNamespace:
        if gpu is SLICE:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(gpu=40)

    def _instance(self, gpu: Gpu, place: int) -> Gpu:
        if place != 3:
            raise self.NVMLError("Not Found")
        return SLICE


def test_gpus_and_mig_instances_are_read_from_nvml() -> None:
    nvml = Nvml()
    expected = Gpu(1, A100.uuid, A100.name, A100.memory, "8.0", (Gpu(1, SLICE.uuid, SLICE.name, 5 << 30, "8.0"),), True)
    assert list_gpus({}, nvml) == Inventory("580.65.06", "13.1", (L4, expected))
    assert nvml.open == 0
    assert L4.model == "sm89-nvidia-l4"
    assert SLICE.model == "sm80-nvidia-a100-mig-1g-5gb"


@pytest.mark.parametrize(
    ("said", "seen"),
    [("1,0", [A100.uuid, L4.uuid]), ("GPU-aaaa1111", [L4.uuid]), ("", []), ("0,9,1", [L4.uuid]), ("-1", [])],
)
def test_only_what_cuda_would_see_is_listed(said: str, seen: list[str]) -> None:
    assert [gpu.uuid for gpu in list_gpus({"CUDA_VISIBLE_DEVICES": said}, Nvml()).gpus] == seen


@pytest.mark.parametrize("status", [Nvml.NVML_ERROR_NO_PERMISSION, Nvml.NVML_ERROR_OPERATING_SYSTEM])
def test_a_gpu_that_a_scheduler_forbids_is_left_out(status: int) -> None:
    """NVML counts it, and gives no handle: https://docs.nvidia.com/deploy/nvml-api/ (nvmlDeviceGetCount_v2)."""
    nvml = Nvml()

    def handle(index: int) -> Gpu:
        if index == 0:
            raise nvml.NVMLError("Insufficient Permissions", status)
        return A10

    nvml.nvmlDeviceGetHandleByIndex = handle  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetMigMode = lambda _: [0, 0]  # type: ignore[attr-defined]
    assert list_gpus({}, nvml).gpus == (A10,)


def test_a_gpu_without_memory_of_its_own_is_listed_all_the_same() -> None:
    nvml = Nvml()

    def memory(_: object) -> object:
        raise nvml.NVMLError("Not Supported", nvml.NVML_ERROR_NOT_SUPPORTED)

    nvml.nvmlDeviceGetMemoryInfo = memory  # type: ignore[attr-defined]
    assert [(gpu.uuid, gpu.memory) for gpu in list_gpus({}, nvml).gpus] == [(L4.uuid, 0), (A100.uuid, 0)]
    assert gpu_loads([L4.uuid], nvml) == {L4.uuid: GpuLoad(0, 0, 0.4)}


def test_the_load_of_gpus_and_instances_is_read_by_uuid() -> None:
    nvml = Nvml()
    assert gpu_loads([L4.uuid, SLICE.uuid], nvml) == {
        L4.uuid: GpuLoad(L4.memory // 4, L4.memory, 0.4),
        SLICE.uuid: GpuLoad(SLICE.memory // 4, SLICE.memory, None),
    }
    assert nvml.open == 0


def test_a_machine_without_a_driver_is_told_what_to_do() -> None:
    nvml = Nvml()

    def missing() -> object:
        raise nvml.NVMLError("NVML Shared Library Not Found")

    nvml.nvmlInit = missing  # type: ignore[method-assign]
    with pytest.raises(SetupError, match=r"no working NVIDIA driver here: NVML Shared.*--devices cpu"):
        list_gpus({}, nvml)


def test_a_driver_that_does_not_answer_is_a_sentence() -> None:
    nvml = Nvml()

    def broken(_: object) -> object:
        raise nvml.NVMLError("GPU is lost")

    nvml.nvmlDeviceGetUUID = broken  # type: ignore[attr-defined]
    with pytest.raises(SetupError, match="does not answer: GPU is lost"):
        list_gpus({}, nvml)
    assert nvml.open == 0


def test_the_real_nvml_has_every_name_that_is_asked_for() -> None:
    import pynvml

    names = """
        nvmlInit nvmlShutdown nvmlSystemGetDriverVersion nvmlSystemGetCudaDriverVersion_v2 nvmlDeviceGetCount
        nvmlDeviceGetHandleByIndex nvmlDeviceGetCudaComputeCapability nvmlDeviceGetMigMode nvmlDeviceGetUUID
        nvmlDeviceGetMaxMigDeviceCount nvmlDeviceGetMigDeviceHandleByIndex nvmlDeviceGetName nvmlDeviceGetMemoryInfo
        nvmlDeviceGetHandleByUUID nvmlDeviceGetUtilizationRates NVML_DEVICE_MIG_ENABLE NVMLError
        NVML_ERROR_NOT_SUPPORTED NVML_ERROR_NO_PERMISSION NVML_ERROR_OPERATING_SYSTEM
    """
    assert [name for name in names.split() if not hasattr(pynvml, name)] == []
    assert pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION).value == pynvml.NVML_ERROR_NO_PERMISSION


@pytest.mark.parametrize(
    "options", [["--devices", "77"], ["--devices", "cpu", "--engine", "tensorrt"], ["--devices", "x"]]
)
def test_the_command_refuses_with_one_sentence(options: list[str]) -> None:
    line = [sys.executable, "-m", "producer.commands", "worker", "gpu", *options]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 2
    assert done.stderr.startswith("mattemill: ")
    assert " Hint: " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
