"""The table that Mattemill grew from, redone here: networks and runtimes, and one photo stage by stage.

    python -m bench.article [--seconds 10] [--rounds 3] [--sides 512 1024]

Engines: every network at each side, one image a call, one thread, in processes of their own; median of the calls, what
nine of ten stay within, and the process's largest memory, interpreter and libraries included. Stages: 2-megapixel
photos, one after the other, each way in turn, one thread, milliseconds of wall time. `before`: GET, `cv2.imdecode`,
`cvunet` in PyTorch FP32 at 1024 pixels, bilinear alpha, `cv2.imencode`, PUT. `light network`: the same with
`cvunet-lite` in ONNX Runtime. `mattemill`: what its workers do, with the network that ships, at its 320 pixels.

Caveats: `cvunet` and `cvunet-lite` have random weights, since no trained ones can be had; time does not depend on them,
but what they cut out is nonsense, so every way encodes the alpha of the network that ships. The ways do not run at the
same number of pixels: that is part of what was gained, and costs detail. S3 is on loopback. One photo at a time,
nothing overlaps: latencies, not rates. GPU rows are missing: no GPU was at hand.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console

from bench.machine import facts
from bench.photos import crops, model_image
from bench.stage import LIMIT, alpha_of, highest
from bench.turns import caveats, spread
from engine_build.measure import measure
from model.catalogue import ModelSpec
from model.cutout import make_cutout, warm_up
from model.engines.base import Engine
from model.engines.onnx import OnnxEngine
from model.store import ModelStore
from pipeline.ids import Key, SizeBucket
from pipeline.log import configure
from pipeline.recipe import Recipe
from pipeline.s3 import S3Store
from pipeline.settings import load_settings
from workers.local.stack import LocalStack

if TYPE_CHECKING:
    from torch import nn

UInt8 = npt.NDArray[np.uint8]
Answer = TypeVar("Answer")
NETWORKS = ("cvunet", "cvunet-lite", "cvunet-lite-s")
TORCH, ONNX = "PyTorch FP32", "ONNX Runtime FP32"
SHIPPED = "cvunet-lite-s"
LARGEST = 1 << 26
STAGES = ("fetch", "decode", "infer", "encode", "upload")
console = Console(stderr=True)


def network_of(name: str) -> "nn.Module":
    """The network in PyTorch; its weights are random unless they ship."""
    import torch

    from engine_build.trained import trained_network
    from model.networks import build

    if name == SHIPPED:
        return trained_network(ModelStore(load_settings().home).card(name))
    torch.manual_seed(0)
    return build(name).eval()


def opened(name: str, runtime: str, side: int, folder: Path) -> Engine:
    """An engine of one thread for one square image a call; its ONNX file is written to `folder` where it is missing."""
    sizes = (SizeBucket(side, side),)
    if runtime == TORCH:
        import torch

        from model.engines.torch import TorchEngine

        torch.set_num_threads(1)
        return TorchEngine(network_of(name), sizes, max_batch=1, cuda=False)
    file = folder / f"{name}.onnx"
    if not file.exists():
        from engine_build.export import export

        file.write_bytes(export(network_of(name), "fp32"))
    return OnnxEngine(file, ModelSpec(name, "", sizes, "", ""), max_batch=1, threads=1)


def print_row(name: str, runtime: str, side: int, seconds: float, folder: Path) -> None:
    """Measure here, and print a row: all memory of this process is the engine's."""
    with opened(name, runtime, side, folder) as engine:
        (row,) = measure(engine, (1,), seconds)
    print(json.dumps({"network": name, "runtime": runtime, **asdict(row), "host_mb": round(highest())}))


