"""`mattemill engine`: build, inspect, verify and bench as they are typed, on a machine that need not have a GPU."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from engine_build.wrap import wrap
from model.catalogue import ModelSpec
from model.store import ModelStore
from pipeline.ids import SizeBucket
from tests.tiny_network import tiny_network

SIZE = SizeBucket(64, 96)


def install(home: Path, data: bytes) -> None:
    ModelStore(home).install(ModelSpec("tiny", "00" * 32, (SIZE,), "CC0-1.0", "made for this test"), data)


def command(home: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "MATTEMILL_HOME": str(home), "MATTEMILL_MODEL": "tiny", "COLUMNS": "120"}
    return [sys.executable, "-m", "producer.commands", "engine", *words], environment


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line, environment = command(home, *words)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=150, check=False)


def test_the_commands_build_inspect_and_verify(tmp_path: Path) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    built = run(tmp_path, "build", "--runtime", "tensorrt-rtx", "--optimization-level", "0", "--json")
    assert built.returncode == 0, built.stderr
    told = json.loads(built.stdout)
    assert told["model"] == "tiny"
    assert told["trtexec"].startswith("tensorrt_rtx --onnx=")
    seen = run(tmp_path, "inspect", told["path"])
    assert seen.returncode == 0, seen.stderr
    assert told["plan_sha256"] in seen.stdout
    verified = run(tmp_path, "verify", "--photos", "1", "--json")
    assert verified.returncode == 0, verified.stderr
    assert [check["state"] for check in json.loads(verified.stdout)][:2] == ["ok", "ok"]
    Path(told["path"]).write_bytes(b"foreign")
    refused = run(tmp_path, "inspect", told["path"])
    assert refused.returncode == 2
    assert "is damaged or another's" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert run(tmp_path, "verify").returncode == 2


def test_bench_measures_what_is_there_and_says_what_is_not(tmp_path: Path) -> None:
    install(tmp_path, wrap(tiny_network(SIZE), input_size=SIZE))
    done = run(tmp_path, "bench", "--device", "cpu", "--seconds", "0.1", "--batches", "1,2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [one["label"] for one in told["engines"]] == ["ONNX Runtime FP32"]
    rows = told["engines"][0]["rows"]
    assert [(row["size_bucket"], row["batch"]) for row in rows] == [("64x96", 1), ("64x96", 2)]
    assert all(row["low_ms"] <= row["latency_ms"] <= row["high_ms"] and row["runs"] >= 5 for row in rows)
    assert told["left_out"]["TensorRT FP16"] == "It needs a GPU."
    assert "PyTorch FP32" in told["left_out"]
    assert told["caveats"]
    shown = run(tmp_path, "bench", "--device", "cpu", "--seconds", "0.1", "--batches", "1")
    assert "Left out: TensorRT FP16: It needs a GPU." in shown.stdout
    assert "64x96" in shown.stdout


def test_the_command_refuses_nonsense_with_a_sentence(tmp_path: Path) -> None:
    for words in (["--batches", "8,4,1"], ["--batches", "1,2"], ["--optimization-level", "9"], ["--runtime", "cuda"]):
        assert run(tmp_path, "build", *words).returncode == 2
    unknown = run(tmp_path, "build", "no-such-model", "--runtime", "tensorrt-rtx")
    assert unknown.returncode == 2
    assert "There is no model named 'no-such-model'" in unknown.stderr


def deep_network(layers: int) -> bytes:
    """Slow enough to build that a person could press Ctrl-C."""
    kernel = numpy_helper.from_array(np.full((3, 3, 3, 3), 0.03, np.float32), "deep")
    last = numpy_helper.from_array(np.full((1, 3, 1, 1), 0.3, np.float32), "last")
    nodes = []
    for index in range(layers):
        source = "input" if index == 0 else f"r{index - 1}"
        nodes.append(helper.make_node("Conv", [source, "deep"], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
    nodes += [
        helper.make_node("Conv", [f"r{layers - 1}", "last"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["main"]),
    ]
    shape = [1, 3, SIZE.height, SIZE.width]
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("main", TensorProto.FLOAT, [1, 1, *shape[2:]])],
        [kernel, last],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def test_ctrl_c_ends_a_build_with_130_and_leaves_no_file(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    install(tmp_path, wrap(deep_network(3000), input_size=SIZE))
    line, environment = command(tmp_path, "build", "--runtime", "tensorrt-rtx")
    ours, theirs = pty.openpty()  # a terminal, so that there is a progress bar to see
    said = bytearray()

    def shown() -> bool:
        said.extend(os.read(ours, 4096))
        return b"%" in said and b"against the model" not in said.split(b"\r")[-2]

    with subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=theirs) as child:
        os.close(theirs)
        wait_until(shown, timeout=60)
        child.send_signal(signal.SIGINT)
        try:
            while chunk := os.read(ours, 4096):
                said.extend(chunk)
        except OSError:  # the terminal's other end is closed
            pass
        assert child.wait(60) == 130, bytes(said)
    os.close(ours)
    assert b"stopped by Ctrl-C" in said
    assert [path for path in tmp_path.rglob("*") if "engines" in path.parts and path.is_file()] == []
