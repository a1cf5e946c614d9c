"""The TensorRT engine on a device that runs out of memory, loses its context, refuses and contradicts."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from model.engines.base import EngineError, EngineLostError
from model.engines.cuda.device import DeviceError
from model.engines.tensorrt import TensorRTEngine
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from tests.fake_gpu import SCRATCH_AN_IMAGE, FakeDevice, FakeTensorRT
from tests.plans import plan

SIZE, WIDE = SizeBucket(32, 48), SizeBucket(16, 64)
LARGEST = 8
AN_IMAGE = 32 * 48 * 4 + SCRATCH_AN_IMAGE


@contextmanager
def opened(device: FakeDevice, api: FakeTensorRT, sizes: tuple[SizeBucket, ...] = (SIZE,)) -> Iterator[TensorRTEngine]:
    with TensorRTEngine(plan(), api, device, sizes, LARGEST) as engine:
        yield engine


def both(**options: object) -> tuple[FakeDevice, FakeTensorRT]:
    device = FakeDevice(int(str(options.pop("capacity", 1 << 30))))
    profiles = options.pop("profiles", [(SIZE, LARGEST), (WIDE, LARGEST)])
    return device, FakeTensorRT(device, profiles, **options)  # type: ignore[arg-type]


def photos(count: int, size: SizeBucket = SIZE) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, size.height, size.width, 3), np.uint8)


def test_a_warm_engine_allocates_nothing_more() -> None:
    device, api = both()
    with opened(device, api, (SIZE, WIDE)) as engine:
        engine.warm_up()
        assert set(api.batches) == {1, LARGEST}
        warm = device.allocations
        for count in range(1, LARGEST + 1):
            engine.infer(photos(count))
            engine.infer(photos(count, WIDE))
        assert device.allocations == warm


def test_gives_everything_back_when_it_closes() -> None:
    device, api = both()
    with opened(device, api) as engine:
        engine.warm_up()
        assert device.memory
    assert not device.memory
    assert not device.pinned
    assert not device.is_open


def test_says_which_runtime_precision_and_device_it_is() -> None:
    device, api = both()
    with opened(device, api) as engine:
        assert engine.name == "tensorrt 11.4.0.106 FP16, Fake GPU"


def test_takes_no_larger_batch_than_every_profile_does() -> None:
    device, api = both(profiles=[(SIZE, 6), (WIDE, 3)])
    with opened(device, api, (SIZE, WIDE)) as engine:
        assert engine.max_batch == 3


def test_halves_the_batch_when_memory_runs_out_and_remembers_what_fits() -> None:
    device, api = both(capacity=3 * AN_IMAGE)
    with opened(device, api) as engine, opened(*both()) as roomy:
        images = photos(LARGEST)
        expected = roomy.infer(images)
        assert np.array_equal(engine.infer(images), expected)
        assert api.batches == [2, 2, 2, 2]
        assert np.array_equal(engine.infer(images), expected)
        assert api.batches == [2] * 8  # no second try of what did not fit


def test_one_image_that_does_not_fit_is_an_error_and_a_smaller_one_goes_on() -> None:
    device, api = both(capacity=AN_IMAGE - 1)
    with opened(device, api, (SIZE, WIDE)) as engine:
        with pytest.raises(EngineError, match="not enough memory for one image"):
            engine.infer(photos(1))
        assert not device.memory
        assert engine.infer(photos(1, WIDE)).shape == (1, 16, 64)


def test_a_lack_of_memory_that_tensorrt_tells_of_halves_the_batch_too() -> None:
    device, api = both()

    def execute(shape: tuple[int, ...]) -> bool:
        api.said = "Cuda Runtime (out of memory)" if shape[0] > 4 else ""
        return shape[0] <= 4

    api.faults["execute_async_v3"] = execute
    with opened(device, api) as engine:
        assert engine.infer(photos(LARGEST)).shape[0] == LARGEST
    assert api.batches == [4, 4]


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_a_call_that_answers_false_is_an_error_with_tensorrts_own_words(call: str) -> None:
    device, api = both(said="the moon is in the wrong place")
    with opened(device, api) as engine:
        api.faults[call] = False
        with pytest.raises(EngineError, match="the moon is in the wrong place"):
            engine.infer(photos(2))
        api.faults.clear()
        assert engine.infer(photos(2)).shape[0] == 2


def test_shapes_that_contradict_are_errors() -> None:
    device, api = both()
    with opened(device, api) as engine:
        api.faults["get_tensor_shape"] = (2, 1, 32, 48)
        with pytest.raises(EngineError, match=r"gives alpha of \[2, 1, 32, 48\], expected \[2, 32, 48\]"):
            engine.infer(photos(2))
        api.faults = {"infer_shapes": ["mask"]}
        with pytest.raises(EngineError, match="lacks the shapes of mask"):
            engine.infer(photos(2))


def test_a_context_that_is_gone_is_lost_for_good() -> None:
    device, api = both()
    with opened(device, api) as engine:
        engine.infer(photos(1))
        device.broken = True
        with pytest.raises(EngineLostError, match="ILLEGAL_ADDRESS"):
            engine.infer(photos(1))
        device.broken = False  # even if it answered again: what is on it cannot be trusted
        with pytest.raises(EngineLostError, match="context is gone"):
            engine.infer(photos(1))


def test_an_engine_of_a_lost_context_still_closes() -> None:
    device, api = both()
    with opened(device, api) as engine:
        device.broken = True
        with pytest.raises(EngineLostError):
            engine.infer(photos(1))
    with pytest.raises(EngineError, match="closed"):
        engine.infer(photos(1))


def test_memory_that_cannot_be_given_back_does_not_keep_the_device_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyCUDA aborts the process when the thread ends with its context still on the stack."""
    device, api = both()

    def refuse(_: int) -> None:
        raise DeviceError("CUDA's cuMemFree gave CUDA_ERROR_ILLEGAL_ADDRESS (700).")

    with opened(device, api) as engine:
        engine.warm_up()
        monkeypatch.setattr(device, "free", refuse)
    assert not device.is_open


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"loads": False, "said": "wrong version"},
            "Engine tiny.engine cannot run here: wrong version",
        ),
        ({"contexts": False, "said": "no room"}, "cannot run here: no room"),
        ({"profiles": [(WIDE, 4)]}, "has no profile for size bucket 32x48; it has 16x64"),
        ({"tensors": [("images", "float", "in"), ("alpha", "uint8", "out")]}, r"expected images \(uint8, in\)"),
        ({"tensors": [("x", "uint8", "in"), ("alpha", "uint8", "out")]}, "has the tensors x, alpha"),
        ({"faults": {"set_optimization_profile_async": False}}, "does not let its profile 0 be chosen"),
    ],
    ids=["none", "no context", "no profile", "dtype", "names", "profile"],
)
def test_refuses_a_plan_that_cannot_be_run(options: dict[str, object], says: str) -> None:
    device, api = both(**options)
    with pytest.raises(SetupError, match=says) as caught, opened(device, api):
        pass
    assert caught.value.hint == "mattemill engine build tiny --runtime tensorrt"
    assert not device.is_open


@pytest.mark.parametrize("missing", ["loads", "contexts"])
def test_a_gpu_that_is_full_needs_no_other_engine(missing: str) -> None:
    device, api = both(**{missing: False, "said": "Error Code 2: OutOfMemory (out of memory)"})
    with pytest.raises(SetupError, match="cannot run here: Error Code 2") as caught, opened(device, api):
        pass
    assert caught.value.hint == "nvidia-smi shows which processes have the GPU's memory"


def test_a_device_that_cannot_be_opened_is_a_refusal() -> None:
    device, api = both()
    device.broken = True
    with pytest.raises(SetupError, match="cannot run here: CUDA gave"), opened(device, api):
        pass
