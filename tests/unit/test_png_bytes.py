"""One picture, packed at many addresses and in two processes: see docs/decisions/0020-bytes-of-a-png.md."""

import subprocess
import sys

import cv2
import numpy as np

from model.codecs.png import PngWriter
from tests.conftest import ROOT

_COUNT = 300

PIXELS = """
import hashlib
import cv2, numpy as np
from tests.chaos.pictures import cutout
from tests.processes import photo
for number in range(5):
    pixels = cv2.imdecode(np.frombuffer(cutout(photo(number)), np.uint8), cv2.IMREAD_UNCHANGED)
    print(hashlib.sha256(pixels.tobytes()).hexdigest())
"""


def test_wherever_the_writer_lies_the_pixels_are_the_same() -> None:
    columns = np.linspace(0, 7, 120 * 4).reshape(120, 4)
    image = np.uint8(127 + 120 * np.sin(columns + np.linspace(0, 5, 90)[:, None, None]))
    writers = [PngWriter(90, 120, 4) for _ in range(_COUNT)]  # all alive: each at an address of its own
    files = []
    for writer in writers:
        writer.write(image)
        files.append(writer.finish())
    for file in set(files):
        made = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
        assert made is not None
        np.testing.assert_array_equal(cv2.cvtColor(made, cv2.COLOR_BGRA2RGBA), image)
    assert max(map(len, files)) - min(map(len, files)) < 64


def test_two_processes_make_the_same_picture() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", PIXELS], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
        )
        for _ in range(2)
    ]
    assert told[0].stdout == told[1].stdout
    assert len(set(told[0].stdout.split())) == 5
