"""The row of a failure says what was known at that moment: the engine, and what each stage took."""

from contextlib import closing

import cv2
import numpy as np
import pytest

import pipeline.ledger.ledger
import workers.encode_stage
from model.codecs.alpha import PackedAlpha, pack_alpha
from pipeline.ids import ETag, Key
from pipeline.jobs import ENCODE_QUEUE, Job
from pipeline.ledger import Ledger, Listing
from pipeline.runs import Item, RunSpec, item_id, new_run_id, short_hash
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from tests.processes import photo
from workers.encode_stage import EncodeStage
from workers.engine_record import EngineRecord
from workers.metrics import EncodeMetrics

KEY = Key("in/产品.jpg")


@pytest.fixture
def spec(ledger: Ledger, bucket: str) -> RunSpec:
    spec = RunSpec(new_run_id(), bucket, "in/", bucket, "out/", "u2netp", "0" * 64, ("320x320",))
    ledger.create(spec)
    return spec


def listed(ledger: Ledger, spec: RunSpec, etag: str = "e") -> None:
    item = Item(item_id(spec.output_key(KEY)), KEY, ETag(etag), 10, "320x320")
    ledger.list_page(spec.run, 0, [Listing("todo", item, short_hash(KEY))])
    ledger.close_listing(spec.run, 1)


def matted(ledger: Ledger, store: S3Store, spec: RunSpec) -> Job:
    """The message to the encode stage of an image whose alpha is there."""
    listed(ledger, spec, store.put(spec.source_bucket, KEY, photo(1), content_type="image/jpeg"))
    (fed,) = ledger.feed(spec, 1, 1)
    (taken,) = ledger.take(spec.run, fed.queue, fed.fed, [fed.item.id])
    alpha = PackedAlpha(np.zeros((24, 32), np.uint8), {"fetch": 3.5, "infer": 2.25}, "u2netp@sm90")
    (again,) = ledger.hand_over(spec.run, [(taken, pack_alpha(alpha))])
    assert again is not None
    return Job(spec.run, [fed.item.id], [KEY], again, ENCODE_QUEUE)


def test_the_encode_stage_keeps_what_the_matte_stage_knew(
    ledger: Ledger, store: S3Store, settings: Settings, spec: RunSpec
) -> None:
    job = matted(ledger, store, spec)
    store.put(spec.source_bucket, KEY, b"another by now", content_type="image/jpeg")
    with closing(EncodeStage(ledger, store, settings, EncodeMetrics())) as stage:
        stage.encode(job)
    (row,) = ledger.rows(spec.run)
    assert (row["code"], row["engine"]) == ("changed_while_processing", "u2netp@sm90")
    milliseconds = row["ms"]
    assert isinstance(milliseconds, dict)
    assert milliseconds.pop("fetch again") > 0
    assert milliseconds == {"fetch": 3.5, "infer": 2.25}


def no_memory() -> cv2.error:
    error = cv2.error("Failed to allocate 1000000000 bytes")
    error.code = cv2.Error.STS_NO_MEM
    return error


@pytest.mark.parametrize(
    ("step", "error", "tries", "code", "reason"),
    [
        ("make_cutout", KeyError("preview"), 8, "encode_error", "KeyError: 'preview'"),
        ("make_cutout", MemoryError(), 1, "too_large", "It needs more memory than an encode process may use."),
        ("make_cutout", no_memory(), 1, "too_large", "It needs more memory than an encode process may use."),
        ("upload_cutout", KeyError("preview"), 8, "encode_error", "KeyError: 'preview'"),
        # Beside an upload another image is made: whose memory it was nobody knows.
        ("upload_cutout", MemoryError(), 8, "encode_error", "MemoryError"),
    ],
)
def test_an_error_that_nobody_foresaw_ends_its_image_and_not_the_run_never(
    ledger: Ledger,
    store: S3Store,
    settings: Settings,
    spec: RunSpec,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
    tries: int,
    code: str,
    reason: str,
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(workers.encode_stage, step, broken)
    monkeypatch.setattr(pipeline.ledger.ledger, "_BACKOFF", 0)
    job = matted(ledger, store, spec)
    for tried in range(1, tries + 1):
        with closing(EncodeStage(ledger, store, settings, EncodeMetrics())) as stage:
            stage.encode(job)
        assert ledger.counts(spec.run).failed == (tried == tries)
        for fed in ledger.feed(spec, 1, 1):
            job = Job(spec.run, [fed.item.id], [KEY], fed.fed, ENCODE_QUEUE)
    (row,) = ledger.rows(spec.run)
    milliseconds = row["ms"]
    assert isinstance(milliseconds, dict)
    assert row["code"] == code
    assert milliseconds.items() >= {"fetch": 3.5, "infer": 2.25}.items()
    assert reason in str(row["reason"])


def test_what_ends_an_engine_s_process_says_which_engine(ledger: Ledger, settings: Settings, spec: RunSpec) -> None:
    listed(ledger, spec)
    with closing(EngineRecord()) as record:
        for _ in range(settings.max_deaths):
            (fed,) = ledger.feed(spec, 1, 1)
            record.enter(ledger.take(spec.run, fed.queue, fed.fed, [fed.item.id]), "u2netp@sm90")
            batch, engine = record.read()
            ledger.suspect(batch, engine)
        record.leave()
        assert record.read() == ([], "")
    (row,) = ledger.rows(spec.run)
    assert (row["code"], row["engine"]) == ("attempts_exhausted", "u2netp@sm90")
