"""Producers: list, enqueue, sweep, wait, report; and the command line."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producer.api import Producer
    from producer.run import Run, StallError
    from producer.selection import Selection
    from producer.summary import Summary

__all__ = ["Producer", "Run", "Selection", "StallError", "Summary"]
_HOMES = {"Producer": "api", "Run": "run", "Selection": "selection", "StallError": "run", "Summary": "summary"}


def __getattr__(name: str) -> object:
    # On first use: the command line must be able to answer Ctrl-C before half a second of imports is over.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"producer.{_HOMES[name]}"), name)
