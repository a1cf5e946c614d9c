"""Mattemill against what a user would write with other libraries: the same photos, network and S3, turn by turn.

    python -m bench.against_peers [--photos 200] [--rounds 3] [--model cvunet-lite-s] [--peers pool ray_data]

`bench/peers` has the programs; `make bench-peers` installs what they need. In every round each side starts afresh, does
60 photos (`cold`: from the start of its first process to the last output) and then all photos (`warm`: from the call to
the last output). CPU-seconds and memory (proportional, a look every three seconds) are those of the side's own
processes, not of Redis and S3, which serve all alike. Then each side does 60 files of which five are no good
(`corrupt`), and 60 photos while the process that runs the network is killed with SIGKILL at a third of the outputs
(`kill`); a program that has written nothing for a minute is given up.

`lost`: no output, and its key stands in nothing that was printed. `collateral`: good photos without a right output.
`doubled`: outputs that were written more than once. `wrong`: outputs of files that are no good. `lines`: of the
program, without comments and docstrings.

Caveats: every side and the servers share the machine's cores. The peers squash the photo to the model's square,
upsample bilinearly and leave edge colours as they are, which is less work than Mattemill does; they write no manifest
or report either, for which Mattemill's `closed_seconds` and `closed_cpu_seconds` go on: in a short job that is much of
the whole, so read both. All watching is done by one more process, from outside. A job of a few seconds has few looks at
memory. Ray starts its actors for every dataset, so its warm job waits for them too; rembg runs in one process, so that
the kill is the end of it, and somebody has to start it again. Photos are crops of 17 originals; S3 is on loopback. The
five bad files lie evenly among the good ones, which is hard on batches. The first start after an installation compiles
(rembg, Mattemill), so the first cold job may be slower than the others. The kill hits one process once: what it finds
may differ from run to run.
"""

import argparse
import json
import os
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import cv2
import numpy as np
from rich.console import Console

from bench.machine import facts
from bench.peers.corrupt import corrupt_files
from bench.peers.side import NAMES, Job, lines, python_of, running, version_of
from bench.photos import crops
from bench.turns import caveats, spread
from model.store import ModelStore
from pipeline.errors import SetupError
from pipeline.log import configure
from pipeline.settings import load_settings
from workers.local.ports import free_ports
from workers.local.stack import LocalStack

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

FEW = 60
PATIENCE = 60.0
COLUMNS = ("images_per_second", "cpu_seconds", "peak_mb", "first_seconds", "closed_seconds", "closed_cpu_seconds")
console = Console(stderr=True)


