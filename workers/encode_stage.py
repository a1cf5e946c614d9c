"""The encode stage in one child of a CPU worker: messages ▸ cutouts ▸ uploads, one outcome for each image."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import structlog

from model.codecs.alpha import AlphaError, unpack_alpha
from model.codecs.decode import lacks_memory
from model.codecs.scratch import Scratch
from pipeline.errors import Code, ItemError, PermanentError, TransientError
from pipeline.jobs import ENCODE_QUEUE, Job
from pipeline.ledger import Ledger, Taken
from pipeline.settings import Settings
from pipeline.storage import ObjectStore
from workers.encoding import Made, make_cutout, upload_cutout
from workers.metrics import EncodeMetrics
from workers.preview_sizes import PreviewSizes
from workers.source_cache import SourceCache
from workers.uploads import Uploads

log = structlog.get_logger(__name__)
_SPECS = 100
"""Runs whose specs an encode child remembers."""


class EncodeStage:
    """What an encode child does with its messages: one cutout after the other, and their uploads beside it.

    Close it: then what is on its way arrives.
    """

    def __init__(self, ledger: Ledger, store: ObjectStore, settings: Settings, metrics: EncodeMetrics) -> None:
        self._ledger = ledger
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._cache = SourceCache(settings)
        self._scratch = Scratch()
        self._sizes = PreviewSizes(ledger)
        self._spec = lru_cache(_SPECS)(ledger.spec)
        self._uploads = Uploads(ledger, settings.touch_interval, settings.encode_deadline)

    def close(self) -> None:
        """Wait until all uploads have ended, for half of the grace time; what has not is given back."""
        self._uploads.close(self._settings.grace / 2)

    def encode(self, job: Job) -> None:
        """Take the job's items and make their cutouts; late copies drop out. Their outcome may come later."""
        held = self._ledger.take(job.run_id, ENCODE_QUEUE, job.fed, job.item_ids)
        self._metrics.late(job, len(held))
        for taken in held:
            self._make(taken)

    def _make(self, taken: Taken) -> None:
        run, item = taken.run, taken.item
        try:
            packed = unpack_alpha(taken.alpha or b"")
        except AlphaError as error:
            outcome = self._ledger.lost_alpha(taken, str(error))
            self._metrics.failed(Code.ENGINE_ERROR, outcome)
            log.warning("alpha_lost", run=run, key=item.key, outcome=outcome)
            return
        spec, side = self._spec(run), self._sizes.of(run, item.id)
        try:
            with (
                self._metrics.working_on(item.bytes + packed.alpha.nbytes),
                _errors_of_an_image(taken, packed.milliseconds),
            ):
                made = make_cutout(
                    self._store,
                    self._settings,
                    self._cache,
                    spec,
                    item,
                    packed,
                    self._metrics.took,
                    side,
                    self._scratch,
                )
        except ItemError as error:
            self._failed(taken, error, packed.engine)
            return
        self._uploads.start(
            taken, len(made.cutout.body), lambda: self._upload(taken, made), lambda: self._late(taken, made)
        )

    def _late(self, taken: Taken, made: Made) -> None:
        reason = f"The upload takes more than {self._settings.encode_deadline:g} s."
        error = TransientError(Code.UPLOAD_FAILED, reason)
        error.milliseconds = made.stage.milliseconds
        self._failed(taken, error, made.engine)

    def _upload(self, taken: Taken, made: Made) -> None:
        try:
            with (
                self._metrics.working_on(len(made.cutout.body)),
                _errors_of_an_image(taken, made.stage.milliseconds, alone=False),
            ):
                row = upload_cutout(self._store, made)
        except ItemError as error:
            self._failed(taken, error, made.engine)
            return
        if made.cutout.preview is not None:
            self._ledger.keep_preview(taken, made.cutout.preview)  # before the last image is done, the report begun
        if self._ledger.done(taken, row):
            self._metrics.done()
        log.info("encode", run=taken.run, key=taken.item.key, ms=row["ms"])

    def _failed(self, taken: Taken, error: ItemError, engine: str) -> None:
        outcome = self._ledger.fail(taken, error, engine)
        self._metrics.failed(error.code, outcome)
        log.warning(
            "encode_failed", run=taken.run, key=taken.item.key, code=error.code, error=str(error), outcome=outcome
        )


@contextmanager
def _errors_of_an_image(taken: Taken, milliseconds: Mapping[str, float], *, alone: bool = True) -> Iterator[None]:
    """What nobody foresaw is the image's error too: without an outcome it would come back for ever.

    Args:
        taken: the image.
        milliseconds: what its stages took so far.
        alone: whether a lack of memory is its own doing; beside an upload another image is decoded.
    """
    try:
        yield
    except ItemError:
        raise
    except Exception as error:
        named: ItemError
        if alone and lacks_memory(error):
            named = PermanentError(Code.TOO_LARGE, "It needs more memory than an encode process may use.")
        else:
            log.exception("encode_broke", run=taken.run, key=taken.item.key)
            named = TransientError(Code.ENCODE_ERROR, f"{type(error).__name__}: {error}")
        named.milliseconds = milliseconds
        raise named from error
