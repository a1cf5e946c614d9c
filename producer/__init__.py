"""Producers: list, enqueue, sweep, wait, report; and the command line."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producer.api import Producer, Run, StallError
    from producer.summary import Summary

__all__ = ["Producer", "Run", "StallError", "Summary"]


def __getattr__(name: str) -> object:
    # On first use: the command line must be able to answer Ctrl-C before half a second of imports is over.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from producer import api

    return getattr(api, name)
