"""What the tests of the command line share."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_build.fetch import fetch
from tests.command_line import MARK, temporary_folder
from tests.conftest import ROOT
from tests.processes import photo


@pytest.fixture(scope="session")
def fetched_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with u2netp, downloaded once for all tests of this process, which must not change it."""
    home = tmp_path_factory.mktemp("home")
    fetch("u2netp", home, lambda _: None)
    return home


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """Where the command's temporary files go; a test looks here for what was left behind."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def alone(fetched_home: Path, short_tmp: Path) -> dict[str, str]:
    """The environment of a newcomer: no servers, no credentials, the model there; with a mark of its own."""
    theirs = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MATTEMILL_"))}
    return theirs | {
        "MATTEMILL_HOME": str(fetched_home),
        "TMPDIR": str(short_tmp),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        MARK: uuid.uuid4().hex,
    }


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two good pictures."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(photo(1))
    (folder / "sub" / "b 产品.jpg").write_bytes(photo(2))
    return folder
