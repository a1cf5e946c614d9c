"""How full Redis is, and who stops at what: see docs/decisions/0011-memory-limit.md."""

from collections.abc import Mapping
from typing import cast

import redis

LISTING_LIMIT = 0.7
"""Share of maxmemory from which nothing more is listed."""

FEEDING_LIMIT = 0.8
"""Share of maxmemory from which engines are fed no more; above the other, so that what is listed can always go on."""


def fill(client: redis.Redis) -> float:
    """Share of Redis's maxmemory that is used, as Redis counts it before it refuses writes; 0.0 without a limit."""
    return share(cast("Mapping[str, int]", client.info("memory")))


def share(info: Mapping[str, int]) -> float:
    """The same, from what the command INFO says."""
    limit = info.get("maxmemory", 0)
    return (info["used_memory"] - info.get("mem_not_counted_for_evict", 0)) / limit if limit else 0.0
