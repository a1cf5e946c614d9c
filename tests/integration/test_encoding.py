"""The CPU stage against a real S3 server."""

import io
import itertools
from collections.abc import Iterator
from unittest.mock import Mock

import boto3
import cv2
import numpy as np
import pytest
from PIL import Image

from model.codecs.alpha import PackedAlpha
from model.engines.fake import FakeEngine
from pipeline.errors import Code, ItemError, PermanentError, TransientError
from pipeline.ids import ETag, Key, RunId, SizeBucket
from pipeline.recipe import Recipe
from pipeline.recipe_text import parse_recipe, recipe_text
from pipeline.runs import FINGERPRINT, Item, RunSpec, item_id, new_run_id
from pipeline.s3 import S3Store
from pipeline.settings import Settings
from pipeline.storage import Head, ObjectStore
from tests.drawings import composed, disc, shrunk
from workers.encoding import make_cutout, upload, upload_cutout
from workers.source_cache import SourceCache

ENGINE = "onnxruntime"


@pytest.fixture
def store(settings: Settings, aws_session: boto3.Session) -> Iterator[S3Store]:
    with S3Store(settings, session=aws_session) as opened:
        yield opened


class Job:
    """One photo in a bucket, and what makes its cutout."""

    def __init__(self, store: S3Store, bucket: str, settings: Settings) -> None:
        self.store, self.bucket, self.settings = store, bucket, settings
        alpha = disc(240, 320)
        ok, data = cv2.imencode(".jpg", composed(alpha, (250, 60, 30), (30, 80, 220)))
        assert ok
        etag = store.put(bucket, Key("in/sub/a 产品.jpg"), data.tobytes(), content_type="image/jpeg")
        self.alpha = shrunk(alpha, 3)
        self.item = Item(item_id(Key("x")), Key("in/sub/a 产品.jpg"), etag, len(data), "80x107")

    def spec(self, recipe: str = "png", *, force: bool = False, model: str = "u2netp") -> RunSpec:
        return RunSpec(
            RunId("r"), self.bucket, "in/", self.bucket, "out/", model, "0" * 64, ("80x107",), recipe, force=force
        )

    def make(self, spec: RunSpec, engine: str = ENGINE) -> dict[str, object]:
        packed = PackedAlpha(self.alpha, {}, engine)
        made = make_cutout(self.store, self.settings, SourceCache(self.settings), spec, self.item, packed)
        return upload_cutout(self.store, made)

    def head(self, spec: RunSpec) -> Head:
        found = self.store.head(self.bucket, spec.output_key(self.item.key))
        assert found is not None
        return found

    def body(self, key: str) -> bytes:
        return self.store.get(self.bucket, Key(key), max_bytes=1 << 24).body


@pytest.fixture
def job(store: S3Store, s3_bucket: str, settings: Settings) -> Iterator[Job]:
    yield Job(store, s3_bucket, settings)
    for row in store.list_page(s3_bucket, "").objects:
        store.delete(s3_bucket, row.key)


def test_a_cutout_says_what_it_was_made_from(job: Job) -> None:
    spec = job.spec("webp=90,max-side=100,name={stem}, 切.webp".replace(", ", "%2C "))
    row = job.make(spec)
    head = job.head(spec)
    assert row["output"] == "out/sub/a 产品, 切.webp"
    assert head.metadata[FINGERPRINT] == spec.fingerprint(job.item.etag, job.item.bytes)
    assert head.metadata["mattemill-source-etag"] == job.item.etag
    assert head.metadata["mattemill-model"] == "u2netp@" + "0" * 16
    assert head.metadata["mattemill-size"] == "100x75"
    assert head.metadata["mattemill-recipe"].startswith("webp=90,max-side=100,")
    assert (row["width"], row["height"]) == (320, 240)
    with Image.open(io.BytesIO(job.body(str(row["output"])))) as image:
        assert (image.format, image.size) == ("WEBP", (100, 75))


def test_a_new_output_is_written_unseen_and_a_run_that_replaces_looks_first(job: Job) -> None:
    seen = Mock(wraps=job.store)
    job.store = seen

    def asked(spec: RunSpec) -> list[str]:
        seen.reset_mock()
        job.make(spec)
        return [call[0] for call in seen.method_calls if call[0] != "get"]

    assert asked(job.spec().with_run(new_run_id())) == ["put"]
    other = job.spec("despill=off").with_run(new_run_id())
    assert asked(other) == ["put", "head", "put"]
    job.store.delete(job.bucket, other.output_key(job.item.key))
    assert asked(other) == ["head", "put"]


@pytest.mark.parametrize(
    ("recipe", "content_type"), [("png", "image/png"), ("alpha", "image/png"), ("background=#fff", "image/jpeg")]
)
def test_content_type(job: Job, s3_client: object, recipe: str, content_type: str) -> None:
    row = job.make(job.spec(recipe))
    answer = s3_client.head_object(Bucket=job.bucket, Key=str(row["output"]))  # type: ignore[attr-defined]
    assert answer["ContentType"] == content_type


