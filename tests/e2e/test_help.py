"""Every face says what it is for."""

import pytest

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


def test_usage_errors_exit_with_2(alone: dict[str, str]) -> None:
    for arguments in (["sweep"], ["nonsense"], ["sweep", "s3://a/", "--to", "s3://b/", "--nonsense"]):
        done = run(alone, *arguments)
        assert done.returncode == 2
        assert "--help" in done.stderr
        assert "Traceback" not in done.stderr
