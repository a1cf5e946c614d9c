"""Debian's machine-readable copyright files: which licence each file of a package is under."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Stanza:
    """One paragraph: files, by patterns in which * and ? also match slashes, and their licence as it is written."""

    patterns: tuple[re.Pattern[str], ...]
    licence: str


def read_copyright(text: str) -> list[Stanza]:
    """The paragraphs about files, in order; empty when the file is not machine-readable (DEP 5)."""
    if not re.match(r"(?i)format(-specification)?:", text):
        return []
    stanzas = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(Files|License):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE))
        if "Files" in fields and "License" in fields:
            patterns = tuple(_compile(pattern) for pattern in fields["Files"].split())
            stanzas.append(Stanza(patterns, fields["License"].split("\n")[0].strip()))
    return stanzas


def licence_of(path: str, stanzas: Sequence[Stanza]) -> str | None:
    """What the last matching paragraph says; one that is for everything (`*`) does not count.

    A copyright file speaks of source paths, and packages convert pictures on the way: so the path's tail decides, and
    its suffix does not.
    """
    stem = str(PurePosixPath(path).with_suffix(""))
    found = None
    for stanza in stanzas:
        for pattern in stanza.patterns:
            if pattern.pattern != ".*" and pattern.search(stem):
                found = stanza.licence
    return found


def _compile(pattern: str) -> re.Pattern[str]:
    if pattern == "*":
        return re.compile(".*")
    stem = re.sub(r"\.[A-Za-z]{3,4}$", "", pattern)
    body = re.escape(stem).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(rf"(?:^|/){body}$")
