"""A CPU worker does not start more processes than memory allows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import SetupError
from workers.memory import SHARED_BYTES, available_bytes, check_memory, child_bytes
from workers.uploads import MOST_BYTES


def machine(root: Path, available_kb: int, limit: str | None = None, used: int = 0) -> Path:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {available_kb} kB\n")
    if limit is not None:
        (root / "sys/fs/cgroup").mkdir(parents=True)
        (root / "sys/fs/cgroup/memory.max").write_text(limit + "\n")
        (root / "sys/fs/cgroup/memory.current").write_text(f"{used}\n")
    return root


def test_the_smaller_of_machine_and_container_counts(tmp_path: Path) -> None:
    for number, (limit, used, expected) in enumerate(
        [(None, 0, 4096_000_000), ("max", 0, 4096_000_000), ("2000000000", 500_000_000, 1_500_000_000), ("1", 5, 0)]
    ):
        root = tmp_path / str(number)
        root.mkdir()
        assert available_bytes(machine(root, 4_000_000, limit, used)) == expected
    (tmp_path / "empty").mkdir()
    assert available_bytes(tmp_path / "empty") is None


def test_too_many_are_refused_with_how_many_fit() -> None:
    each = child_bytes(150)
    check_memory(3, SHARED_BYTES + 3 * each, 150)
    check_memory(100, None, 150)
    with pytest.raises(SetupError, match="--concurrency 3"):
        check_memory(4, SHARED_BYTES + 4 * each - 1, 150)
    with pytest.raises(SetupError, match="free some memory"):
        check_memory(1, 1000, 150)
    check_memory(4, SHARED_BYTES + 4 * each - 1, 12)  # smaller photos leave room for more


_PEAK = """
import re, sys
from pathlib import Path
import cv2, numpy as np
from model.codecs.scratch import Scratch
from model.cutout import make_cutout, warm_up
from pipeline.recipe import Recipe

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

cv2.setNumThreads(1)
warm_up()
before = most()
ramp = np.tile(np.arange(0, 256, dtype=np.uint8), (256, 1))
scratch = Scratch()
for path in sys.argv[1:]:
    made = make_cutout(Path(path).read_bytes(), ramp, Recipe(), None, 150, scratch=scratch)
    assert made.photo_width * made.photo_height == 12_000_000
print(most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the most that a process had")
@pytest.mark.parametrize("kind", ["jpeg", "rgba.png", "webp"])
def test_a_photo_takes_no_more_than_a_child_is_allotted(kind: str, tmp_path: Path) -> None:
    rows = np.linspace(0, 255, 3000, dtype=np.uint8)[:, None, None]
    rgb = np.ascontiguousarray(np.broadcast_to(rows, (3000, 4000, 3)))
    photo, first = tmp_path / f"photo.{kind}", tmp_path / "first.jpeg"
    Image.fromarray(rgb).save(first)  # what a child keeps of the photo before counts too
    if kind == "rgba.png":
        alpha = np.full((3000, 4000, 1), 200, np.uint8)
        Image.fromarray(np.dstack([rgb, alpha])).save(photo, compress_level=1)
    else:
        Image.fromarray(rgb).save(photo, **({"method": 0} if kind == "webp" else {}))
    run = [sys.executable, "-c", _PEAK, str(first), str(photo)]
    took = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert 12_000_000 * 3 < took < child_bytes(12) - MOST_BYTES


@pytest.mark.parametrize(
    ("modules", "unused"),
    [
        ("workers.roles", {"numpy", "cv2", "PIL", "boto3", "celery", "numba", "onnxruntime"}),
        ("workers.roles, workers.house", {"numpy", "cv2", "PIL", "boto3", "numba", "onnxruntime"}),
        ("workers.finisher", {"numpy", "cv2", "PIL", "celery", "numba", "onnxruntime"}),
        ("workers.gpu", {"PIL", "boto3", "numba", "onnxruntime"}),
    ],
)
def test_a_process_has_no_library_in_memory_that_it_does_not_use(modules: str, unused: set[str]) -> None:
    code = f"import sys, producer.commands.cli, producer.commands.workers, {modules}; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(said.split()) & unused == set()


_DROPPED = """
import re
from pathlib import Path
import numba
from workers.memory import drop_code

def mapped():
    told = re.split(r"^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text(), flags=re.M)
    return sum(int(re.search(r"Rss:\\s+(\\d+)", each)[1]) for each in told if "libllvmlite" in each.split("\\n")[0])

assert numba.njit(lambda x: x + 1)(1) == 2
before = mapped()
drop_code("libllvmlite")
after = mapped()
assert numba.njit(lambda x: x * 3)(2) == 6  # what the loader has written is still there
print(before, after)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what of a file is in memory")
def test_a_compiler_that_is_dropped_takes_no_memory_and_still_compiles() -> None:
    said = subprocess.run([sys.executable, "-c", _DROPPED], capture_output=True, text=True, check=True).stdout
    before, after = map(int, said.split())
    assert before > 20_000  # kilobytes
    assert after < before / 5
