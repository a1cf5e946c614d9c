"""The CPU stage of one image: full-size pixels, refined alpha, PNG, atomic upload."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from model.codecs.alpha import PackedAlpha
from model.codecs.decode import decode
from model.codecs.png import encode_png
from model.engines.fake import FAKE
from model.postprocess import cut_out, refine
from pipeline.errors import Code, TransientError
from pipeline.runs import FINGERPRINT, Item, RunSpec
from pipeline.settings import Settings
from pipeline.storage import ObjectStore, PreconditionFailedError

_UPLOAD_TRIES = 3


def make_cutout(
    store: ObjectStore, settings: Settings, spec: RunSpec, item: Item, packed: PackedAlpha
) -> dict[str, object]:
    """Make and upload the cutout of one image; gives its row.

    An output that already has this fingerprint is left alone; another is replaced only if it is still the one that was
    looked at.

    Raises:
        ItemError: what is wrong with this image or its upload.
    """
    milliseconds = dict(packed.milliseconds)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        milliseconds[name] = milliseconds.get(name, 0) + round((time.perf_counter() - started) * 1000, 2)

    with stage("fetch again"):
        body = store.get(spec.source_bucket, item.key, etag=item.etag, max_bytes=settings.max_bytes).body
    with stage("decode full"):
        picture = decode(body, max_megapixels=settings.max_megapixels)
    with stage("refine"):
        rgba = cut_out(picture.rgb, refine(packed.alpha, picture.rgb))
    with stage("encode"):
        png = encode_png(rgba)
    with stage("upload"):
        upload(store, spec, item, png, fake=packed.engine.startswith(FAKE))
    return {
        "key": item.key,
        "outcome": "done",
        "output": spec.output_key(item.key),
        "bytes": item.bytes,
        "output_bytes": len(png),
        "width": picture.full_width,
        "height": picture.full_height,
        "ms": milliseconds,
        "engine": packed.engine,
        "model": spec.model,
    }


def upload(store: ObjectStore, spec: RunSpec, item: Item, png: bytes, *, fake: bool = False) -> None:
    """Write the output so that two who do it at once do no harm.

    Args:
        store: where to.
        spec: the run.
        item: what the output was made from.
        png: the output.
        fake: no network has seen the image: the output never counts as right.

    Raises:
        TransientError: when the output keeps changing under our hands.
    """
    key, fingerprint = spec.output_key(item.key), spec.fingerprint(item.etag, item.bytes)
    if fake:
        fingerprint = f"{FAKE} {fingerprint}"
    metadata: Mapping[str, str] = {FINGERPRINT: fingerprint}
    for _ in range(_UPLOAD_TRIES):
        there = store.head(spec.target_bucket, key)
        if there is not None and there.metadata.get(FINGERPRINT) == fingerprint and not spec.force:
            return
        try:
            store.put(
                spec.target_bucket,
                key,
                png,
                content_type="image/png",
                metadata=metadata,
                if_match=there.etag if there is not None else None,
                if_none_match=there is None,
            )
        except PreconditionFailedError:
            continue
        return
    raise TransientError(Code.UPLOAD_FAILED, "The output changed each time before it could be written.")
