"""The CPU stage of one image: full-size pixels, refined alpha, the recipe; and then its atomic upload."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from model.codecs.alpha import PackedAlpha
from model.codecs.decode import decode
from model.codecs.scratch import Scratch
from model.cutout import Cutout
from model.cutout import make_cutout as cutout_of
from model.engines.fake import FAKE
from pipeline.errors import Code, ItemError, TransientError
from pipeline.ids import ETag, Key, Location, RunId
from pipeline.places import Places
from pipeline.recipe import Recipe
from pipeline.recipe_text import parse_recipe
from pipeline.runs import FINGERPRINT, PIXEL_PATH, Item, RunSpec
from pipeline.settings import Settings
from pipeline.storage import ObjectStore, PreconditionFailedError
from workers.source_cache import SourceCache
from workers.stopwatch import Stopwatch

_UPLOAD_TRIES = 4
_FIRST_PAUSE = 0.25
_UPLOAD_SECONDS = 30.0
"""After which no further try is begun: a server that hangs must not hold up the child's other images for long."""


@dataclass(frozen=True, slots=True)
class Made:
    """A cutout that is to be uploaded.

    Attributes:
        spec: of its run.
        item: whose it is.
        cutout: the body of the output, and what is told of it.
        engine: what has made its matte.
        stage: what the stages so far took; the upload is added.
    """

    spec: RunSpec
    item: Item
    cutout: Cutout
    engine: str
    stage: Stopwatch


def make_cutout(
    store: ObjectStore,
    settings: Settings,
    cache: SourceCache,
    spec: RunSpec,
    item: Item,
    packed: PackedAlpha,
    took: Callable[[str, float], object] = lambda stage, milliseconds: None,
    preview_side: int = 0,
    scratch: Scratch | None = None,
) -> Made:
    """Make the cutout of one image, and tell `took` what each stage took.

    Raises:
        ItemError: what is wrong with this image.
    """
    recipe = parse_recipe(spec.recipe)
    stage = Stopwatch(packed.milliseconds, took)
    with stage("fetch again"):
        _check_places(settings, spec, item, recipe)
        body = cache.take(spec.source_bucket, item.key, item.etag, item.bytes)
        if body is None:
            body = store.get(spec.source_bucket, item.key, etag=item.etag, max_bytes=settings.max_bytes).body
        background = _background.of(store, settings, spec, recipe)
    cutout = cutout_of(body, packed.alpha, recipe, background, settings.max_megapixels, stage, preview_side, scratch)
    return Made(spec, item, cutout, packed.engine, stage)


def upload_cutout(store: ObjectStore, made: Made) -> dict[str, object]:
    """Upload a cutout; gives the row of its image.

    An output that already has this fingerprint is left alone; another is replaced only if it is still the one that was
    looked at.

    Raises:
        ItemError: what is wrong with the upload.
    """
    spec, item, cutout = made.spec, made.item, made.cutout
    with made.stage("upload"):
        output_etag, output_bytes = upload(store, spec, item, cutout, made.engine)
    row: dict[str, object] = {
        "key": item.key,
        "outcome": "done",
        "output": spec.output_key(item.key),
        "bytes": item.bytes,
        "etag": item.etag,
        "output_bytes": output_bytes,
        "output_etag": output_etag,
        "fingerprint": stamp(spec, item, cutout, made.engine)[FINGERPRINT],
        "width": cutout.photo_width,
        "height": cutout.photo_height,
        "ms": made.stage.milliseconds,
        "engine": made.engine,
        "model": spec.model,
    }
    if cutout.suspects:
        row["suspects"] = list(cutout.suspects)
    if cutout.own_alpha:
        row["own_alpha"] = True
    return row


def _check_places(settings: Settings, spec: RunSpec, item: Item, recipe: Recipe) -> None:
    sources, targets = Places.parse(settings.allowed_sources), Places.parse(settings.allowed_targets)
    sources.check_item(spec.source_bucket, item.key, "source")
    if (background := recipe.background_image(spec.source_bucket)) is not None:
        sources.check_item(background.bucket, background.key, "source")
    targets.check_item(spec.target_bucket, spec.output_key(item.key), "target")


