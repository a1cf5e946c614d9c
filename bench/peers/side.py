"""One side of the comparison: its processes, and how one job goes."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.machine import ROOT
from bench.trees import Tree, workers
from pipeline.errors import SetupError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

ENVIRONMENTS = ROOT / ".venv-peers"
CORES = len(os.sched_getaffinity(0))
WORKERS = {
    "mattemill": [["producer.commands", "worker", "all", "--devices", "cpu"]],
    "naive_celery": [
        ["celery", "-A", "bench.peers.naive_celery", "worker", "--concurrency", str(CORES), "--loglevel", "WARNING"]
    ],
    "lit_serve": [["bench.peers.lit_serve", "serve"]],
}
NAMES = ("mattemill", "pool", "naive_celery", "lit_serve", "ray_data", "rembg_threads")
_LOOK, _LOOK_AT_MEMORY = 0.5, 3.0


@dataclass(frozen=True)
class Job:
    """What one job took; `ended` is "done", or how it stopped short.

    `seconds` and `cpu_seconds` run until the last output, the closed ones until the program says that all is done,
    ends or is given up; where nobody says when the last output was written, they are the same. `killed` is the command
    line of who was.
    """

    seconds: float
    closed_seconds: float
    first_seconds: float | None
    cpu_seconds: float
    closed_cpu_seconds: float
    peak_mb: float
    ended: str
    outputs: int
    killed: str = ""


def python_of(name: str) -> Path | None:
    """The interpreter of a side's own environment; None when it is not installed."""
    if name == "mattemill":
        return Path(sys.executable)
    python = ENVIRONMENTS / name / "bin" / "python"
    return python if (python.parent.parent / ".installed").exists() else None


def version_of(name: str) -> dict[str, str]:
    """What a side's environment has of the libraries that matter."""
    python, libraries = python_of(name), ("celery", "litserve", "ray", "rembg", "onnxruntime", "opencv-python-headless")
    code = f"""
from importlib.metadata import distributions
print(*(f"{{d.name}}={{d.version}}" for d in distributions() if d.name in {libraries}))
"""
    said = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout
    return dict(sorted(pair.split("=") for pair in set(said.split())))


def lines(name: str) -> int:
    """Lines of a side's program without blank lines, comments and docstrings at the beginning of a line."""
    source, quoted, count = (ROOT / "bench" / "peers" / f"{name}.py").read_text(), False, 0
    for line in source.splitlines():
        quotes = line.count('"""')
        if not quoted and not quotes and line.strip() and not line.strip().startswith("#"):
            count += 1
        quoted ^= quotes % 2 == 1
    return count


class Side:
    """A program and its workers, as they run; `started` is when the first of them was started."""

    def __init__(
        self, name: str, program: subprocess.Popen[bytes], tree: Tree, s3: "S3Client", output: Path, started: float
    ) -> None:
        self.name = name
        self.started = started
        self._program = program
        self._tree = tree
        self._s3 = s3
        self._output = output
        self._read = 0

    def job(
        self,
        source: str,
        target: str,
        prefix: str,
        *,
        patience: float,
        every: float = 5.0,
        kill_at: int | None = None,
        started: float | None = None,
    ) -> Job:
        """Have the program do a job, and watch it.

        Args:
            source: bucket.
            target: bucket.
            prefix: of the outputs, with a slash at its end; nothing lies there yet.
            patience: seconds without a new output after which it is given up.
            every: seconds between two looks at what is there, once there is anything.
            kill_at: number of outputs at which the process that runs the network is killed.
            started: on which clock the job began, if not now.
        """
        self._tree.look()
        before = {} if started is not None else self._tree.state()
        start = time.perf_counter() if started is None else started
        stdin = self._program.stdin
        if stdin is None:
            raise RuntimeError("the program was started without a pipe")
        with contextlib.suppress(BrokenPipeError):
            stdin.write(f"{source} {target} {prefix}\n".encode())
            stdin.flush()
        first = last = cpu = None
        peak, outputs, killed, ended = 0.0, 0, "", ""
        moved = looked = time.perf_counter()
        listed, remembered = 0.0, looked - _LOOK_AT_MEMORY + 1
        while not ended:
            time.sleep(0.05)
            now = time.perf_counter()
            words = self._new_words()
            if "outputs" in words and last is None:
                last = now
                self._tree.look()
                cpu = self._tree.cpu_seconds
            if "done" in words:
                ended = "done"
            elif self._program.poll() is not None:
                ended = f"the program ended ({self._program.returncode})"
            elif now - moved > patience:
                ended, last = f"given up after {patience:g} s without an output", moved
            if now - listed > (0.1 if first is None or (kill_at and not killed) else every):
                found, listed = self._count(target, prefix), now
                if found and first is None:
                    first = now - start
                if found > outputs:
                    outputs, moved = found, now
            if kill_at and outputs >= kill_at and not killed:
                killed = self._kill(before)
            if now - looked > _LOOK:
                self._tree.look()
                looked = now
            if now - remembered > _LOOK_AT_MEMORY:
                peak, remembered = max(peak, self._tree.memory_mb()), now
        self._tree.look()
        end = time.perf_counter()
        begun, ended_cpu = sum(before.values()), self._tree.cpu_seconds
        return Job(
            seconds=round((last or end) - start, 3),
            closed_seconds=round(end - start, 3),
            first_seconds=first and round(first, 3),
            cpu_seconds=round((cpu or ended_cpu) - begun, 3),
            closed_cpu_seconds=round(ended_cpu - begun, 3),
            peak_mb=round(peak, 1),
            ended=ended,
            outputs=self._count(target, prefix),
            killed=killed,
        )

    def _kill(self, before: dict[psutil.Process, float]) -> str:
        self._tree.look()
        victim = self._tree.busiest("onnxruntime", before)
        said = " ".join(victim.cmdline()).replace(f"{ROOT}/", "").strip()
        victim.kill()
        return said

    def _count(self, bucket: str, prefix: str) -> int:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sum(entry["Key"].endswith(".png") for page in pages for entry in page.get("Contents", []))

    def _new_words(self) -> set[str]:
        with self._output.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return set(whole.decode(errors="replace").split("\n"))


@contextlib.contextmanager
def running(name: str, env: dict[str, str], s3: "S3Client", folder: Path) -> Iterator[Side]:
    """Start a side's workers and its program; end them and whatever they leave behind."""
    python = python_of(name)
    if python is None:
        raise SetupError(f"{name} is not installed.", "make bench-peers installs it")
    output = folder / "program.log"
    started = time.perf_counter()
    with (
        workers(WORKERS.get(name, []), env, folder / "workers.log", str(python)) as children,
        output.open("wb") as file,
        subprocess.Popen(
            [str(python), "-m", f"bench.peers.{name}"],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=ROOT,
        ) as program,
    ):
        tree = Tree([program.pid, *(child.pid for child in children)])
        try:
            yield Side(name, program, tree, s3, output, started)
        finally:
            tree.look()
            if program.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    program.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(10)
            for child in children:
                child.stop(20)
            tree.kill()
