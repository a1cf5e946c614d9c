"""What `mattemill doctor` says where there is a GPU: before the first worker starts, whether it can run there."""

from types import ModuleType

import pytest

from model.engines.cuda.gpus import Gpu, Inventory
from model.engines.libraries import Library, Runtime
from producer.finding import Finding
from producer.gpu_checkup import gpus

L4 = Gpu(0, "GPU-aaaa1111", "NVIDIA L4", 24 << 30, "8.9")
H100 = Gpu(1, "GPU-bbbb2222", "NVIDIA H100", 80 << 30, "9.0")


def look(monkeypatch: pytest.MonkeyPatch, there: Library | None, *cards: Gpu, cuda: str = "13.0") -> list[Finding]:
    monkeypatch.setattr("producer.gpu_checkup.installed", lambda one: there is not None and one is there.runtime)
    monkeypatch.setattr("producer.gpu_checkup.load_library", lambda _: there)
    return gpus(lambda: Inventory("580.65.06", cuda, cards))


def library(runtime: Runtime, cuda: int = 12) -> Library:
    return Library(runtime, ModuleType(runtime), "11.4.0.106", cuda)


def test_every_gpu_and_the_engine_of_its_worker_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    *cards, engine = look(monkeypatch, library(Runtime.TENSORRT), L4, H100)
    assert [card.told[:12] for card in cards] == ["0: NVIDIA L4", "1: NVIDIA H1"]
    assert engine.state == "ok"
    assert engine.told.startswith("worker gpu runs tensorrt 11.4.0.106, with cuda-bindings ")


def test_a_gpu_without_tensorrt_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = look(monkeypatch, None, L4)[-1]
    assert (engine.state, engine.told) == ("note", "No TensorRT is installed.")
    assert "pip install tensorrt-cu12" in engine.hint


def test_a_library_that_cannot_run_on_the_gpu_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    no_card = look(monkeypatch, library(Runtime.TENSORRT_RTX), L4, H100)[-1]
    assert no_card.state == "bad"
    assert "does not run on NVIDIA H100" in no_card.told
    assert "pip install tensorrt-cu12" in no_card.hint
    old_driver = look(monkeypatch, library(Runtime.TENSORRT, cuda=13), L4, cuda="12.4")
    assert [one.state for one in old_driver] == ["ok", "bad"]
    assert "is made for CUDA 13, the driver 580.65.06 has CUDA 12.4" in old_driver[-1].told
