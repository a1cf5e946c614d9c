"""`mattemill model evaluate`: run, tell, and write down."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from model.card import Score
from producer.files import check_folder, write_file


def run_evaluation(names: Sequence[str], data: Path, out: Path | None, home: Path, show: bool) -> dict[str, object]:
    """Measure models on the same photos, and keep the figures in their cards.

    Args:
        names: the models, the one that it is about first.
        data: a folder with `validation/<split>/NNN.jpg` and `.png`.
        out: takes evaluation.json and contact-sheet.png.
        home: MATTEMILL_HOME.
        show: print the table.

    Returns:
        What evaluation.json holds.

    Raises:
        SetupError: when a model or the data cannot be had, or `out` cannot be written.
    """
    from model.engines.onnx import OnnxEngine
    from model.evaluation.dataset import find_pairs
    from model.evaluation.evaluate import evaluate
    from model.evaluation.sheet import Shown, contact_sheet
    from model.store import ModelStore

    store, pairs = ModelStore(home), find_pairs(data)
    if out is not None:
        check_folder(out)
    paths = {name: store.path(name) for name in dict.fromkeys(names)}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ExitStack() as stack:
        shown = []
        with Progress(*columns, console=Console(stderr=True)) as bar:
            for name, path in paths.items():
                task = bar.add_task(name, total=len(pairs))
                # One thread: processor time of several would count their waiting for each other.
                engine = stack.enter_context(OnnxEngine(path, store.spec(name), max_batch=1, threads=1))
                shown.append(Shown(engine, evaluate(engine, name, pairs, partial(bar.advance, task))))
        described = f"{data.name or data.resolve().name}, {len(pairs)} photos"
        entry: dict[str, object] = {"data": described, "models": [one.evaluation.entry() for one in shown]}
        for one in shown:
            store.record(one.evaluation.model, one.evaluation.figures(described))
        if out is not None:
            write_file(out / "evaluation.json", (json.dumps(entry, indent=2, ensure_ascii=False) + "\n").encode())
            write_file(out / "contact-sheet.png", contact_sheet(shown))
    if show:
        rows = [
            (split, one.evaluation.model, one.evaluation.scores()[split], one.evaluation.milliseconds(split))
            for split in shown[0].evaluation.splits
            for one in shown
        ]
        Console().print(_table(rows))
        for row in shown[0].evaluation.worst(5):
            click.echo(f"worst: {row.pair.name}  IoU {row.measures.iou:.3f}")
        if out is not None:
            click.echo(f"Written: {out / 'evaluation.json'}, {out / 'contact-sheet.png'}")
    return entry


def _table(rows: Sequence[tuple[str, str, Score, float]]) -> Table:
    table = Table(
        caption=(
            "Means over n photos, and the median IoU. MSE in thousandths; SAD, gradient and connectivity in "
            "thousands of pixels; CPU: median of one image, ms."
        ),
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("split", no_wrap=True)
    table.add_column("model", overflow="fold")
    for heading in ("n", "IoU", "med.", "S", "MAE", "MSE", "SAD", "grad.", "conn.", "CPU"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for split, model, score, milliseconds in rows:
        found = asdict(score)
        table.add_row(
            split if split != last else "",
            model,
            str(score.images),
            *(f"{found[name]:.3f}" for name in ("iou", "iou_median", "s_measure", "mae")),
            f"{score.mse * 1000:.1f}",
            *(f"{found[name]:.2f}" for name in ("sad", "gradient", "connectivity")),
            f"{milliseconds:.0f}",
        )
        last = split
    return table
