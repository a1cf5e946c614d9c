"""A GPU worker whose engine falls ill at the sight of a bright image: `python -m tests.sick_worker ILLNESS PARENT FD`.

Without PARENT it is the supervisor of such a worker.
"""

import os
import signal
import sys
import threading

import numpy as np
from numpy.typing import NDArray

import workers.gpu
from model.catalogue import find
from model.engines.base import Engine, EngineLostError
from model.engines.fake import FakeEngine
from pipeline.ledger import Ledger, connect
from pipeline.log import configure
from pipeline.settings import Settings, load_settings
from workers.engine_record import EngineRecord
from workers.supervisor import Command, Supervisor


class SickEngine(FakeEngine):
    def __init__(self, illness: str, settings: Settings) -> None:
        super().__init__(5, find(settings.model).size_buckets, settings.max_batch)
        self._illness = illness

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if any(image.mean() > 150 for image in images):
            if self._illness == "lost":
                raise EngineLostError("the context is gone")
            if self._illness == "segv":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self._illness == "stuck":
                threading.Event().wait()
            if self._illness == "error":
                raise ValueError("too bright")
        return super().infer(images)


def open_sick(illness: str, settings: Settings) -> Engine:
    return SickEngine(illness, settings)


def main() -> int:
    if len(sys.argv) > 2:
        workers.gpu.open_engine = open_sick
        return workers.gpu.main()
    settings = load_settings()
    configure(settings, role="gpu")
    ledger = Ledger(connect(settings), settings)
    command = Command("tests.sick_worker", sys.argv[1], record=EngineRecord())
    return Supervisor([command], ledger.suspect, backoff=0.05).run()


if __name__ == "__main__":
    sys.exit(main())
