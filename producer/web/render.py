"""Renders the live page; every value is escaped, in texts and in attributes."""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from producer.report import wording
from producer.report.render import ICON
from producer.web.reading import Overview, RunPage
from producer.web.texts import LANGUAGES, TAGS, code_words, duration, moment, say


class Renderer:
    """Holds templates and static files, read once.

    Attributes:
        files: what is served below /static/: media type and body by name.
    """

    def __init__(self) -> None:
        css = _text("producer.report", "report.css") + _text("producer.web", "page.css")
        self.files: Mapping[str, tuple[str, bytes]] = {
            "page.css": ("text/css; charset=utf-8", css.encode()),
            "page.js": ("text/javascript; charset=utf-8", _text("producer.web", "page.js").encode()),
            "icon.svg": ("image/svg+xml", ICON.encode()),
        }
        bodies = b"".join(body for _, body in self.files.values())
        environment = Environment(
            loader=PackageLoader("producer.web", ""),
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False,
        )  # fmt: skip
        environment.filters.update(
            bytes=wording.size,
            count=wording.count,
            key=wording.visible_key,
            ms=wording.milliseconds,
            plainkey=wording.plain_key,
            rate=wording.rate,
        )
        environment.globals.update(languages=LANGUAGES, tags=TAGS, version=hashlib.sha256(bodies).hexdigest()[:12])
        self._environment = environment

    def overview(self, language: str, view: Overview) -> str:
        """The list of runs and workers."""
        return self._render("runs.html.j2", language, view=view)

    def run(self, language: str, view: RunPage) -> str:
        """One run."""
        return self._render("run.html.j2", language, view=view, facts=_facts(language, view))

    def message(self, language: str, status: int, text: str) -> str:
        """A page that only says `text`, one of `producer.web.texts`."""
        return self._render("message.html.j2", language, status=status, text=text)

    def _render(self, name: str, language: str, **values: object) -> str:
        words: dict[str, Callable[..., str]] = {
            "say": partial(say, language), "span": partial(duration, language),
            "code_words": partial(code_words, language),
        }  # fmt: skip
        template = self._environment.get_template(name)
        return template.render(language=language, tag=TAGS[language], **words, **values)


def _facts(language: str, view: RunPage) -> dict[str, str]:
    line = view.line
    spec, counts = line.spec, line.counts
    engine = next((str(row.get("engine") or "") for _, row in view.results.pictures), "")
    end = counts.moved if counts.state == "finished" else counts.now
    facts = {
        "engine": engine,
        "model": spec.model,
        "recipe": spec.recipe,
        "sweep": spec.sweep,
        "started": moment(counts.created),
        "last move": moment(counts.moved),
        "duration" if counts.state == "finished" else "running for": duration(language, max(end - counts.created, 0)),
        "tried again": wording.count(counts.retried),
        "source": str(spec.source),
        "target": str(spec.target),
        "reports": str(spec.reports),
    }
    return {label: value for label, value in facts.items() if value}


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
