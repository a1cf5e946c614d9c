"""A GPU worker that loads nothing: `python -m bench.instant_worker fake:MS`; MATTEMILL_BENCH_IO is seconds a load."""

import os
import queue
import sys
import threading
from concurrent.futures import Future
from itertools import count

import numpy as np

import workers.inference
from model.preprocess import Letterbox
from pipeline.ids import SizeBucket
from workers.gpu import main
from workers.loaders import Slot
from workers.loads import Loaded, Request


class InstantLoaders:
    """Loaders of which every load takes a set time and no processor."""

    def __init__(self, threads: int, slots: int, largest: SizeBucket, deadline: float) -> None:
        self._io = float(os.environ.get("MATTEMILL_BENCH_IO", "0"))
        side = largest
        self._images = [np.full((side.height, side.width, 3), n % 256, np.uint8) for n in range(slots)]
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(slots):
            self._free.put(index)
        self._requests: queue.SimpleQueue[tuple[Request, Future[Slot]] | None] = queue.SimpleQueue()
        self._numbers = count()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def load(self, request: Request) -> Future[Slot]:
        future: Future[Slot] = Future()
        self._requests.put((request, future))
        return future

    def free(self, slot: Slot) -> None:
        self._free.put(slot.index)

    def bytes_in_use(self) -> int:
        return 0

    def close(self) -> None:
        for _ in self._threads:
            self._requests.put(None)

    def _run(self) -> None:
        pause = threading.Event()
        while (entry := self._requests.get()) is not None:
            request, future = entry
            index = self._free.get()
            if self._io:
                pause.wait(self._io)
            image = self._images[index]
            box = Letterbox(0, 0, image.shape[0], image.shape[1])
            digest = str(next(self._numbers))  # every picture a new one
            loaded = Loaded(*image.shape[:2], request.size_buckets[0], box, digest, {"fetch": 0.0})
            future.set_result(Slot(index, image, loaded))


if __name__ == "__main__":
    workers.inference.Loaders = InstantLoaders  # type: ignore[assignment,misc]
    sys.exit(main())
