"""Which of the listed keys a sweep takes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Self

from pipeline.ids import Key
from pipeline.runs import RunSpec, is_image_name


@dataclass(frozen=True, slots=True)
class Selection:
    """Shell patterns over the part of a key below the swept prefix; `*` also matches "/".

    Attributes:
        include: when there are any, a key must match one of them.
        exclude: a key that matches one of them is left out.
        limit: the most keys to take; None takes all.
        any_name: of keys whose names do not end like an image's, take those whose first bytes are an image's.
        named: the keys were named one by one; nothing was listed, and no other key belongs to the run.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    any_name: bool = False
    named: bool = False

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """From what JSON has made of `dump`."""
        tuples: dict[str, Any] = {name: tuple(fields.get(name, ())) for name in ("include", "exclude")}
        return cls(**{**fields, **tuples})

    def takes(self, spec: RunSpec, key: Key) -> bool:
        """Whether this key belongs to the sweep, as far as its name tells."""
        if spec.is_own_output(key) or not (self.any_name or is_image_name(key)):
            return False
        name = key[len(spec.source_prefix) :]
        if self.include and not any(fnmatchcase(name, pattern) for pattern in self.include):
            return False
        return not any(fnmatchcase(name, pattern) for pattern in self.exclude)
