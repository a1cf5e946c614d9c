"""Reads the files in docker/, as Docker Compose would."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"
KUBERNETES = sorted((DOCKER / "kubernetes").glob("*.yaml"))
VALUES = dict.fromkeys(
    (
        "MATTEMILL_REDIS_PASSWORD",
        "MATTEMILL_WEB_PASSWORD",
        "FLOWER_PASSWORD",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    ),
    "secret",
)
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-?])([^}]*))?\})")


def documents(path: Path) -> list[Any]:
    """Every document of a YAML file; the test is skipped where PyYAML is not installed."""
    yaml = pytest.importorskip("yaml", reason="reading YAML takes PyYAML: pip install pyyaml")
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def compose(values: Mapping[str, str]) -> Any:
    """compose.yaml with these variables filled in, and extension fields left out."""
    (document,) = documents(COMPOSE)
    return {name: filled(part, values) for name, part in document.items() if not name.startswith("x-")}


def filled(part: Any, values: Mapping[str, str]) -> Any:
    """The same with every variable replaced; KeyError for one that is required and not there."""
    if isinstance(part, dict):
        return {name: filled(value, values) for name, value in part.items()}
    if isinstance(part, list):
        return [filled(value, values) for value in part]
    if not isinstance(part, str):
        return part

    def value(match: re.Match[str]) -> str:
        dollar, name, operator, word = match.groups()
        if dollar:
            return "$"
        found = values.get(name)
        if found is None or (found == "" and operator in (":-", ":?")):
            if operator in ("-", ":-"):
                return str(word)
            raise KeyError(name)
        return found

    return _VARIABLE.sub(value, part)


def image_environment(dockerfile: Path) -> dict[str, str]:
    """What the last stage of a Dockerfile sets with ENV, without PATH."""
    stage = dockerfile.read_text().replace("\\\n", " ").rpartition("\nFROM ")[2]
    pairs = re.findall(r"^ENV (.*)$", stage, re.MULTILINE)
    found = dict(pair.split("=", 1) for line in pairs for pair in line.split())
    found.pop("PATH")
    return found


def seconds(text: str) -> float:
    """A duration as Compose writes it: 75s, 3m."""
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]
