"""What the docs show can be typed: commands and options exist, variables too, links lead somewhere."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipeline.errors import Code
from pipeline.settings import Settings
from producer.commands.cli import cli
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
VARIABLES = {f"MATTEMILL_{name}".upper() for name in Settings.model_fields}
OF_COMPOSE = {"MATTEMILL_REDIS_PASSWORD"}


def name(path: Path) -> str:
    return path.stem


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def typed(text: str) -> Iterator[str]:
    """Every command line of ours in the blocks of a page, from `mattemill` to a comment or the next command."""
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^docker compose .*? run --rm cli ", "mattemill ", line)
            line = re.sub(r"^(?:[A-Z_]+=(?:\"[^\"]*\"|\S+) )+(?=mattemill )", "", line)
            for part in re.split(r"\s#\s|\s&&\s|\s{3,}", line):
                if re.match(r"mattemill [a-z-]", part):
                    yield part


def shown(text: str) -> Iterator[str]:
    """The same, and those that stand in a sentence."""
    yield from typed(text)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`(mattemill [a-z-][^`]*)`", prose):
        yield " ".join(code.split())


def faults(line: str) -> list[str]:
    """What of a command line does not exist; brackets and bars are read as they are in a usage line."""
    words = re.sub(r"[\[\]\"']", " ", line).split()[1:]
    commands: list[click.Command] = [cli]
    while words and isinstance(commands[0], click.Group):
        group = commands[0]
        names = words.pop(0).split("|") if words[0] not in ("…", "...") else []
        if not names:
            return []
        context = click.Context(group)
        unknown = [one for one in names if group.get_command(context, one) is None]
        if unknown and not words and group is cli and names[0].startswith("-"):
            return []
        if unknown:
            return [f"no command {one}" for one in unknown]
        commands = [command for one in names if (command := group.get_command(context, one)) is not None]
    options = {
        option for command in commands for part in command.params for option in (*part.opts, *part.secondary_opts)
    }
    options |= {"--help", "-h"}
    asked = [word.split("=")[0].rstrip(",.;") for word in words if re.match(r"--?[a-z]", word)]
    return [f"no option {option}" for option in asked if option not in options]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_options_exist(page: Path) -> None:
    wrong = {line: found for line in shown(page.read_text()) if (found := faults(line))}
    assert wrong == {}


def test_the_reading_of_command_lines_sees_what_is_wrong() -> None:
    assert faults("mattemill sweep s3://a/ --to s3://b/ --wait") == []
    assert faults("mattemill sweep s3://a/ --two s3://b/") == ["no option --two"]
    assert faults("mattemill wash") == ["no command wash"]
    assert faults("mattemill worker gpu|cpu|tpu") == ["no command tpu"]
    assert list(shown("```\nmattemill status --watch   # follow\n```\nand `mattemill cancel\nRUN`.")) == [
        "mattemill status --watch",
        "mattemill cancel RUN",
    ]


def refusal(line: str) -> str:
    """What click says against a command line as it would be typed; "" for nothing. What it names need not be there."""
    words = shlex.split(line if line.count('"') % 2 == 0 else line.removesuffix('"'))[1:]  # the end of a shell's -c
    for sign in ("|", ">", ">>", "2>", "&"):
        words = words[: words.index(sign)] if sign in words else words
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        if found is None:
            return f"no command {name}"
        command = found
    try:
        command.make_context("mattemill", words)
    except click.exceptions.Exit:
        return ""
    except click.UsageError as error:
        return "" if "does not exist" in error.format_message() else error.format_message()
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_stands_in_a_block_can_be_typed_as_it_stands(page: Path) -> None:
    lines = [line for line in typed(page.read_text()) if not re.search(r"[…\[|]", line)]
    assert {line: told for line in lines if (told := refusal(line))} == {}


def test_the_typing_of_command_lines_sees_what_is_wrong() -> None:
    assert refusal("mattemill sweep s3://a/ --to s3://b/ --wait --json > summary.json") == ""
    assert "--to" in refusal("mattemill sweep s3://a/")
    assert "extra argument" in refusal("mattemill cancel RUN now")
    assert "'low' is not one of" in refusal("mattemill enqueue s3://a/b.jpg --to s3://b/ --priority low")
    assert "integer" in refusal("mattemill web --port http")
    assert list(typed('```\nSECRET="$(x -y 12)" A=b mattemill web      # here\n```')) == ["mattemill web"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_variables_exist(page: Path) -> None:
    assert set(re.findall(r"\bMATTEMILL_[A-Z0-9_]*[A-Z0-9]\b", page.read_text())) <= VARIABLES | OF_COMPOSE


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_modules_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    modules = re.findall(r"python -m ((?:bench|workers|producer)[\w.]*)", text)
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    files = set(re.findall(r"\b(?:docker|tests)/[\w./-]+\.(?:yaml|env|toml|py|Dockerfile)", text))
    written = {"docker/mattemill.env", "docker/sweeps/sweeps.toml"}  # by the user
    assert [file for file in files - written if not (ROOT / file).exists()] == []


def test_tune_has_every_variable_with_its_default_and_meaning() -> None:
    rows = re.findall(
        r"^\| `(MATTEMILL_\w+)` \| (?:`(.*?)`)? *\| (.*?) *\|$", (ROOT / "docs/tune.md").read_text(), re.MULTILINE
    )
    found = {variable: (default, meaning) for variable, default, meaning in rows}
    expected = {}
    for field, info in Settings.model_fields.items():
        default = info.default.get_secret_value() if field == "redis_url" else info.default
        expected[f"MATTEMILL_{field}".upper()] = ("" if default is None else str(default), info.description or "")
    assert found == expected


def test_operate_has_a_cure_for_every_failure_code() -> None:
    text = (ROOT / "docs/operate.md").read_text()
    assert [code.value for code in Code if f"`{code}`" not in text] == []


def test_operate_names_log_events_that_are_written() -> None:
    text = (ROOT / "docs/operate.md").read_text()
    events = {event for event in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text) if event not in set(Code)}
    source = "".join(
        path.read_text() for package in ("pipeline", "producer", "workers") for path in ROOT.glob(f"{package}/**/*.py")
    )
    assert [event for event in events if f'"{event}"' not in source] == []


def test_the_chinese_quick_start_shows_the_same_commands() -> None:
    english, chinese = (
        [
            re.sub(r"\s+#.*", "", line)
            for block in blocks((ROOT / "docs" / page).read_text())
            for line in block.splitlines()
        ]
        for page in ("quickstart.md", "quickstart.zh.md")
    )
    assert chinese == english
