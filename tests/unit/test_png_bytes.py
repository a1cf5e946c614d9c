"""One picture, packed at many addresses and in two processes: see docs/decisions/0020-bytes-of-a-png.md."""

import subprocess
import sys

import numpy as np

from model.codecs.png import PngWriter
from tests.conftest import ROOT

_COUNT = 300

FILES = """
import hashlib
from tests.chaos.pictures import cutout
from tests.processes import photo
for number in range(5):
    print(hashlib.sha256(cutout(photo(number))).hexdigest())
"""


def test_wherever_the_writer_lies_the_bytes_are_the_same() -> None:
    columns = np.linspace(0, 7, 120 * 4).reshape(120, 4)
    image = np.uint8(127 + 120 * np.sin(columns + np.linspace(0, 5, 90)[:, None, None]))
    writers = [PngWriter(90, 120, 4) for _ in range(_COUNT)]  # all alive: each at an address of its own
    files = []
    for writer in writers:
        writer.write(image)
        files.append(writer.finish())
    assert len(set(files)) == 1


def test_two_processes_make_the_same_file() -> None:
    told = [
        subprocess.run([sys.executable, "-c", FILES], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
        for _ in range(2)
    ]
    assert told[0].stdout == told[1].stdout
    assert len(set(told[0].stdout.split())) == 5
