"""One line of what `mattemill doctor` finds."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing; a note is no fault, but good to know."""

    name: str
    state: Literal["ok", "note", "bad"]
    told: str
    hint: str = ""
