"""Commands about models on this machine."""

from pathlib import Path

import click

from pipeline.settings import load_settings


@click.group()
def model() -> None:
    """Models on this machine."""


@model.command("list")
def list_models() -> None:
    """Show the known models and which are installed."""
    from model.catalogue import CATALOGUE
    from model.store import ModelStore

    installed = {spec.name for spec in ModelStore(load_settings().home).installed()}
    for spec in CATALOGUE.values():
        state = "installed" if spec.name in installed else "not installed"
        click.echo(f"{spec.name}  {', '.join(map(str, spec.size_buckets))}  {spec.licence}  {state}  {spec.origin}")


@model.command()
@click.argument("name")
@click.option("--file", type=click.Path(exists=True, path_type=Path), help="weights fetched by hand")
def fetch(name: str, file: Path | None) -> None:
    """Install the model NAME."""
    from engine_build.fetch import fetch as fetch_model

    fetch_model(name, load_settings().home, click.echo, file)
