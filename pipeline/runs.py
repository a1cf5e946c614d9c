"""What a run is: where from, where to, which model, which recipe; and what follows from that for each key."""

import base64
import builtins
import hashlib
import json
import posixpath
import secrets
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Self

from pipeline.errors import SetupError
from pipeline.ids import ETag, ItemId, Key, Location, RunId
from pipeline.jobs import MessageError
from pipeline.recipe_text import parse_recipe

PIXEL_PATH = 4
"""Raise it whenever the same source, model and recipe give other pixels than before."""

FINGERPRINT = "mattemill-fingerprint"
"""Name of the metadata entry of every cutout that says what it was made from."""

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif",
)  # fmt: skip
HIGH, NORMAL = 0, 6
"""Message priorities: Redis serves 0 first."""


class NewerRunError(SetupError, MessageError):
    """A newer version has started this run, and what it asks for is not known here.

    A worker leaves its messages, as it leaves those that it cannot read: the ledger feeds the images again.
    """

    def __init__(self, run: str, unknown: str) -> None:
        super().__init__(
            f"Run {run:.40} was started by a newer Mattemill: {unknown:.200} is not known here.",
            "upgrade this worker, page or command line; until then its images wait",
        )


@dataclass(frozen=True, slots=True)
class RunSpec:
    """The immutable part of a run.

    Attributes:
        run: the run's id.
        source_bucket: S3 bucket of the sources.
        source_prefix: what all source keys begin with; the rest of a key is kept in the output's key.
        target_bucket: S3 bucket of the outputs.
        target_prefix: what all output keys begin with.
        model: name of the model.
        weights: sha256 of its weights.
        recipe: what the cutout is, as text; `pipeline.recipe_text` reads it.
        priority: `HIGH` or `NORMAL`.
        force: make outputs again that are already right.
        chunk: keys in one message; 0 lets the feeder choose.
        reports_bucket: S3 bucket of the reports; "" puts them beside the outputs.
        reports_prefix: what the keys of the reports begin with, when there is a bucket.
        sweep: name of the sweep in the file of named sweeps; "" when it was started otherwise.
    """

    run: RunId
    source_bucket: str
    source_prefix: str
    target_bucket: str
    target_prefix: str
    model: str
    weights: str
    size_buckets: tuple[str, ...]
    recipe: str = "png"
    priority: int = NORMAL
    force: bool = False
    chunk: int = 0
    reports_bucket: str = ""
    reports_prefix: str = ""
    sweep: str = ""

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> Self:
        """From JSON of `dump`, of this version or an older one.

        Raises:
            NewerRunError: when a newer version has put something there that this one does not know.
        """
        given = json.loads(text)
        if unknown := sorted(given.keys() - {field.name for field in fields(cls)}):
            raise NewerRunError(given["run"], f"its field {', '.join(map(repr, unknown))}")
        spec = cls(**{**given, "run": RunId(given["run"]), "size_buckets": tuple(given["size_buckets"])})
        try:
            parse_recipe(spec.recipe)
        except SetupError as error:
            raise NewerRunError(spec.run, f"its recipe {spec.recipe!r}") from error
        return spec

    @property
    def source(self) -> Location:
        """Where from, for people."""
        return Location(self.source_bucket, self.source_prefix)

    @property
    def target(self) -> Location:
        """Where to, for people."""
        return Location(self.target_bucket, self.target_prefix)

    @property
    def reports(self) -> Location:
        """Where manifest, summary and report go; the underscore folder is never swept."""
        if self.reports_bucket:
            return Location(self.reports_bucket, f"{self.reports_prefix}_mattemill/{self.run}/")
        return Location(self.target_bucket, f"{self.target_prefix}_mattemill/{self.run}/")

    @property
    def pointer(self) -> Key:
        """The key, in the reports' bucket, of what names the last manifest of this source and target."""
        folder = self.reports.key.removesuffix(f"{self.run}/")
        return Key(f"{folder}latest-{short_hash(f'{self.source} {self.target}')}.json")

    def output_key(self, key: Key) -> Key:
        """The output's key: the target prefix, the source's folders below the source prefix, the recipe's name."""
        relative = key[len(self._folder) :] if key.startswith(self._folder) else posixpath.basename(key)
        return Key(self.target_prefix + parse_recipe(self.recipe).output_name(relative))

    @property
    def _folder(self) -> str:
        """The folder part of the source prefix: "photos/2026-" lists by name, but folders below photos/ are kept."""
        return self.source_prefix[: self.source_prefix.rfind("/") + 1]

    def is_own_output(self, key: Key) -> bool:
        """Whether a source key lies below the output prefix of the same bucket, and so must never be swept.

        With an output prefix at or above the source prefix only the reports' folder can be told apart.
        """
        if self.source_bucket != self.target_bucket:
            return False
        if self.source_prefix.startswith(self.target_prefix):
            return key.startswith(f"{self.target_prefix}_mattemill/")
        return key.startswith(self.target_prefix)

    def fingerprint(self, etag: ETag, size: int) -> str:
        """What an output made now from this source would be: 32 hexadecimal digits."""
        parts = [etag, str(size), self.model, self.weights, str(PIXEL_PATH), self.recipe]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def with_run(self, run: RunId) -> Self:
        """The same under another id."""
        return replace(self, run=run)


@dataclass(frozen=True, slots=True)
class Item:
    """One source key of a run, as the ledger keeps it while it is not finished."""

    id: ItemId
    key: Key
    etag: ETag
    bytes: int
    size_bucket: str

    def dump(self) -> str:
        """As compact JSON, without the id."""
        return json.dumps(
            [self.key, self.etag, self.bytes, self.size_bucket], ensure_ascii=False, separators=(",", ":")
        )

    @classmethod
    def load(cls, id: ItemId, text: "str | builtins.bytes") -> Self:
        """From JSON of `dump`.

        Raises:
            NewerRunError: when a newer version has written more than this one knows.
        """
        known = 4
        key, etag, size, size_bucket, *unknown = json.loads(text)
        if unknown:
            raise NewerRunError(f"of {key}", f"an item of {known + len(unknown)} parts, where {known} were expected,")
        return cls(id, Key(key), ETag(etag), size, size_bucket)


def new_run_id() -> RunId:
    """A run id that sorts by time: "20261124-041233-9f3a1c"."""
    return RunId(f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}")


def item_id(output: Key) -> ItemId:
    """An item is known by its output: 12 characters, 72 bits."""
    return ItemId(short_hash(output))


def short_hash(text: str) -> str:
    """72 bits of SHA-256 as 12 URL-safe characters."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:9]).decode()


def is_image_name(key: Key) -> bool:
    """Whether a key's name ends like an image's."""
    return key.lower().endswith(IMAGE_SUFFIXES)


def matte_queue(model: str, size_bucket: str) -> str:
    """The queue whose messages the GPU workers of this model and size bucket take."""
    return f"matte.{model}.{size_bucket}"
