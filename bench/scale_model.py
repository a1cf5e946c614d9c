"""What a night needs, on paper: from the points of `bench.scale` to servers, cores and bytes.

Every cost is taken to be the same for each image, so needs grow in a straight line; `check` holds that against points
that the model has not seen.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Result: TypeAlias = dict[str, Any]
"""What lies in bench/results/scale.json."""
_MEMORY = Path(__file__).parent / "results" / "ledger_memory.json"
_LIFTS = {
    "redis": "a Redis for each part of the workers",
    "housekeeping": "a Redis for each part of the workers; each has a leader of its own",
    "producer": "more than one sweep at once",
}
"""What there is one of in an installation, and what lifts it."""
_SECTION = re.compile(r"<!-- (?P<name>[a-z]+) -->\n.*?<!-- end -->", re.DOTALL)


@dataclass(frozen=True)
class Night:
    """How much in how long on how many GPUs."""

    images: float = 100e6
    hours: float = 8
    gpus: int = 64

    @property
    def images_per_second(self) -> float:
        return self.images / self.hours / 3600


@dataclass(frozen=True)
class Costs:
    """What one image costs.

    Attributes:
        cpu_ms: processor milliseconds by role.
        redis_commands: that Redis carries out.
        redis_bytes: that go to it and come from it.
        item_bytes: memory in Redis while it waits.
    """

    cpu_ms: Mapping[str, float]
    redis_commands: float
    redis_bytes: float
    item_bytes: float


def costs(point: Result, item_bytes: float) -> Costs:
    loads = point["redis_per_image"].values()
    return Costs(
        cpu_ms=point["cpu_ms_per_image"],
        redis_commands=sum(load["commands"] for load in loads),
        redis_bytes=sum(load["received"] + load["sent"] for load in loads),
        item_bytes=item_bytes,
    )


def ledger_memory() -> float:
    """Bytes in Redis of an item that waits, of the largest run that was measured."""
    runs = json.loads(_MEMORY.read_text())["runs"]
    return float(max(runs, key=lambda run: run["items"])["bytes_per_item"]["todo"])


def limits(cost: Costs) -> dict[str, float]:
    """Images/s at which each of those that there is one of has no time left, on a core as of the bench."""
    return {role: 1000 / cost.cpu_ms[role] for role in _LIFTS if cost.cpu_ms.get(role)}


def needs(night: Night, cost: Costs) -> dict[str, str]:
    """What the night needs, in words and numbers."""
    rate = night.images_per_second
    first = min(limits(cost), key=limits(cost).__getitem__)
    return {
        "images/s": f"{rate:,.0f}",
        "images/s of each GPU": f"{rate / night.gpus:,.1f}",
        "Redis commands/s": f"{rate * cost.redis_commands:,.0f}",
        "Redis network, MB/s": f"{rate * cost.redis_bytes / 1e6:,.1f}",
        "Redis memory with all listed at once, GB": f"{night.images * cost.item_bytes / 1e9:,.1f}",
        "Redis, cores": f"{rate * cost.cpu_ms['redis'] / 1000:,.1f}",
        "S3 requests/s": f"{rate * 3 + rate / 1000:,.0f}",
        "matte process of each GPU, cores": f"{rate / night.gpus * cost.cpu_ms['matte'] / 1000:,.2f}",
        "encode parents, cores in all": f"{rate * cost.cpu_ms['encode parent'] / 1000:,.1f}",
        "first to break": f"{first}, at {limits(cost)[first]:,.0f} images/s; what lifts it: {_LIFTS[first]}",
    }


def of_kind(result: Result, **fields: object) -> list[Result]:
    """The points with these fields, the smallest run first."""
    wanted = {"matte_only": False, "real": False, "engine_ms": 5.0, "chunk": 16, "gpus": 1} | fields
    points = [one for one in result.get("points", {}).values() if all(one[k] == v for k, v in wanted.items())]
    return sorted(points, key=lambda one: one["images"])


def total_ms(point: Result) -> float:
    return float(sum(point["cpu_ms_per_image"].values()))


def check(result: Result) -> list[str]:
    """Lines that hold measured points against what a smaller one makes expect."""
    lines = []
    for engine_ms in (5.0, 1.0):
        points = of_kind(result, engine_ms=engine_ms)
        for small, point in zip(points[:1] * len(points), points[1:], strict=False):
            growth = total_ms(point) / total_ms(small) - 1
            word = "constant" if abs(growth) <= 0.1 else "NOT CONSTANT"
            expected = point["machine"]["cores"] * 1000 / total_ms(small)
            lines.append(
                f"{engine_ms:g} ms, {small['images']} to {point['images']} images: CPU an image {growth:+.1%}, {word};"
                f" {point['images_per_second']:.0f} images/s, {expected:.0f} with all cores busy"
            )
        one = of_kind(result, engine_ms=engine_ms, matte_only=True)
        for gpus in (2, 4):
            for point in of_kind(result, engine_ms=engine_ms, matte_only=True, gpus=gpus) if one else []:
                engines = gpus * 8000 / engine_ms
                expected = min(engines, point["machine"]["cores"] * 1000 / total_ms(one[0]))
                lines.append(
                    f"{engine_ms:g} ms, {gpus} GPU workers: {point['images_per_second']:.0f} images/s,"
                    f" {expected:.0f} expected (engines {engines:.0f}); CPU an image"
                    f" {total_ms(point) / total_ms(one[0]) - 1:+.1%} against one worker"
                )
    return lines


def measured(result: Result) -> list[str]:
    rows = []
    for name, point in result.get("points", {}).items():
        cpu = ", ".join(f"{role} {ms:.2f}" for role, ms in point["cpu_ms_per_image"].items())
        slopes = [one["bytes_per_image"] for one in point["memory"].values() if "bytes_per_image" in one]
        steepest = f"{max(slopes):.0f}" if slopes and point["done"] >= 100_000 else ""
        short = "" if point["done"] == point["images"] else f" (broken off at {point['done']})"
        rows.append(
            f"| {name}{short} | {point['images_per_second']:.0f} | {cpu} | {point['redis_bytes_per_item']:.0f} |"
            f" {steepest} |"
        )
    head = [
        "| point | images/s | CPU-ms an image | Redis bytes an item | steepest memory slope, bytes an image |",
        "|---|---|---|---|---|",
    ]
    return head + rows if rows else ["Nothing is measured yet."]


def commands(result: Result) -> list[str]:
    heard = result.get("commands", {})
    roles = sorted({role for one in heard.values() for role in one["commands_per_image"]})
    if not roles:
        return ["Nothing is measured yet."]
    rows = [
        f"| {name} | " + " | ".join(f"{one['commands_per_image'].get(role, 0):.2f}" for role in roles) + " |"
        for name, one in heard.items()
    ]
    return ["| keys in a message | " + " | ".join(roles) + " |", "|---" * (len(roles) + 1) + "|", *rows]


def night(result: Result, item_bytes: float) -> list[str]:
    points = of_kind(result)
    if not points:
        return ["Nothing is measured yet."]
    told = needs(Night(), costs(points[-1], item_bytes))
    return ["| | |", "|---|---|", *(f"| {what} | {number} |" for what, number in told.items())]


def written(page: str, result: Result, item_bytes: float) -> str:
    """The page with its tables written anew; they lie between `<!-- NAME -->` and `<!-- end -->`."""
    tables = {
        "points": measured(result),
        "commands": commands(result),
        "night": night(result, item_bytes),
        "check": [f"- {line}" for line in check(result)] or ["Nothing is measured yet."],
    }

    def table(found: re.Match[str]) -> str:
        return "\n".join([f"<!-- {found['name']} -->", *tables[found["name"]], "<!-- end -->"])

    return _SECTION.sub(table, page)
