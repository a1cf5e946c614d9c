"""The matte stage in this process: real loaders, real ledger, real S3, an engine that can be looked into."""

import gc
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

import workers.engine_thread
from model.codecs.alpha import unpack_alpha
from model.engines.fake import FakeEngine
from pipeline.ids import SizeBucket
from pipeline.jobs import Job
from pipeline.ledger import Ledger
from pipeline.runs import RunSpec
from pipeline.settings import Settings
from tests.processes import photo, put_run
from workers.batcher import Matte
from workers.engine_record import EngineRecord
from workers.matte import MatteStage

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class CountingEngine(FakeEngine):
    def __init__(self, sizes: tuple[SizeBucket, ...]) -> None:
        super().__init__(1, sizes, 4)
        self.shapes: list[tuple[int, ...]] = []

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.shapes.append(images.shape)
        return super().infer(images)


@pytest.fixture
def theirs(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process's environment is that of the loaders that it starts."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def run_all(ledger: Ledger, settings: Settings, spec: RunSpec, engine: CountingEngine) -> list[Job]:
    """Feed everything and work it off, each message in a thread; returns what was sent on to be encoded."""
    sent: list[Job] = []
    others: list[int] = []

    def publish(jobs: Sequence[Job], priority: int) -> None:
        others.append(stage.in_hand() - len(jobs))
        sent.extend(jobs)

    with MatteStage(ledger, publish, engine, settings, 2, EngineRecord()) as stage:
        fed = ledger.feed(spec, 100, 100)
        parts = [fed[start : start + 4] for start in range(0, len(fed), 4)]
        jobs = [
            Job(spec.run, [one.item.id for one in part], [one.item.key for one in part], part[0].fed, part[0].queue)
            for part in parts
        ]
        for job in jobs:
            stage.expect(len(job.items))
        assert stage.in_hand() == len(fed)
        threads = [threading.Thread(target=stage.process, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stage.in_hand() == 0
    assert min(others) >= 0  # in hand until they were sent
    return sent


def test_identical_sources_are_computed_once_and_each_gets_its_alpha(
    ledger: Ledger, settings: Settings, theirs: pytest.MonkeyPatch, bucket: str, s3_client: "S3Client"
) -> None:
    bodies = {f"in/{n}.jpg": photo(n % 3) for n in range(30)}
    spec = put_run(ledger, s3_client, bucket, bodies)
    engine = CountingEngine((SizeBucket(320, 320),))
    sent = run_all(ledger, settings, spec, engine)
    assert len(sent) == 30
    assert sum(shape[0] for shape in engine.shapes) == 3
    alphas: dict[bytes, set[bytes]] = {}
    for job in sent:
        (taken,) = ledger.take(spec.run, "encode", job.fed, job.item_ids)
        packed = unpack_alpha(taken.alpha or b"")
        alphas.setdefault(bodies[taken.item.key], set()).add(packed.alpha.tobytes())
    assert [len(each) for each in alphas.values()] == [1, 1, 1]
    assert len({next(iter(each)) for each in alphas.values()}) == 3


def test_mattes_are_gone_when_they_are_handed_over_and_do_not_wait_for_the_garbage_collector(
    ledger: Ledger, settings: Settings, theirs: pytest.MonkeyPatch, bucket: str, s3_client: "S3Client"
) -> None:
    spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(12)})
    alphas: list[weakref.ref[NDArray[np.uint8]]] = []

    def matte(alpha: NDArray[np.uint8], waited: float, computed: float) -> Matte:
        alphas.append(weakref.ref(alpha))
        return Matte(alpha, waited, computed)

    theirs.setattr(workers.engine_thread, "Matte", matte)
    gc.disable()
    try:
        few = settings.model_copy(update={"recent_mattes": 0})
        assert len(run_all(ledger, few, spec, CountingEngine((SizeBucket(320, 320),)))) == 12
        assert [alpha() for alpha in alphas] == [None] * 12
    finally:
        gc.enable()


def test_each_photo_goes_to_the_size_that_fits_it_whatever_its_message_said(
    ledger: Ledger, settings: Settings, theirs: pytest.MonkeyPatch, bucket: str, s3_client: "S3Client"
) -> None:
    spec = put_run(ledger, s3_client, bucket, {f"in/{n}.jpg": photo(n) for n in range(6)})  # 120 x 90
    engine = CountingEngine((SizeBucket(320, 320), SizeBucket(96, 128), SizeBucket(128, 96)))
    with capture_logs() as lines:
        sent = run_all(ledger, settings, spec, engine)
    assert len(sent) == 6
    assert {shape[1:3] for shape in engine.shapes} == {(96, 128)}
    said = [line for line in lines if line["event"] == "matte"]
    assert sorted(line["key"] for line in said) == sorted(f"in/{n}.jpg" for n in range(6))
    for line in said:
        assert (line["width"], line["height"], line["size_bucket"]) == (120, 90, "96x128")
        assert list(line["ms"]) == ["fetch", "decode", "wait", "infer", "hand over"]
        assert all(took >= 0 for took in line["ms"].values())
        assert line["ms"]["infer"] > 0


def test_a_worker_with_other_weights_than_the_run_s_makes_nothing_of_it(
    ledger: Ledger, settings: Settings, theirs: pytest.MonkeyPatch, bucket: str, s3_client: "S3Client"
) -> None:
    spec = put_run(ledger, s3_client, bucket, {"in/1.jpg": photo(1)})
    engine = CountingEngine((SizeBucket(320, 320),))
    with MatteStage(ledger, lambda jobs, priority: None, engine, settings, 1, EngineRecord(), "f" * 64) as stage:
        (fed,) = ledger.feed(spec, 1, 1)
        stage.expect(1)
        stage.process(Job(spec.run, [fed.item.id], [fed.item.key], fed.fed, fed.queue))
    assert engine.shapes == []
    assert ledger.counts(spec.run).retried == 1
