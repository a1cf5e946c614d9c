"""The device backends, pinning and locking on a real GPU."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from model.engines.cuda.bindings import BindingsBackend
from model.engines.cuda.device import DeviceBackend, DeviceMemoryError
from model.engines.cuda.gpus import Gpu, gpu_loads, used_memory
from model.engines.cuda.pycuda import PycudaBackend
from producer.gpu_checkup import gpus


@pytest.fixture(params=[BindingsBackend, PycudaBackend], ids=["cuda-bindings", "pycuda"])
def backend(request: pytest.FixtureRequest, gpu: Gpu) -> Iterator[DeviceBackend]:
    try:
        made: DeviceBackend = request.param.load()
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    made.open()
    yield made
    made.close()


def test_is_the_gpu_that_was_pinned(backend: DeviceBackend, gpu: Gpu) -> None:
    assert backend.device in gpu.name or gpu.name in backend.device
    assert backend.stream != 0


def test_bytes_come_back_as_they_went(backend: DeviceBackend) -> None:
    size = 3 << 20
    there, back, address = backend.allocate_host(size), backend.allocate_host(size), backend.allocate(size)
    assert address % 256 == 0
    there[:] = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    back[:] = 0
    backend.upload(address, there)
    backend.download(back, address)
    backend.synchronise()
    assert np.array_equal(there, back)
    backend.free(address)
    backend.free_host(there)
    backend.free_host(back)


def test_a_lack_of_memory_is_told_and_harms_nothing(backend: DeviceBackend, gpu: Gpu) -> None:
    with pytest.raises(DeviceMemoryError):
        backend.allocate(2 * gpu.memory or 1 << 50)
    address = backend.allocate(1 << 20)
    backend.free(address)
    backend.synchronise()


def test_a_wrong_address_is_an_error(backend: DeviceBackend, gpu: Gpu) -> None:
    """In a process of its own: where it is the GPU that notices, nothing after it would succeed."""
    code = f"""
from {type(backend).__module__} import {type(backend).__name__}
from model.engines.cuda.device import DeviceError, DeviceMemoryError
backend = {type(backend).__name__}.load()
backend.open()
memory = backend.allocate_host(256)
try:
    backend.upload(16, memory)
    backend.synchronise()
except DeviceMemoryError:
    raise
except DeviceError as error:
    print(error, flush=True)
    import os
    os._exit(70)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70, done.stderr


def test_a_backend_may_be_closed_and_opened_again_in_another_thread(backend: DeviceBackend) -> None:
    """As a worker does that builds an engine, and `verify`, which opens several: the primary context is shared."""
    backend.close()

    def use() -> bytes:
        other = type(backend).load()
        other.open()
        memory, address = other.allocate_host(64), other.allocate(64)
        memory[:] = 7
        other.upload(address, memory)
        memory[:] = 0
        other.download(memory, address)
        other.synchronise()
        got = memory.tobytes()
        other.free(address)
        other.free_host(memory)
        other.close()
        return got

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(use).result() == bytes([7] * 64)
    backend.open()


def test_memory_is_given_back(backend: DeviceBackend, gpu: Gpu) -> None:
    if "MIG" in gpu.uuid or not gpu.memory:
        pytest.skip("NVML tells the memory of whole GPUs with memory of their own reliably only")
    before = used_memory(gpu.uuid)
    address = backend.allocate(512 << 20)
    assert used_memory(gpu.uuid) - before > 400 << 20
    backend.free(address)
    assert used_memory(gpu.uuid) - before < 100 << 20


def test_a_pinned_process_sees_one_device_and_it_is_number_0(gpu: Gpu) -> None:
    code = (
        "import sys, os; from model.engines.cuda.gpus import list_gpus, find_gpu; from workers.devices import pin;"
        "pin(find_gpu(list_gpus().gpus, sys.argv[1]), os.environ);"
        "from cuda.bindings import driver; driver.cuInit(0); print(driver.cuDeviceGetCount()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, gpu.uuid], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "1"


def test_a_second_worker_on_the_gpu_is_refused(gpu: Gpu, tmp_path: Path) -> None:
    from pipeline.errors import SetupError
    from workers.devices import hold

    held = hold(tmp_path, gpu, share=False)
    with pytest.raises(SetupError, match="Another worker runs on GPU"):
        hold(tmp_path, gpu, share=False)
    os.close(held)


def test_the_load_of_the_gpu_is_told(gpu: Gpu) -> None:
    load = gpu_loads([gpu.uuid])[gpu.uuid]
    assert load.memory == gpu.memory
    assert 0 <= load.used <= load.memory
    assert load.busy is None or 0 <= load.busy <= 1


def test_doctor_says_that_a_worker_can_run_here(gpu: Gpu) -> None:
    findings = {one.name: one for one in gpus()}
    assert gpu.uuid.startswith("MIG") or gpu.uuid in findings["gpu"].told
    assert findings["gpu engine"].state == "ok", findings["gpu engine"]
