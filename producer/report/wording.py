"""Numbers, times and hostile keys as a person reads them."""

import unicodedata
from datetime import UTC, datetime

from markupsafe import Markup, escape

# Zero-width characters and bidirectional controls: invisible themselves, they make one key look like another.
# U+200C and U+200D stay: Persian words and emoji need them.
_INVISIBLE = frozenset(
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2028\u2029\u2060\u2066\u2067\u2068\u2069\ufeff\ufffe\uffff"
)
# strftime would follow the locale of the machine.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
# Control characters, and lone surrogates, which no UTF-8 file can hold.
_UNPRINTABLE_CATEGORIES = frozenset({"Cc", "Cs"})


def _is_deceptive(character: str) -> bool:
    return character in _INVISIBLE or unicodedata.category(character) in _UNPRINTABLE_CATEGORIES


def plain_key(text: str) -> str:
    """Write a key for an attribute or a title: deceptive characters become `[U+202E]`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"[U+{ord(c):04X}]" if _is_deceptive(c) else c for c in text)


def visible_key(text: str) -> Markup:
    """Write a key as HTML: escaped, isolated, deceptive characters shown by their number.

    A key is a path: it reads from left to right even if its first letter is Hebrew or Arabic.
    """
    if text.isascii() and text.isprintable():
        shown = escape(text)
    else:
        shown = Markup("").join(
            Markup('<span class="codepoint">U+{}</span>').format(f"{ord(c):04X}") if _is_deceptive(c) else c
            for c in text
        )
    return Markup('<bdi class="key" dir="ltr">{}</bdi>').format(shown)


def count(number: int) -> str:
    """Write a count: `12,480`."""
    return f"{number:,}"


def images(number: int) -> str:
    """Write a number of images: `1 image`, `12,480 images`."""
    return f"{number:,} image" if number == 1 else f"{number:,} images"


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}"


def rate(per_second: float) -> str:
    """Write a throughput in images/s: `0.83`, `12.4`, `1,204`."""
    return _three_digits(per_second)


def milliseconds(value: float) -> str:
    """Write a short duration given in milliseconds: `0.4 ms`, `183 ms`, `1.24 s`."""
    if value >= 999.5:
        return duration(value / 1000) if value >= 99_950 else f"{_three_digits(value / 1000)}\u00a0s"
    return f"{value:.1f}\u00a0ms" if 0 < value < 9.95 else f"{value:.0f}\u00a0ms"


def duration(seconds: float) -> str:
    """Write a duration given in seconds: `8.4 s`, `4 min 12 s`, `3 h 5 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f}\u00a0s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours:,}\u00a0h {minutes}\u00a0min"
    return f"{minutes}\u00a0min {left}\u00a0s"


def size(number: int) -> str:
    """Write a number of bytes in powers of 1000: `512 B`, `41.2 kB`, `1.30 MB`."""
    if number < 1000:
        return f"{number}\u00a0B"
    if number < 999_500:
        return f"{_three_digits(number / 1e3)}\u00a0kB"
    if number < 999_500_000:
        return f"{_three_digits(number / 1e6)}\u00a0MB"
    return f"{_three_digits(number / 1e9)}\u00a0GB"


def moment(when: datetime) -> str:
    """Write an aware time in UTC: `2026-11-24 04:14:09 UTC`."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(when: datetime) -> str:
    """Write the UTC date of an aware time: `24 November 2026`."""
    utc = when.astimezone(UTC)
    return f"{utc.day} {_MONTHS[utc.month - 1]} {utc.year}"
