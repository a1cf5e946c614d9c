"""The stages of an image as a stacked bar, each stage in one colour throughout the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from producer.report.data import Card

COLOURS = 9  # classes stage-0 ... stage-8 of report.css


@dataclass(frozen=True, slots=True)
class Segment:
    """One stage of a bar: x and width in percent of the bar, `style` the CSS class that colours it."""

    stage: str
    style: str
    ms: float
    x: float
    width: float


def stage_styles(cards: Sequence[Card]) -> dict[str, str]:
    """Give every stage of any card a CSS class, in order of first appearance.

    Waiting is grey: it is the one stage in which nothing works on the image.
    """
    styles: dict[str, str] = {}
    colours = 0
    for card in cards:
        for stage in card.milliseconds:
            if stage in styles:
                continue
            if stage.startswith(("wait", "queue")):
                styles[stage] = "stage-wait"
            else:
                styles[stage] = f"stage-{colours % COLOURS}"
                colours += 1
    return styles


def stack(milliseconds: Mapping[str, float], styles: Mapping[str, str]) -> tuple[Segment, ...]:
    """Stack stages into a bar of 100 percent; every width is zero if all times are."""
    total = sum(milliseconds.values())
    segments = []
    before = 0.0
    for stage, ms in milliseconds.items():
        share = 100 / total if total else 0.0
        segments.append(Segment(stage, styles[stage], ms, round(before * share, 2), round(ms * share, 2)))
        before += ms
    return tuple(segments)


def mean_stages(cards: Sequence[Card], styles: Mapping[str, str]) -> dict[str, float]:
    """Average every stage over the cards, milliseconds; a card without a stage counts as zero."""
    return {stage: sum(card.milliseconds.get(stage, 0.0) for card in cards) / len(cards) for stage in styles}