class Bench:
    """Photos in their buckets, and the jobs that the sides do with them."""

    def __init__(self, s3: "S3Client", env: Mapping[str, str], folder: Path, photos: int, few: int) -> None:
        self._s3 = s3
        self._env = env
        self._folder = folder
        self._jobs = 0
        self.photos = photos
        self._few: dict[str, bytes] = {}
        for bucket in ("photos", "few", "warm", "corrupt", "out", "kept"):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
        for key, body in crops(max(photos, few), (1.0, 2.0)):
            number = int(key.split(".")[0])
            if number < photos:
                s3.put_object(Bucket="photos", Key=key, Body=body)
            if number < few:
                s3.put_object(Bucket="few", Key=key, Body=body)
                self._few[key] = body
            if number < 4:
                s3.put_object(Bucket="warm", Key=key, Body=body)
        self._bad = corrupt_files(self._few["00000.jpg"])
        good = dict(islice(self._few.items(), few - len(self._bad)))
        # Evenly between the good ones, by size and by name: not all in one batch.
        self._mixed: dict[str, bytes] = {}
        step = len(good) // len(self._bad)
        for number, (key, body) in enumerate(good.items()):
            self._mixed[key] = body
            if number % step == step // 2 and number // step < len(self._bad):
                name, bad = list(self._bad.items())[number // step]
                self._mixed[f"{key[:5]}-{name}"] = bad
        for key, body in self._mixed.items():
            s3.put_object(Bucket="corrupt", Key=key, Body=body)

    def round(self, name: str) -> dict[str, dict[str, object]]:
        """A cold and a warm job of one side."""
        with running(name, self._environment(), self._s3, self._folder) as side:
            cold = side.job("few", "out", self._prefix(name), patience=2 * PATIENCE, started=side.started)
            warm = side.job("photos", "out", self._prefix(name), patience=2 * PATIENCE)
        for job, count in ((cold, len(self._few)), (warm, self.photos)):
            if job.outputs != count or job.ended != "done":
                said = "\n".join(path.read_text(errors="replace")[-2000:] for path in self._folder.glob("*.log"))
                raise SetupError(f"{name} wrote {job.outputs} of {count}: {job.ended}.", said)
        return {"cold": _figures(cold, len(self._few)), "warm": _figures(warm, self.photos)}

    def corrupt(self, name: str) -> dict[str, object]:
        """What becomes of 60 files of which five are no good."""
        return self._trouble(name, "corrupt", self._mixed, None)

    def kill(self, name: str) -> dict[str, object]:
        """What becomes of 60 photos when the process that runs the network is killed at a third of them."""
        return self._trouble(name, "few", self._few, len(self._few) // 3)

    def _trouble(self, name: str, source: str, bodies: Mapping[str, bytes], kill_at: int | None) -> dict[str, object]:
        with running(name, self._environment(), self._s3, self._folder) as side:
            side.job("warm", "out", self._prefix(name), patience=2 * PATIENCE)
            (self._folder / "workers.log").write_bytes(b"")
            prefix = self._prefix(name)
            job = side.job(source, "kept", prefix, patience=PATIENCE, every=1, kill_at=kill_at)
        said = "".join(path.read_text(errors="replace") for path in self._folder.glob("*.log"))
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket="kept", Prefix=prefix)
        written = [entry["Key"][len(prefix) :] for page in pages for entry in page.get("Versions", [])]
        lost, collateral, wrong = [], [], []
        for key, body in bodies.items():
            output = key.rsplit(".", 1)[0] + ".png"
            good = "-bad-" not in key
            if output in written and not good:
                wrong.append(key)
            if good and not (output in written and self._is_cutout(prefix + output, body)):
                collateral.append(key)
            if output not in written and key not in said:
                lost.append(key)
        outputs = [key for key in written if key.endswith(".png")]
        return asdict(job) | {
            "lost": len(lost),
            "doubled": len(outputs) - len(set(outputs)),
            "collateral": len(collateral),
            "wrong": wrong,
        }

    def _is_cutout(self, key: str, source: bytes) -> bool:
        """Whether an output is a whole RGBA PNG of its photo's size."""
        body = self._s3.get_object(Bucket="kept", Key=key)["Body"].read()
        if not body.startswith(b"\x89PNG") or not body.endswith(b"IEND\xae\x42\x60\x82"):
            return False
        width, height, _, colours = struct.unpack(">IIBB", body[16:26])
        photo = cv2.imdecode(np.frombuffer(source, np.uint8), cv2.IMREAD_COLOR)
        return colours == 6 and photo is not None and photo.shape[:2] == (height, width)

    def _environment(self) -> dict[str, str]:
        return {**self._env, "PORT": str(free_ports(1)[0])}

    def _prefix(self, name: str) -> str:
        self._jobs += 1
        return f"{name}-{self._jobs}/"


def _figures(job: Job, photos: int) -> dict[str, object]:
    return asdict(job) | {"images_per_second": round(photos / job.seconds, 3)}


def _column(rounds: Sequence[Mapping[str, Mapping[str, object]]], when: str, what: str) -> list[float]:
    return [float(str(one[when][what])) for one in rounds]


def _compared(sides: Mapping[str, Sequence[Mapping[str, Mapping[str, object]]]]) -> dict[str, dict[str, object]]:
    """How many times better Mattemill is than each peer in the same round: above 1 is ahead."""
    answer: dict[str, dict[str, object]] = {}
    for name in sides:
        if name == "mattemill":
            continue
        answer[name] = {}
        for what in COLUMNS:
            ours, theirs = _column(sides["mattemill"], "warm", what), _column(sides[name], "warm", what)
            pairs = zip(ours, theirs, strict=True)
            answer[name][what] = spread([a / b if what == "images_per_second" else b / a for a, b in pairs])
    return answer


def measure(bench: Bench, names: Iterable[str], rounds: int, left_out: dict[str, str]) -> dict[str, object]:
    """Every side in every round, the order turned each time, then the two troubles of each.

    A peer that does not do a clean job is left out from then on, and said.
    """
    order = list(names)
    sides: dict[str, list[dict[str, dict[str, object]]]] = {name: [] for name in order}
    for number in range(rounds):
        shift = number * 2 % len(order)
        for name in (order[shift:] + order[:shift])[:: 1 if number % 2 == 0 else -1]:
            if name not in sides:
                continue
            try:
                one = bench.round(name)
            except SetupError as error:
                if name == "mattemill":
                    raise
                console.print(f"{name} is left out: {error}")
                del sides[name]
                left_out[name] = str(error.args[0])
                continue
            sides[name].append(one)
            console.print(f"round {number + 1} {name}: {one['warm']['images_per_second']} images/s")
    troubles: dict[str, dict[str, object]] = {name: {} for name in sides}
    for name in sides:
        for what, trouble in (("corrupt", bench.corrupt), ("kill", bench.kill)):
            troubles[name][what] = trouble(name)
            console.print(f"{what} {name}: {troubles[name][what]}")
    return {
        "left_out": left_out,
        "sides": {
            name: {
                "versions": version_of(name),
                "lines": lines(name),
                **{when: {what: spread(_column(ones, when, what)) for what in COLUMNS} for when in ("warm", "cold")},
                **troubles[name],
                "rounds": ones,
            }
            for name, ones in sides.items()
        },
        "times_better_warm": _compared(sides),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="cvunet-lite-s")
    parser.add_argument("--peers", nargs="+", choices=NAMES[1:], default=NAMES[1:])
    asked = parser.parse_args(arguments)
    configure(load_settings(log_format="console"), role="bench")
    left_out = {name: "not installed" for name in asked.peers if python_of(name) is None}
    for name in left_out:
        console.print(f"{name} is left out: it is not installed; make bench-peers tries to.")
    names = ["mattemill", *(name for name in asked.peers if name not in left_out)]
    with LocalStack() as stack, tempfile.TemporaryDirectory() as folder:
        os.environ.update(stack.environment())
        endpoint = os.environ["MATTEMILL_S3_ENDPOINT_URL"]
        env = os.environ | {
            "MATTEMILL_LOG_FORMAT": "json",
            "MATTEMILL_MODEL": asked.model,
            "MODEL": str(ModelStore(load_settings().home).path(asked.model)),
            "REDIS_URL": os.environ["MATTEMILL_REDIS_URL"],
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_DEFAULT_REGION": os.environ["AWS_REGION"],
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": folder,
        }
        s3 = boto3.client("s3", endpoint_url=endpoint, region_name=os.environ["AWS_REGION"])
        bench = Bench(s3, env, Path(folder), asked.photos, asked.few)
        measured = measure(bench, names, asked.rounds, left_out)
    answer = {
        "bench": "against_peers",
        "machine": facts(),
        "job": {"photos": asked.photos, "few": asked.few, "megapixels": [1.0, 2.0], "model": asked.model},
        **measured,
        "caveats": caveats(__doc__),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
