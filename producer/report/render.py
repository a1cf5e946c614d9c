"""Renders a report: one HTML file that needs nothing else and may load nothing else."""

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from producer.report import wording
from producer.report.chart import Chart, lay_out
from producer.report.data import Card, ReportData, image_type
from producer.report.histogram import Histogram, make_histogram
from producer.report.meanings import meaning
from producer.report.stages import Segment, mean_stages, stack, stage_styles

# Beyond this a card would be a hairline; the preview is then shown whole within a frame of this ratio.
_MOST_RATIO = 3.0

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<rect width="32" height="32" rx="8" fill="#0b7a68"/><path d="M16 7a9 9 0 0 0 0 18z" fill="#fff"/>'
    '<path d="M16 7h4.5v4.5H16zM20.5 11.5H25V16h-4.5zM16 16h4.5v4.5H16z" fill="#fff" opacity=".75"/></svg>'
)


@dataclass(frozen=True, slots=True)
class _Verdict:
    tone: str  # good | warn | bad: a CSS class
    sentence: str


@dataclass(frozen=True, slots=True)
class _Picture:
    """A card as the template shows it."""

    card: Card
    ratio_class: str
    folder: str
    name: str
    segments: tuple[Segment, ...]


def _verdict(data: ReportData) -> _Verdict:
    if data.unaccounted > 0:
        return _Verdict("bad", f"The sum does not hold: {wording.images(data.unaccounted)} unaccounted for.")
    if data.unaccounted < 0:
        return _Verdict("bad", f"The sum does not hold: {-data.unaccounted:,} more ended than were listed.")
    if data.listed == 0:
        return _Verdict("warn", "Nothing was listed: there was no image to work on.")
    if data.failed:
        return _Verdict("warn", f"Every listed image is accounted for; {data.failed:,} failed, each with its reason.")
    return _Verdict("good", "Every listed image is accounted for. None failed.")


def _sum_line(data: ReportData) -> str:
    return f"listed {data.listed} = done {data.done} + skipped {data.skipped} + failed {data.failed}"


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data_uri(image: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(image).decode()}"


def _ratio(card: Card) -> float:
    """Width over height of a card's frame, kept within what a card can show."""
    return round(min(_MOST_RATIO, max(1 / _MOST_RATIO, card.width / card.height)), 3)


def _ratio_class(ratio: float) -> str:
    return f"ratio-{round(ratio * 1000)}"


def _ratio_rules(cards: list[Card]) -> str:
    """Write a CSS rule per ratio: the policy forbids style attributes, and layout should not need script."""
    ratios = sorted({_ratio(card) for card in cards})
    return "".join(f".{_ratio_class(ratio)}{{--ratio:{ratio}}}\n" for ratio in ratios)


def _picture(card: Card, styles: dict[str, str]) -> _Picture:
    folder, slash, name = card.key.rpartition("/")
    if not name:  # a key that ends in a slash
        folder, slash, name = "", "", card.key
    return _Picture(
        card=card,
        ratio_class=_ratio_class(_ratio(card)),
        folder=folder + slash,
        name=name,
        segments=stack(card.milliseconds, styles),
    )


def _facts(data: ReportData) -> dict[str, str]:
    facts = {
        "Run": data.run,
        "Source": data.source,
        "Target": data.target,
        "Engine": data.engine,
        "Model": data.model,
        "Images/s": wording.rate(data.images_per_second),
        "Started": wording.moment(data.started),
        "Finished": wording.moment(data.finished),
        "Seconds": f"{data.seconds:,.1f}",
    }
    ours = {label.casefold(): label for label in facts}
    for label, value in data.facts.items():
        facts[ours.get(label.casefold(), label)] = value
    return facts


def _histogram(data: ReportData) -> tuple[Histogram | None, Chart | None]:
    histogram = make_histogram(data.latencies_ms)
    return histogram, lay_out(histogram) if histogram else None


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.filters.update(
        bytes=wording.size,
        count=wording.count,
        datauri=lambda image: _data_uri(image, image_type(image)),
        day=wording.day,
        duration=wording.duration,
        images=wording.images,
        key=wording.visible_key,
        meaning=meaning,
        moment=wording.moment,
        ms=wording.milliseconds,
        plainkey=wording.plain_key,
        rate=wording.rate,
    )
    return environment


def _package_text(name: str) -> str:
    return resources.files("producer.report").joinpath(name).read_text(encoding="utf-8")


def render_report(data: ReportData) -> str:
    """Render the report of a run.

    Args:
        data: the run; its texts may be hostile, they are escaped.

    Returns:
        A whole HTML document to be written as UTF-8. Its own policy forbids it any network access.
    """
    cards = list(data.cards)
    styles = stage_styles(cards)
    # Inline text must equal what was hashed, to the byte: neither is touched after this.
    css = _package_text("report.css") + _ratio_rules(cards)
    script = _package_text("report.js")
    histogram, chart = _histogram(data)
    means = mean_stages(cards, styles)
    policy = (
        f"default-src 'none'; style-src {_csp_hash(css)}; script-src {_csp_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    template = _environment().from_string(_package_text("report.html.j2"))
    return template.render(
        run=data,
        policy=Markup(policy),  # noqa: S704 - made of our own constants and base64
        css=Markup(css),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        icon=_data_uri(ICON.encode(), "image/svg+xml"),
        verdict=_verdict(data),
        sum_line=_sum_line(data),
        pictures=[_picture(card, styles) for card in cards],
        styles=styles,
        means=stack(means, styles),
        mean_total=sum(means.values()),
        histogram=histogram,
        chart=chart,
        codes=Counter(row.code for row in data.failures).most_common(),
        facts=_facts(data),
    )
