"""Commands about models on this machine: list, fetch, import, evaluate, export."""

import json
import math
from pathlib import Path

import click
from rich.console import Console

from pipeline.errors import SetupError
from pipeline.ids import SizeBucket
from pipeline.settings import load_settings
from producer.commands.training import collect_data, train

RGB = tuple[float, float, float]


@click.group()
def model() -> None:
    """Models on this machine."""


model.add_command(collect_data)
model.add_command(train)


def _read_sizes(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[SizeBucket, ...]:
    try:
        return tuple(SizeBucket.parse(text if "x" in text else f"{text}x{text}") for text in value)
    except ValueError as error:
        raise click.BadParameter("write one side, such as 320, or height and width, such as 512x768") from error


def _read_rgb(ctx: click.Context, param: click.Parameter, value: str | None) -> RGB | None:
    if value is None:
        return None
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise click.BadParameter(f"{value!r} is neither one number nor three, such as 0.5 or 0.485,0.456,0.406")
    if param.name == "std" and min(numbers) <= 0:
        raise click.BadParameter(f"{value!r}: a standard deviation is above 0")
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue


_SIZES = click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="SIZE",
    callback=_read_sizes,
    help="size to run at, such as 320 or 512x768 (height first); may be repeated",
)


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def list_models(as_json: bool) -> None:
    """Show the models there are: size, quality, speed, licence."""
    from dataclasses import replace

    from model.catalogue import known, shipped
    from model.store import ModelStore
    from producer.commands.model_list import Listed, as_entries, as_table

    store = ModelStore(load_settings().home)
    here = store.names()
    models: list[Listed] = []
    for name in (*shipped(), *(name for name in known() if name not in shipped()), *here):
        if any(listed.card.spec.name == name for listed in models):
            continue
        if name not in here:
            models.append(Listed(known()[name], "not installed"))
            continue
        try:
            card = store.card(name)
            if card.footprint is None:
                # Installed by a version that did not count.
                from engine_build.census import count

                card = replace(card, footprint=count(store.path(name).read_bytes(), card.spec.size_buckets))
        except SetupError as error:  # one damaged model must not hide the others
            click.echo(f"mattemill: {error}", err=True)
            continue
        models.append(Listed(card, "ships with Mattemill" if name in shipped() else "installed"))
    if as_json:
        click.echo(json.dumps(as_entries(models), ensure_ascii=False))
    else:
        Console().print(as_table(models))


@model.command()
@click.argument("name")
@click.option("--file", type=click.Path(exists=True, path_type=Path), help="weights fetched by hand")
def fetch(name: str, file: Path | None) -> None:
    """Install the known model NAME."""
    from engine_build.fetch import fetch as fetch_model

    fetch_model(name, load_settings().home, click.echo, file)


@model.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="what the model is to be called")
@click.option("--preset", "family", help="options of a known family: u2net, isnet, birefnet, modnet, …")
@_SIZES
@click.option(
    "--mean", metavar="NUMBERS", callback=_read_rgb, help="of RGB scaled to 0-1, one or three  [default: ImageNet's]"
)
@click.option("--std", metavar="NUMBERS", callback=_read_rgb, help="likewise")
@click.option("--output", help="the output that is the alpha  [default: the first]")
@click.option("--sigmoid/--no-sigmoid", default=None, help="the output is logits, not a probability")
@click.option("--licence", help="of the weights, for reports")
@click.option("--origin", default="", help="where the weights come from, for reports")
@click.option("--replace", is_flag=True, help="replace another model of this name")
def import_model(
    file: Path,
    name: str,
    family: str | None,
    sizes: tuple[SizeBucket, ...],
    mean: RGB | None,
    std: RGB | None,
    output: str | None,
    sigmoid: bool | None,
    licence: str | None,
    origin: str,
    replace: bool,
) -> None:
    """Bring your own network: the ONNX FILE of any matting or segmentation model.

    FILE takes float images, channels first, and gives one value per pixel. It is wrapped for the workers, and proved
    by comparison to compute what it computed before. Options win over those of the preset.
    """
    from engine_build.bring import Wish, bring
    from engine_build.presets import preset
    from engine_build.wrap import Recipe

    usual = preset(family) if family is not None else None
    of_family = usual.recipe if usual is not None else Recipe()
    recipe = Recipe(
        mean if mean is not None else of_family.mean,
        std if std is not None else of_family.std,
        output if output is not None else of_family.output,
        sigmoid if sigmoid is not None else of_family.sigmoid,
    )
    if usual is not None and not usual.commercial and licence is None:
        click.echo(f"The weights of {family} are usually under {usual.licence}: no commercial use without a contract.")
    wish = Wish(
        name,
        recipe,
        sizes,
        usual.size if usual is not None else None,
        licence or (usual.licence if usual is not None else "unknown"),
        origin or (usual.origin if usual is not None else ""),
        replace,
    )
    bring(file, wish, load_settings().home, click.echo)


@model.command()
@click.argument("name")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="folder with validation/<split>/*.jpg")
@click.option("--against", multiple=True, help="another model to compare with; may be repeated")
@click.option("--out", type=click.Path(path_type=Path), help="folder for evaluation.json and contact-sheet.png")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of the table")
def evaluate(name: str, data: Path, against: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Measure the model NAME on photos whose true alpha is known."""
    from producer.commands.evaluation import run_evaluation

    entry = run_evaluation((name, *against), data, out, load_settings().home, show=not as_json)
    if as_json:
        click.echo(json.dumps(entry, ensure_ascii=False))


@model.command()
@click.argument("network")
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="weights  [default: those that ship with Mattemill]"
)
@click.option("--name", default="", help="what the model is to be called  [default: NETWORK, or NETWORK-fp16]")
@_SIZES
@click.option("--licence", default="", help="of the weights")
@click.option("--origin", default="", help="where the weights come from")
@click.option("--to", type=click.Path(path_type=Path), help="write .onnx, card and .safetensors there, install nothing")
def export(
    network: str,
    precision: str,
    checkpoint: Path | None,
    name: str,
    sizes: tuple[SizeBucket, ...],
    licence: str,
    origin: str,
    to: Path | None,
) -> None:
    """Export NETWORK (cvunet, cvunet-lite, cvunet-lite-s, or a shipped model) from PyTorch and install it.

    The checkpoint is a .safetensors file or what torch.save wrote; its layer names must be those of the network.
    """
    try:
        from engine_build.export import Order, export_model
    except ModuleNotFoundError as error:
        raise without_torch(error) from error

    order = Order(network, "fp16" if precision == "fp16" else "fp32", checkpoint, name, sizes, licence, origin)
    export_model(order, load_settings().home, click.echo, to)


def without_torch(error: ModuleNotFoundError) -> Exception:
    """What to raise when a module is missing: a hint where it is one of the extra `train`, else the error itself."""
    if (error.name or "").partition(".")[0] not in ("torch", "safetensors"):
        return error
    return SetupError(f"This needs {error.name}, which is not installed.", "pip install 'mattemill[train]'")
