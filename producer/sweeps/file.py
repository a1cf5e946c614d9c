"""The file of named sweeps, TOML; docs/sweeps.md shows one with every field."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from pipeline.errors import SetupError
from pipeline.ids import Location
from pipeline.recipe_text import recipe_of
from pipeline.settings import Settings
from producer.selection import Selection
from producer.sweeps.duration import seconds_of
from producer.sweeps.timetable import Timetable

NAME = "[a-z0-9][a-z0-9_-]{0,62}"
_HINT = "docs/sweeps.md shows every field; try again with mattemill sweeps check"


def _address(url: str) -> str:
    Location.parse(url)
    return url


def _recipe(text: str) -> str:
    try:
        recipe_of(text or None)
    except SetupError as error:
        raise ValueError(str(error.args[0]).removeprefix("Recipe: ")) from error
    return text


def _duration(text: str) -> str:
    seconds_of(text)
    return text


def _cron(line: str) -> str:
    Timetable(line)
    return line


def _time_zone(name: str) -> str:
    Timetable("0 0 * * *", name)
    return name


def _webhook(hook: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(hook, tuple):
        if not all(hook):
            raise ValueError("a command has no empty part")
        return hook
    place = urlsplit(hook)
    if hook and (place.scheme not in ("http", "https") or not place.hostname):
        raise ValueError("it is neither a list (a command with its arguments) nor an address that begins with https://")
    return hook


_Address = Annotated[str, AfterValidator(_address)]
_Duration = Annotated[str, AfterValidator(_duration)]
_Patterns = Annotated[tuple[str, ...], Field(max_length=100)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Scheduled(_Table):
    cron: Annotated[str, AfterValidator(_cron)]
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"

    @property
    def timetable(self) -> Timetable:
        """When it is due."""
        return Timetable(self.cron, self.time_zone)


class Retention(_Table):
    """How long to keep what a sweep leaves; what has no rule is kept for ever.

    Attributes:
        reports: manifests, summaries and reports of its runs.
        outputs: cutouts whose source is gone.
    """

    reports: _Duration | None = None
    outputs: _Duration | None = None


class NamedSweep(_Scheduled):
    """One sweep of the file.

    Attributes:
        name: how the file calls it.
        source: where from, s3://bucket/prefix/.
        to: where to, s3://bucket/prefix/.
        recipe: what the cutouts are; "" is a transparent PNG.
        model: name of the model; "" takes the setting's.
        cron: when, five fields; see `producer.sweeps.timetable`.
        time_zone: whose clock that is.
        include: when there are any, a key must match one of these patterns.
        exclude: a key that matches one of these is left out.
        limit: the most keys a night.
        any_name: take images whatever their names end with.
        reports_to: where manifest and report go; "" puts them beside the outputs.
        retention: what `mattemill clean` may remove, and when.
        hook: a webhook's address, or a command as a list; told the summary of every run. It may hold a secret.
    """

    name: str = Field(pattern=f"^{NAME}$")
    source: _Address
    to: _Address
    recipe: Annotated[str, AfterValidator(_recipe)] = ""
    model: str = ""
    include: _Patterns = ()
    exclude: _Patterns = ()
    limit: Annotated[StrictInt, Field(ge=1)] | None = None
    any_name: StrictBool = False
    reports_to: Annotated[str, AfterValidator(lambda url: url and _address(url))] = ""
    retention: Retention = Retention()
    hook: Annotated[str | tuple[str, ...], AfterValidator(_webhook)] = Field("", repr=False)

    @property
    def selection(self) -> Selection:
        """Which of the listed keys it takes."""
        return Selection(self.include, self.exclude, self.limit, self.any_name)


class Cleaning(_Scheduled):
    """When to clean up every night, and what: see `mattemill clean`.

    Attributes:
        older_than: age from which on a finished run leaves Redis.
    """

    older_than: _Duration = "30d"

    @property
    def name(self) -> str:
        """Under which the ledger knows its nights; no sweep can be called like this."""
        return "(clean)"


class SweepsFile(_Table):
    """What the file says."""

    sweeps: Mapping[str, NamedSweep]
    clean: Cleaning | None = None

    def sweep(self, name: str) -> NamedSweep:
        """The sweep of this name.

        Raises:
            SetupError: when there is none.
        """
        if name not in self.sweeps:
            raise SetupError(
                f"There is no sweep {name!r} in the file.", f"there are {', '.join(self.sweeps) or 'none'}"
            )
        return self.sweeps[name]


def load_sweeps(settings: Settings) -> SweepsFile:
    """Read the file that MATTEMILL_SWEEPS names.

    Raises:
        SetupError: names the file, the sweep and the field.
    """
    path = settings.sweeps
    if path is None:
        raise SetupError("There is no file of named sweeps.", "set MATTEMILL_SWEEPS to its path (docs/sweeps.md)")
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}.", "correct MATTEMILL_SWEEPS") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is no TOML: {error}.", _HINT) from error
    return _parse(path, tables)


def _parse(path: Path, tables: dict[str, object]) -> SweepsFile:
    named = tables.get("sweeps", {})
    if unknown := sorted(set(tables) - {"sweeps", "clean"}):
        raise SetupError(f"{path}: {unknown[0]}: there are only [sweeps.NAME] and [clean].", _HINT)
    if not isinstance(named, dict):
        raise SetupError(f"{path}: sweeps: it must be tables, [sweeps.NAME].", _HINT)
    sweeps: dict[str, NamedSweep] = {}
    for name, table in named.items():
        if not isinstance(table, dict) or "name" in table:
            raise SetupError(f"{path}: sweep {name}: it must be a table [sweeps.{name}] without a name.", _HINT)
        try:
            sweeps[name] = NamedSweep(name=name, **table)
        except ValidationError as error:
            raise SetupError(f"{path}: sweep {name}: {_first(error)}.", _HINT) from error
    try:
        return SweepsFile.model_validate({"sweeps": sweeps, "clean": tables.get("clean")})
    except ValidationError as error:
        raise SetupError(f"{path}: {_first(error)}.", _HINT) from error


def _first(error: ValidationError) -> str:
    """Field and reason, without the value: a hook may hold a secret."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    loc = first["loc"]
    field = ".".join(map(str, loc[: 2 if loc[0] in ("retention", "clean") else 1]))
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{field}: {reason}"
