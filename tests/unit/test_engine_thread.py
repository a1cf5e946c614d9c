"""The engine's thread and its two helpers: who gets which matte, and what happens when the engine fails or is gone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from model.engines.base import EngineError, EngineLostError
from model.engines.fake import FakeEngine
from pipeline.ids import ETag, ItemId, Key, RunId, SizeBucket
from pipeline.ledger import Taken
from pipeline.runs import Item
from workers.batcher import DynamicBatcher
from workers.engine_record import EngineRecord
from workers.engine_thread import EngineThread

SIZE = SizeBucket(32, 32)
Images = NDArray[np.uint8]


class Watched(FakeEngine):
    """Runs `before` with each call's images."""

    def __init__(self, before: Callable[[Images], object]) -> None:
        super().__init__(0, (SIZE,), 4)
        self._before = before
        self.calls: list[int] = []

    def infer(self, images: Images) -> Images:
        self.calls.append(len(images))
        self._before(images)
        return super().infer(images)


def label(number: int) -> Taken:
    item = Item(ItemId(f"{number:012d}"), Key(f"{number}.jpg"), ETag("e"), 1, str(SIZE))
    return Taken(RunId("run"), item, 1, None)


def image(number: int) -> Images:
    return np.full((32, 32, 3), number, np.uint8)


@contextmanager
def running(engine: Watched, lost: Callable[[EngineLostError], None]) -> Iterator[DynamicBatcher[Taken]]:
    batcher = DynamicBatcher[Taken](4, 0.01, 64)
    record = EngineRecord()
    thread = EngineThread(engine, batcher, record, lost)
    thread.start()
    try:
        yield batcher
    finally:
        batcher.close()
        thread.join()
        record.close()


def unexpected(error: EngineLostError) -> None:
    raise AssertionError(error)


def test_every_image_gets_its_own_matte_though_memory_is_used_again() -> None:
    with running(Watched(lambda images: None), unexpected) as batcher:
        futures = [batcher.submit(image(number), label(number)) for number in range(50)]
        mattes = [future.result(10).alpha for future in futures]
    for number, matte in enumerate(mattes):
        assert matte.shape == (32, 32)
        assert np.all(matte == number)


def test_a_batch_that_is_not_full_fills_up_while_the_engine_works() -> None:
    entered, go = threading.Event(), threading.Event()

    def wait(images: Images) -> None:
        entered.set()
        assert go.wait(10)

    engine = Watched(wait)
    with running(engine, unexpected) as batcher:
        futures = [batcher.submit(image(0), label(0))]
        assert entered.wait(10)
        for number in (1, 2, 3):
            futures.append(batcher.submit(image(number), label(number)))
            threading.Event().wait(0.03)  # longer than a batch waits for company when the engine is idle
        go.set()
        for future in futures:
            future.result(10)
    assert engine.calls == [1, 3]


def test_an_image_that_fails_its_batch_fails_alone() -> None:
    def refuse(images: Images) -> None:
        if np.any(images == 7):
            raise ValueError("seven")

    with running(Watched(refuse), unexpected) as batcher:
        futures = {number: batcher.submit(image(number), label(number)) for number in (5, 6, 7, 8)}
        with pytest.raises(EngineError, match="The engine failed: seven"):
            futures.pop(7).result(10)
        for number, future in futures.items():
            assert np.all(future.result(10).alpha == number)


def test_a_lost_engine_is_told_once_and_holds_up_nobody_who_closes() -> None:
    told: list[str] = []
    lost = threading.Event()

    def fail(images: Images) -> None:
        raise EngineLostError("gone")

    def tell(error: EngineLostError) -> None:
        told.append(str(error))
        lost.set()

    engine = Watched(fail)
    with running(engine, tell) as batcher:
        futures = [batcher.submit(image(number), label(number)) for number in range(20)]
        assert lost.wait(10)
    assert told == ["gone"]
    assert engine.calls == [4]
    assert not any(future.done() for future in futures)  # whose they are is the ledger's to say