def test_what_is_right_is_left_alone_and_what_is_not_is_replaced(job: Job) -> None:
    spec = job.spec()
    job.make(spec)
    first = job.head(spec)
    tampered = job.store.put(
        job.bucket, spec.output_key(job.item.key), b"x", content_type="image/png", metadata=first.metadata
    )
    job.make(spec)
    assert job.head(spec).etag == tampered  # its fingerprint is right, so it is not even read
    kept = job.make(spec)
    assert (kept["output_etag"], kept["output_bytes"]) == (tampered, job.head(spec).bytes)  # of what is there
    job.make(job.spec(force=True))
    assert job.head(spec).etag == first.etag
    job.make(job.spec("despill=off"))
    assert job.head(spec).etag != first.etag


def test_what_a_fake_engine_made_never_counts_as_right(job: Job) -> None:
    spec = job.spec()
    with FakeEngine(1, (SizeBucket(80, 107),), 1) as fake:
        job.make(spec, fake.name)
    assert job.head(spec).metadata[FINGERPRINT] != spec.fingerprint(job.item.etag, job.item.bytes)
    job.make(spec)
    assert job.head(spec).metadata[FINGERPRINT] == spec.fingerprint(job.item.etag, job.item.bytes)


def test_a_source_that_changed_meanwhile(job: Job) -> None:
    job.store.put(job.bucket, job.item.key, b"another", content_type="image/jpeg")
    with pytest.raises(PermanentError) as caught:
        job.make(job.spec())
    assert caught.value.code is Code.CHANGED_WHILE_PROCESSING


def test_a_background_image(job: Job) -> None:
    ok, wall = cv2.imencode(".png", np.full((50, 60, 3), (100, 200, 10), np.uint8))
    assert ok
    etag = job.store.put(job.bucket, Key("walls/a.png"), wall.tobytes(), content_type="image/png")
    spec = job.spec(recipe_text(parse_recipe("png,background=walls/a.png").pinned(etag)))
    for _ in range(2):
        row = job.make(spec)
    with Image.open(io.BytesIO(job.body(str(row["output"])))) as image:
        assert image.getpixel((0, 0)) == (10, 200, 100)
    gone = job.spec(recipe_text(Recipe(background=f"s3://{job.bucket}/walls/b.png", background_etag="0" * 32)))
    with pytest.raises(PermanentError, match=r"background image .*walls/b\.png") as caught:
        job.make(gone)
    assert caught.value.code is Code.NOT_FOUND


def test_a_suspicious_matte_is_flagged_in_its_row(job: Job) -> None:
    assert "suspects" not in job.make(job.spec())
    job.alpha = np.zeros_like(job.alpha)
    assert job.make(job.spec("alpha"))["suspects"] == ["empty"]


class Sick:
    """A store whose next writes fail in a given way; all else is the real one."""

    def __init__(self, store: ObjectStore, errors: list[ItemError], *, written: bool = False) -> None:
        self._store, self._errors, self._written = store, errors, written
        self.puts = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put(self, *args: object, **options: object) -> ETag:
        self.puts += 1
        if self._errors:
            if self._written:
                self._store.put(*args, **options)  # type: ignore[arg-type]
            raise self._errors.pop(0)
        return self._store.put(*args, **options)  # type: ignore[arg-type]


def busy() -> TransientError:
    return TransientError(Code.UPLOAD_FAILED, "busy")


class TestUpload:
    def go(self, job: Job, sick: Sick, *, force: bool = False, seconds: float = 0) -> list[float]:
        """Upload; each look at the clock finds it so many `seconds` later. Gives the pauses."""
        from model.cutout import Cutout

        slept: list[float] = []
        cutout, clock = Cutout(b"png", 1, 1, 1, 1, (), False), itertools.count(0, seconds)
        upload(
            sick,  # type: ignore[arg-type]
            job.spec(force=force),
            job.item,
            cutout,
            ENGINE,
            sleep=slept.append,
            clock=lambda: next(clock),
        )
        return slept

    def test_it_is_tried_again_with_growing_pauses(self, job: Job) -> None:
        sick = Sick(job.store, [busy(), busy(), busy()])
        slept = self.go(job, sick)
        assert sick.puts == 4
        assert [0.125 * 2**n <= pause <= 0.375 * 2**n for n, pause in enumerate(slept)] == [True] * 3
        assert job.body("out/sub/a 产品.png") == b"png"

    def test_in_the_end_it_goes_back_to_the_ledger(self, job: Job) -> None:
        with pytest.raises(TransientError, match="busy"):
            self.go(job, Sick(job.store, [busy() for _ in range(4)]))

    def test_after_half_a_minute_no_further_try_is_begun(self, job: Job) -> None:
        sick = Sick(job.store, [busy() for _ in range(3)])
        with pytest.raises(TransientError, match="busy"):
            self.go(job, sick, seconds=20)
        assert sick.puts == 2

    @pytest.mark.parametrize("force", [False, True])
    def test_a_try_that_was_written_and_not_answered_is_found(self, job: Job, force: bool) -> None:
        sick = Sick(job.store, [busy()], written=True)
        self.go(job, sick, force=force)
        assert sick.puts == 1

    def test_a_refusal_is_not_tried_again(self, job: Job) -> None:
        sick = Sick(job.store, [PermanentError(Code.UPLOAD_FAILED, "no")])
        with pytest.raises(PermanentError):
            self.go(job, sick)
        assert sick.puts == 1
