"""Lengths of time as people write them: 90m, 12h, 30d, 8w."""

import re

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds_of(text: str) -> int:
    """Read a length of time, in seconds.

    Raises:
        ValueError: when it is none.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", text)
    if match is None:
        raise ValueError(f"{text!r} is no length of time: write 12h, 30d or 8w")
    return int(match[1]) * _SECONDS[match[2]]
