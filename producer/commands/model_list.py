"""The table of models: how large, how good, how fast, under which licence."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from model.card import Card, Footprint, Latency
from pipeline.ids import SizeBucket

State = Literal["ships with Mattemill", "installed", "not installed"]
_HERE: Final[dict[State, str]] = {"ships with Mattemill": "ships", "installed": "yes", "not installed": "no"}
_USUAL_SIZE: Final = SizeBucket(512, 512)
_LINES: Final = 4


@dataclass(frozen=True, slots=True)
class Listed:
    """A model and whether it can run here."""

    card: Card
    state: State


def as_entries(models: Sequence[Listed]) -> list[dict[str, object]]:
    """The models as JSON takes them; nothing is rounded."""
    entries: list[dict[str, object]] = []
    for model in models:
        spec, footprint, figures = model.card.spec, model.card.footprint, model.card.figures
        entries.append(
            {
                "name": spec.name,
                "state": model.state,
                "size_buckets": [str(size) for size in spec.size_buckets],
                "licence": spec.licence,
                "origin": spec.origin,
                "weights": spec.weights,
                "footprint": asdict(footprint) | {"size": str(footprint.size)} if footprint else None,
                "data": figures.data,
                "scores": {split: asdict(score) for split, score in figures.scores.items()},
                "latencies": [asdict(one) | {"size": str(one.size)} for one in figures.latencies],
            }
        )
    return entries


def as_table(models: Sequence[Listed]) -> Table:
    """The models as a table."""
    table = Table(
        caption=_caption(models),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        pad_edge=False,
    )
    splits = dict.fromkeys(split for model in models for split in model.card.figures.scores)
    table.add_column("model", no_wrap=True)
    table.add_column("here", no_wrap=True)
    table.add_column("runs at", no_wrap=True)
    for heading in ("M par.", "GMAC", *(f"IoU\n{split}" for split in splits), "one image"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold", min_width=10)
    for model in models:
        spec, figures = model.card.spec, model.card.figures
        table.add_row(
            spec.name,
            _HERE[model.state],
            _some([str(size) for size in spec.size_buckets]),
            *_counted(model.card.footprint),
            *(f"{figures.scores[split].iou:.3f}" if split in figures.scores else "" for split in splits),
            _some([_latency(one, len(spec.size_buckets) > 1) for one in figures.latencies]),
            spec.licence,
        )
    return table


def _counted(footprint: Footprint | None) -> tuple[str, str]:
    if footprint is None:
        return "", ""
    mark = "" if footprint.size == _USUAL_SIZE else "*"
    macs = f"{footprint.macs / 1e9:.1f}{mark}" if footprint.macs is not None else "?"
    return f"{footprint.parameters / 1e6:.2f}", macs


def _latency(one: Latency, tell_size: bool) -> str:
    where = "CPU" if " CPU" in one.engine else one.engine.split(" ")[0]
    return f"{one.milliseconds:.{0 if one.milliseconds >= 100 else 1}f} ms {where}" + (
        f" {one.size}" if tell_size else ""
    )


def _some(lines: Sequence[str]) -> str:
    """The first lines of many, one below the other."""
    more = [f"+ {len(lines) - _LINES} more"] if len(lines) > _LINES else []
    return "\n".join([*lines[:_LINES], *more])


def _caption(models: Sequence[Listed]) -> str:
    lines = ["M par.: millions of weights. GMAC: 10^9 multiply-adds at 512x512;", "  * at the only size that it has."]
    data = {model.card.figures.data for model in models if model.card.figures.data}
    measured = {(one.machine, one.engine) for model in models for one in model.card.figures.latencies}
    if data:
        lines.append(f"Mean IoU on: {'; '.join(sorted(data))}.")
    if measured:
        lines.append("One image, in the engine alone (CPU: processor time) on:")
        lines += [f"  {machine}, {engine}" for machine, engine in sorted(measured)]
    return "\n".join(lines)
