"""Where objects may lie: the optional lists of allowed sources and targets."""

import re
from dataclasses import dataclass
from typing import Self

from pipeline.errors import Code, PermanentError, SetupError
from pipeline.ids import Location

_PLACE = re.compile(r"(?:s3://)?([A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:/(.*))?")


@dataclass(frozen=True, slots=True)
class Places:
    """Buckets and folders of buckets; an empty list allows everything.

    A prefix is a folder: "photos/shoes" allows what lies below shoes/, and not shoes-secret/.
    """

    allowed: tuple[Location, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "bucket, bucket/prefix".

        Raises:
            ValueError: when one is no bucket.
        """
        allowed = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            match = _PLACE.fullmatch(part)
            if match is None:
                raise ValueError(f"{part!r} is neither bucket nor bucket/prefix")
            folder = (match[2] or "").strip("/")
            allowed.append(Location(match[1], f"{folder}/" if folder else ""))
        return cls(tuple(allowed))

    def allows(self, bucket: str, key: str) -> bool:
        """Whether an object, or everything below a prefix, lies in an allowed place."""
        if not self.allowed:
            return True
        if any(part in (".", "..") for part in key.split("/")):
            return False  # some stores resolve these, and it would lie elsewhere
        return any(bucket == place.bucket and key.startswith(place.key) for place in self.allowed)

    def check(self, place: Location, what: str, variable: str) -> None:
        """Refuse to start something with a place that is not allowed.

        Raises:
            SetupError: names the place and the variable that forbids it.
        """
        if not self.allows(place.bucket, place.key):
            raise SetupError(f"{place} is no allowed {what}.", f"{variable} lists the allowed ones")

    def check_item(self, bucket: str, key: str, what: str) -> None:
        """Refuse one image, whatever the ledger says: who could write there must not read or write everywhere.

        Raises:
            PermanentError: ACCESS_DENIED.
        """
        if not self.allows(bucket, key):
            raise PermanentError(Code.ACCESS_DENIED, f"s3://{bucket} with this key is no {what} that is allowed here.")
