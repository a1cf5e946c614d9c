"""Thousands of damaged image files of every format through the decoder, in processes with limits.

    python -m bench.fuzz [--files 10000] [--first 0] [--processes 2]

File n is always the same (`tests.mutations`). Each is probed, decoded in full and at a reduced scale, and asked for its
EXIF data, by a process with 1 GB of address space and five seconds. What may come of it is a picture or a
`PermanentError`; a crash, a hang, another exception, or a picture from a file that was cut off and is not the whole
picture, is a finding, and is listed with its number.

Caveats: a byte that was altered inside the data of JPEG, lossy WebP or raw pixels cannot be told from a true one: such
files count as pictures. Memory is the process's highest, and the children live through many files.
"""

import argparse
import json
import multiprocessing
import re
import resource
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from bench.machine import facts
from bench.turns import caveats
from model.codecs.decode import decode
from model.codecs.metadata import exif_of
from model.codecs.probe import probe
from pipeline.errors import PermanentError
from tests.mutations import mutant

MEGAPIXELS = 20
ADDRESS_SPACE = 1 << 30
SECONDS = 5.0
FINDINGS = ("crash", "hang", "exception", "half a picture")


@dataclass(frozen=True)
class Result:
    """What came of one file; `megabytes` is the highest memory of its process so far."""

    number: int
    outcome: str
    detail: str = ""
    megabytes: float = 0


def tried(number: int) -> tuple[str, str]:
    """Decode one file: the outcome and, for a finding, what it was."""
    one = mutant(number)
    try:
        picture = decode(one.data, max_megapixels=MEGAPIXELS)
        decode(one.data, max_megapixels=MEGAPIXELS, at_least=(20, 20))
        exif_of(one.data, probe(one.data).format, *picture.rgb.shape[:2])
    except PermanentError as error:
        return str(error.code), ""
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return "exception", f"{one.name}, {one.change}: {type(error).__name__}: {error}"
    if one.change == "cut":
        whole = decode(one.sound, max_megapixels=MEGAPIXELS).rgb
        if picture.rgb.shape != whole.shape or not np.array_equal(picture.rgb, whole):
            return "half a picture", f"{one.name}, {len(one.data)} of {len(one.sound)} bytes"
    return "picture", ""


def serve(numbers: Connection) -> None:
    """The child: answers numbers until there are no more."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            number = numbers.recv()
        except EOFError:
            return
        outcome, detail = tried(number)
        highest = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        numbers.send((outcome, detail, int(highest[1]) / 1024 if highest else 0.0))


def results(first: int, count: int) -> Iterator[Result]:
    """Try `count` files in one child after the other, a new one wherever one was lost."""
    context = multiprocessing.get_context("spawn")
    number, last = first, first + count
    while number < last:
        ours, theirs = context.Pipe()
        child = context.Process(target=serve, args=(theirs,))
        child.start()
        theirs.close()
        with ours:
            alive, waits = True, 60.0  # the first answer waits for the imports
            while alive and number < last:
                ours.send(number)
                if not ours.poll(waits):
                    yield Result(number, "hang", f"{mutant(number).name}, {mutant(number).change}")
                    alive = False
                else:
                    try:
                        yield Result(number, *ours.recv())
                    except EOFError:
                        child.join()
                        yield Result(number, "crash", f"{mutant(number).name}: exit code {child.exitcode}")
                        alive = False
                number, waits = number + 1, SECONDS
        if not alive:
            child.kill()
        child.join()


def part(first: int, count: int) -> list[Result]:
    return list(results(first, count))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    share = -(-asked.files // asked.processes)
    parts = [(asked.first + start, min(share, asked.files - start)) for start in range(0, asked.files, share)]
    with ThreadPool(asked.processes) as pool:
        pool_results = [one for many in pool.starmap(part, parts) for one in many]
    table: dict[str, Counter[str]] = {}
    for one in pool_results:
        table.setdefault(mutant(one.number).name, Counter())[one.outcome] += 1
    answer = {
        "bench": "fuzz",
        "machine": facts(),
        "files": asked.files,
        "first": asked.first,
        "outcomes": Counter(one.outcome for one in pool_results),
        "by_kind": {name: dict(sorted(counts.items())) for name, counts in sorted(table.items())},
        "findings": [vars(one) for one in pool_results if one.outcome in FINDINGS],
        "highest_megabytes": round(max(one.megabytes for one in pool_results), 1),
        "caveats": caveats(__doc__),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
