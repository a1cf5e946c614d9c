"""A CPU worker does not start more processes than memory allows."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import SetupError
from workers.memory import CHILD_BYTES, available_bytes, check_memory


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
    check_memory(3, 3 * CHILD_BYTES)
    check_memory(100, None)
    with pytest.raises(SetupError, match="--concurrency 3"):
        check_memory(4, 4 * CHILD_BYTES - 1)
    with pytest.raises(SetupError, match="free some memory"):
        check_memory(1, 1000)


@pytest.mark.parametrize(
    ("modules", "unused"),
    [
        ("workers.supervisor", {"numpy", "cv2", "PIL", "boto3", "celery", "numba", "onnxruntime"}),
        ("workers.house", {"numpy", "cv2", "PIL", "boto3", "numba", "onnxruntime"}),
        ("workers.gpu", {"PIL", "boto3", "numba", "onnxruntime"}),
    ],
)
def test_a_process_has_no_library_in_memory_that_it_does_not_use(modules: str, unused: set[str]) -> None:
    code = f"import sys, producer.commands.cli, producer.commands.workers, {modules}; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(said.split()) & unused == set()