def upload(
    store: ObjectStore,
    spec: RunSpec,
    item: Item,
    cutout: Cutout,
    engine: str,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[ETag, int]:
    """Write the output so that two who do it at once do no harm; gives ETag and bytes of what is there then.

    Most outputs are new: the first try is to write one that was not there. Where there was one, or a try broke off and
    nobody knows whether it wrote, the store is looked at first; so it is for the rest of a run that replaces outputs.

    Raises:
        PermanentError: when the store refuses.
        TransientError: when it could not be written in four tries, or half a minute of them, or keeps changing under
            our hands.
    """
    began = clock()
    recipe, key = parse_recipe(spec.recipe), spec.output_key(item.key)
    metadata = stamp(spec, item, cutout, engine)
    last = TransientError(Code.UPLOAD_FAILED, "the output changed each time before it could be written")

    def write(over: ETag | None) -> tuple[ETag, int]:
        etag = store.put(
            spec.target_bucket,
            key,
            cutout.body,
            content_type=recipe.content_type,
            metadata=metadata,
            if_match=over,
            if_none_match=over is None,
        )
        return etag, len(cutout.body)

    for tried in range(_UPLOAD_TRIES):
        if tried:
            if clock() - began > _UPLOAD_SECONDS:
                break
            sleep(_FIRST_PAUSE * 2 ** (tried - 1) * random.uniform(0.5, 1.5))  # noqa: S311 - to spread the load
        try:
            if not tried and not spec.force and spec.run != _replacing.run:
                with suppress(PreconditionFailedError):
                    return write(None)
            there = store.head(spec.target_bucket, key)
            # With `force` the first look does not count, but what another try has written meanwhile does.
            right = there is not None and there.metadata.get(FINGERPRINT) == metadata[FINGERPRINT]
            if there is not None and right and (tried or not spec.force):
                return there.etag, there.bytes
            if there is not None:
                _replacing.run = spec.run
            return write(there.etag if there is not None else None)
        except PreconditionFailedError:
            continue
        except TransientError as error:
            last = error
    raise last


def stamp(spec: RunSpec, item: Item, cutout: Cutout, engine: str) -> dict[str, str]:
    """The metadata of an output: its fingerprint, and in words what it was made from.

    What a fake engine made gets a fingerprint that nothing else has, so it never counts as already right.
    """
    fingerprint = spec.fingerprint(item.etag, item.bytes)
    return {
        FINGERPRINT: f"{FAKE} {fingerprint}" if engine.startswith(FAKE) else fingerprint,
        "mattemill-source-etag": quote(item.etag),
        "mattemill-model": quote(f"{spec.model}@{spec.weights[:16]}", safe="@/"),
        "mattemill-pixel-path": str(PIXEL_PATH),
        "mattemill-recipe": quote(spec.recipe, safe="=,#{}%/: "),
        "mattemill-size": f"{cutout.width}x{cutout.height}",
    }


class _Replacing:
    """The last run that was seen to replace outputs: its others are likely to stand there too."""

    run: RunId | None = None


_replacing = _Replacing()


class _Background:
    """The background image of the last run that had one, decoded: all images of a run have the same."""

    def __init__(self) -> None:
        self._kept: tuple[Location, ETag, npt.NDArray[np.uint8]] | None = None

    def of(self, store: ObjectStore, settings: Settings, spec: RunSpec, recipe: Recipe) -> npt.NDArray[np.uint8] | None:
        """The pixels, uint8 [h, w, 3], without any transparency that the image has; None where there is none.

        Raises:
            ItemError: when it cannot be had or read.
        """
        place, etag = recipe.background_image(spec.source_bucket), ETag(recipe.background_etag)
        if place is None:
            return None
        if self._kept is None or self._kept[:2] != (place, etag):
            try:
                fetched = store.get(place.bucket, Key(place.key), etag=etag or None, max_bytes=settings.max_bytes)
                picture = decode(fetched.body, max_megapixels=settings.max_megapixels)
            except ItemError as error:
                raise type(error)(error.code, f"the background image {place}: {error.reason}") from error
            self._kept = (place, etag, picture.rgb)
        return self._kept[2]


_background = _Background()
