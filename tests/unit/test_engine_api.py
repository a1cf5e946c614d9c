"""What the engine loop calls exists in the real TensorRT, is called as that wants, and is all that the fakes have."""

import inspect
import json
import subprocess
import sys
from enum import Enum
from functools import cache
from types import ModuleType

import pytest

from model.engines.api import CudaEngine, ExecutionContext, LoadedApi, RuntimeObject
from model.engines.base import EngineError
from model.engines.cuda.device import DeviceBackend
from model.engines.libraries import Library, Runtime
from tests.fake_gpu import FakeContext, FakeCudaEngine, FakeDevice, FakeRuntime

CLASSES = {"IExecutionContext": ExecutionContext, "ICudaEngine": CudaEngine, "Runtime": RuntimeObject}
FAKES = {"IExecutionContext": FakeContext, "ICudaEngine": FakeCudaEngine, "Runtime": FakeRuntime}
LOADERS = {
    "tensorrt_lean": "import tensorrt_lean_bindings as module",
    "tensorrt_rtx": (
        "from model.engines.libraries import Runtime, load_library;module = load_library(Runtime.TENSORRT_RTX).module"
    ),
}
TELL = """
import json
print(json.dumps({
    "documented": {n: {m: getattr(getattr(module, n), m).__doc__ or "" for m in dir(getattr(module, n))} for n in %r},
    "strategies": list(module.ExecutionContextAllocationStrategy.__members__),
    "types": list(module.DataType.__members__),
    "modes": list(module.TensorIOMode.__members__),
    "severities": list(module.ILogger.Severity.__members__),
}))
"""


@cache
def real(library: str) -> dict[str, dict[str, dict[str, str]]]:
    """What a real library says of itself; from a process of its own, for it can take the whole process with it."""
    code = LOADERS[library] + TELL % list(CLASSES)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer: dict[str, dict[str, dict[str, str]]] = json.loads(done.stdout)
    return answer


def called() -> list[tuple[str, str]]:
    """Every class and member that the protocols have."""
    return [(name, member) for name, cls in CLASSES.items() for member in vars(cls) if not member.startswith("_")]


@pytest.mark.parametrize("library", LOADERS)
@pytest.mark.parametrize(("name", "member"), called())
def test_exists_in_the_real_class_with_these_arguments(library: str, name: str, member: str) -> None:
    members = real(library)["documented"][name]
    assert member in members
    ours = inspect.getattr_static(CLASSES[name], member)
    if isinstance(ours, property):
        assert "(" not in members[member].split("\n")[0]  # an attribute there too
        return
    arguments = list(inspect.signature(ours).parameters)[1:]
    signatures = [line for line in members[member].splitlines() if f"{member}(self" in line]
    assert any(parameters(line)[: len(arguments)] == arguments for line in signatures), signatures


def parameters(signature: str) -> list[str]:
    """The names in `call(self: Class, name: str, shape: tuple) -> bool`, without self."""
    inside = signature.split("(", 1)[1].split(") ->")[0]
    return [part.split(":")[0].strip() for part in inside.split(", ")[1:]]


@pytest.mark.parametrize("library", LOADERS)
def test_the_names_that_are_compared_with_exist(library: str) -> None:
    told = real(library)
    assert "USER_MANAGED" in told["strategies"]
    assert "UINT8" in told["types"]
    assert "INPUT" in told["modes"]
    assert {"INTERNAL_ERROR", "ERROR"} <= set(told["severities"])


@pytest.mark.parametrize("name", CLASSES)
def test_the_fakes_have_what_the_protocols_have_and_no_more(name: str) -> None:
    assert public(FAKES[name]) == public(CLASSES[name])


def test_the_fake_device_has_all_that_the_protocol_has() -> None:
    wanted = public(DeviceBackend)
    assert {member: public(FakeDevice)[member] for member, kind in wanted.items() if kind} == {
        member: kind for member, kind in wanted.items() if kind
    }


def public(cls: type) -> dict[str, tuple[str, ...]]:
    """Members by name, each with its arguments; none for a property."""
    members = {name: inspect.getattr_static(cls, name) for name in vars(cls) if not name.startswith("_")}
    return {
        name: tuple(inspect.signature(one).parameters) if inspect.isfunction(one) else ()
        for name, one in members.items()
    }


def test_a_runtime_that_cannot_start_is_an_error_in_tensorrts_own_words() -> None:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1

    class Logger:
        pass

    Logger.Severity = Severity  # type: ignore[attr-defined]

    def runtime(logger: object) -> object:
        logger.log(Severity.ERROR, "CUDA driver version is insufficient")  # type: ignore[attr-defined]
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module = ModuleType("tensorrt")
    module.__dict__.update(ILogger=Logger, Runtime=runtime)
    api = LoadedApi(Library(Runtime.TENSORRT, module, "11.4.0.106"))
    with pytest.raises(EngineError, match="cannot start: CUDA driver version is insufficient"):
        api.runtime()