def rows(sides: list[int], seconds: float, folder: Path) -> list[dict[str, object]]:
    """Every network and runtime at every side, each in a process of its own."""
    found = []
    for side in sides:
        for name in NETWORKS:
            for runtime in (TORCH, ONNX):
                words = [sys.executable, "-m", "bench.article", "--row", name, runtime, str(side), str(folder)]
                done = subprocess.run(
                    [*words, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True, check=True
                )
                found.append(json.loads(done.stdout))
                console.print(f"{name} {runtime} {side}: {found[-1]['latency_ms']} ms")
    return found


class Way:
    """One way to do a photo: what each stage takes, in milliseconds."""

    def __init__(self, store: S3Store, engine: Engine, plain: bool) -> None:
        self._store, self._engine, self._plain = store, engine, plain
        self.stages: dict[str, list[float]] = {stage: [] for stage in STAGES}

    def photo(self, key: str, alpha: UInt8) -> None:
        """Do one photo; `alpha` is what is encoded, whatever the network said."""
        body = self._timed("fetch", lambda: self._store.get("photos", Key(key), max_bytes=LARGEST).body)
        image = self._timed("decode", partial(self._plain_image if self._plain else self._image, body))
        self._timed("infer", lambda: self._engine.infer(image))
        made = self._timed("encode", partial(self._plain_cutout if self._plain else self._cutout, body, alpha))
        self._timed("upload", lambda: self._store.put("out", Key(key), made, content_type="image/png"))

    def _timed(self, stage: str, step: Callable[[], Answer]) -> Answer:
        started = time.perf_counter()
        answer = step()
        self.stages[stage].append((time.perf_counter() - started) * 1000)
        return answer

    def _plain_image(self, body: bytes) -> UInt8:
        size = self._engine.size_buckets[0]
        self._bgr = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        small = cv2.resize(self._bgr, (size.width, size.height), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(small[None, :, :, ::-1])

    def _image(self, body: bytes) -> UInt8:
        return model_image(body, self._engine.size_buckets[0])[0][None]

    def _plain_cutout(self, _: bytes, alpha: UInt8) -> bytes:
        full = cv2.resize(alpha, self._bgr.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return cv2.imencode(".png", np.dstack([self._bgr, full]))[1].tobytes()

    def _cutout(self, body: bytes, alpha: UInt8) -> bytes:
        return make_cutout(body, alpha, Recipe(), None, LIMIT).body


def stages(photos: int, rounds: int, folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Every way with every photo in turn; spread of the milliseconds by stage and in all."""
    cv2.setNumThreads(1)
    warm_up()
    with LocalStack() as stack:
        os.environ.update(stack.environment())
        with (
            S3Store(load_settings()) as store,
            opened("cvunet", TORCH, 1024, folder) as before,
            opened("cvunet-lite", ONNX, 1024, folder) as light,
            opened(SHIPPED, ONNX, 320, folder) as shipped,
        ):
            for bucket in ("photos", "out"):
                store.create_bucket(bucket)
            bodies = dict(crops(photos, (2.0, 2.0)))
            for key, body in bodies.items():
                store.put("photos", Key(key), body, content_type="image/jpeg")
            alphas = {key: alpha_of(shipped, body) for key, body in bodies.items()}
            ways = {
                "before": Way(store, before, plain=True),
                "light network": Way(store, light, plain=True),
                "mattemill": Way(store, shipped, plain=False),
            }
            for engine in (before, light, shipped):
                engine.warm_up()
            for number in range(rounds):
                for key, alpha in alphas.items():
                    for way in list(ways.values())[:: 1 if number % 2 == 0 else -1]:
                        way.photo(key, alpha)
                console.print(f"round {number + 1} of {rounds}")
    return {
        name: {stage: spread(values) for stage, values in way.stages.items()}
        | {"all": spread([sum(one) for one in zip(*way.stages.values(), strict=True)])}
        for name, way in ways.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row of the table; at least five calls")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--photos", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    configure(load_settings(log_format="console"), role="bench")
    if asked.row:
        name, runtime, side, folder = asked.row
        print_row(name, runtime, int(side), asked.seconds, Path(folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            with opened(name, ONNX, asked.sides[0], Path(folder)):
                pass
        answer = {
            "bench": "article",
            "machine": facts(),
            "engines": rows(asked.sides, asked.seconds, Path(folder)),
            "stages_ms": stages(asked.photos, asked.rounds, Path(folder)),
            "caveats": caveats(__doc__),
        }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
