"""Recipes as people write them: parts with commas between them, such as "webp=90,crop,margin=5%,max-side=1600"."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

from pipeline.recipe import Recipe, refused

_Fields = Mapping[str, object]
_Reader = Callable[[str, str | None], _Fields]


def recipe_of(given: Recipe | str | Mapping[str, object] | None) -> Recipe:
    """Take a recipe as the API, the command line or a sweep file gives it: itself, its text, or its parts by name.

    A mapping has the names of the text form; a part that is a word alone, such as crop, is true or false there. None
    is the default, a transparent PNG.

    Raises:
        SetupError: names the part that cannot be.
    """
    if isinstance(given, Recipe):
        return given
    if isinstance(given, Mapping):
        return _read(
            (name, None if value is True else str(value)) for name, value in given.items() if value is not False
        )
    return parse_recipe(given or "png")


@lru_cache(maxsize=64)
def parse_recipe(text: str) -> Recipe:
    """Read the text form.

    Raises:
        SetupError: names the part that cannot be.
    """
    parts = []
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        parts.append((name, _unescaped(value) if equals else None))
    return _read(parts)


def recipe_text(recipe: Recipe) -> str:
    """The shortest text that reads as this recipe; equal recipes have equal texts."""
    parts = []
    usual = Recipe(background=recipe.background)
    if (recipe.format, recipe.quality) != (usual.format, usual.quality):
        parts.append(f"{recipe.format}={recipe.quality}" if recipe.quality else recipe.format)
    if recipe.background:
        parts.append(f"background={_escaped(recipe.background)}")
    if recipe.background_etag:
        parts.append(f"background-etag={_escaped(recipe.background_etag)}")
    if recipe.crop:
        parts.append("crop")
    if recipe.margin:
        parts.append(f"margin={recipe.margin:g}%")
    if recipe.square:
        parts.append("square")
    if recipe.max_side:
        parts.append(f"max-side={recipe.max_side}")
    if not recipe.despill:
        parts.append("despill=off")
    if recipe.metadata:
        parts.append("metadata=keep")
    if recipe.icc:
        parts.append("icc=keep")
    if recipe.name != recipe.default_name:
        parts.append(f"name={_escaped(recipe.name)}")
    return ",".join(parts) or "png"


def _read(parts: Iterable[tuple[str, str | None]]) -> Recipe:
    given: dict[str, object] = {}
    for name, value in parts:
        if name not in _READERS:
            raise refused(repr(name), f"is no part; there are {', '.join(_READERS)}")
        for field, read in _READERS[name](name, value).items():
            if field in given:
                raise refused(name, f"gives the {field.replace('_', '-')} a second time")
            given[field] = read
    return Recipe(**given)  # type: ignore[arg-type]


def _format(name: str, value: str | None) -> _Fields:
    if value is None or (name == "webp" and value == "lossless"):
        return {"format": name}
    return {"format": name, "quality": _whole(name, value, 1, 100)}


def _word(name: str, value: str | None) -> _Fields:
    if value is not None:
        raise refused(f"{name}={value}", f"takes no value; write {name}")
    return {name: True}


def _text(name: str, value: str | None) -> _Fields:
    if not value:
        raise refused(name, f"needs a value; write {name}=…")
    return {name.replace("-", "_"): value}


def _percent(name: str, value: str | None) -> _Fields:
    try:
        return {name: float((value or "").removesuffix("%"))}
    except ValueError as error:
        raise refused(f"{name}={value or ''}", f"is no percentage; write {name}=5%") from error


def _side(name: str, value: str | None) -> _Fields:
    return {"max_side": _whole(name, value or "", 16, 65500)}


def _either(on: str, off: str) -> _Reader:
    def read(name: str, value: str | None) -> _Fields:
        if value not in (on, off):
            raise refused(f"{name}={value or ''}", f"is {on} or {off}")
        return {name: value == on}

    return read


def _whole(name: str, value: str, least: int, most: int) -> int:
    if not value.isascii() or not value.isdigit() or not least <= int(value[:9]) <= most:
        raise refused(f"{name}={value}", f"is no number from {least} to {most}")
    return int(value)


_READERS: Final[Mapping[str, _Reader]] = {
    "png": lambda name, value: {"format": _word(name, value) and name},
    "webp": _format,
    "jpeg": _format,
    "alpha": lambda name, value: {"format": _word(name, value) and name},
    "background": _text,
    "background-etag": _text,
    "crop": _word,
    "margin": _percent,
    "square": _word,
    "max-side": _side,
    "despill": _either("on", "off"),
    "metadata": _either("keep", "drop"),
    "icc": _either("keep", "drop"),
    "name": _text,
}


def _escaped(value: str) -> str:
    return value.replace("%", "%25").replace(",", "%2C")


def _unescaped(value: str) -> str:
    return value.replace("%2C", ",").replace("%2c", ",").replace("%25", "%")
