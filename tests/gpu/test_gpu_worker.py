"""A sweep from one bucket to another through `mattemill worker gpu` on a real GPU, as a user types it."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine_build.capabilities import check_capability
from model.engines.cuda.gpus import Gpu
from model.engines.libraries import Runtime, load_library
from pipeline.errors import SetupError
from tests.command_line import run
from tests.processes import photo, process
from workers.devices import ENGINES, hold

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

COMMAND = "producer.commands"
IMAGES = 24
BUILDING = 900
"""Seconds: the first start builds the engine, or compiles it."""


def cannot_run(engine: str, gpu: Gpu) -> str:
    """Why an engine cannot run here; "" when it can."""
    if engine in list(Runtime):
        try:
            check_capability(load_library(Runtime(engine)), gpu)
        except SetupError as error:
            return str(error)
    if engine == "torch":
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        return "" if torch.cuda.is_available() else "PyTorch finds no CUDA device"
    if engine == "onnx":
        import onnxruntime

        known = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        return "" if known else "onnxruntime-gpu is not installed"
    return ""


def sweep(
    environment: dict[str, str], s3: "S3Client", bucket: str, devices: list[str], wait: float
) -> dict[str, object]:
    """Put photos, start both workers, and give what `sweep --wait --json` prints."""
    for number in range(IMAGES):
        s3.put_object(Bucket=bucket, Key=f"in/{number}.jpg", Body=photo(number))
    with (
        process(environment, COMMAND, "worker", "gpu", *devices) as gpu_worker,
        process(environment, COMMAND, "worker", "cpu", "--concurrency", "1"),
    ):
        words = [f"s3://{bucket}/in/", "--to", f"s3://{bucket}/out/", "--wait", "--json"]
        done = run(environment, "sweep", *words, timeout=wait)
        assert gpu_worker.poll() is None, "the GPU worker has left"
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


@pytest.mark.timeout(BUILDING + 60)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_sweep_on_the_gpu(
    engine: str, gpu: Gpu, environment: dict[str, str], bucket: str, s3_client: "S3Client"
) -> None:
    if why := cannot_run(engine, gpu):
        pytest.skip(why)
    environment["MATTEMILL_MODEL"] = "cvunet-lite-s"
    told = sweep(environment, s3_client, bucket, ["--devices", gpu.uuid, "--engine", engine], BUILDING)
    assert (told["listed"], told["done"], told["failed"]) == (IMAGES, IMAGES, 0)
    name = str(told["engine"])
    assert name.startswith({"onnx": "onnxruntime "}.get(engine, f"{engine} "))
    assert "CPU" not in name


def test_a_gpu_that_is_taken_is_refused(gpu: Gpu, environment: dict[str, str]) -> None:
    held = hold(Path(environment["MATTEMILL_HOME"]), gpu, share=False)
    done = run(environment, "worker", "gpu", "--devices", gpu.uuid, "--engine", "torch")
    os.close(held)
    assert done.returncode == 2
    assert "Another worker runs on GPU" in done.stderr
    assert "Hint: stop it" in done.stderr
