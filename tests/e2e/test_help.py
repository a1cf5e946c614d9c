"""Every face says what it is for."""

import re

import pytest

from producer.commands.cli import _MODULES
from tests.command_line import run


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["demo"], ["up"], ["enqueue"], ["sweep"], ["status"], ["failures"], ["report"], ["cancel"], ["worker"],
        ["worker", "gpu"], ["worker", "cpu"], ["model", "list"], ["model", "fetch"], ["doctor"],
    ],
)  # fmt: skip
def test_every_face_has_help(arguments: list[str], alone: dict[str, str]) -> None:
    done = run(alone, *arguments, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage:")
    if arguments in (["sweep"], ["enqueue"], ["demo"], ["doctor"]):
        assert f"\n    mattemill {arguments[0]} " in done.stdout  # an example to copy


def test_the_first_help_names_every_command_in_one_whole_line(alone: dict[str, str]) -> None:
    said = run(alone, "--help").stdout
    for name in _MODULES:
        assert len(re.findall(rf"^  {name} +[A-Z].*\.$", said, re.MULTILINE)) == 1, (name, said)


def test_a_misspelt_command_is_guessed(alone: dict[str, str]) -> None:
    assert "No such command 'stauts'. Did you mean status?" in run(alone, "stauts").stderr
    assert "Did you mean" not in run(alone, "xyzzy").stderr


def test_usage_errors_exit_with_2(alone: dict[str, str]) -> None:
    for arguments in (["sweep"], ["nonsense"], ["sweep", "s3://a/", "--to", "s3://b/", "--nonsense"]):
        done = run(alone, *arguments)
        assert done.returncode == 2
        assert "--help" in done.stderr
        assert "Traceback" not in done.stderr
