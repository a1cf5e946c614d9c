"""Draws what `bench.against_peers` found: a bar for each side, its median, and a line from least to greatest.

python -m bench.peers_plot [bench/results/against_peers.json] [docs/peers.webp]
"""

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.machine import ROOT

COLUMNS = {
    "images_per_second": "images/s, warm (more is better)",
    "cpu_seconds": "CPU-seconds of the job (less is better)",
    "peak_mb": "peak memory, MB (less is better)",
    "first_seconds": "seconds to the first output (less is better)",
}
WIDTH, LABEL, BAR, ROW, TITLE = 900, 150, 620, 26, 44
OURS, THEIRS, INK = "#1f6f5c", "#a9b4bf", "#20262c"


def draw(answer: dict, target: Path) -> None:  # type: ignore[type-arg]
    """Write the picture; its ending says how."""
    sides = answer["sides"]
    height = len(COLUMNS) * (TITLE + ROW * len(sides)) + 24
    image = Image.new("RGB", (WIDTH, height), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    top = 0
    for column, title in COLUMNS.items():
        pen.text((LABEL, top + 18), title, INK, font)
        top += TITLE
        largest = max(side["warm"][column]["max"] for side in sides.values())
        for name, side in sides.items():
            value = side["warm"][column]
            middle = top + ROW // 2
            end, least, greatest = (LABEL + BAR * value[what] / largest for what in ("median", "min", "max"))
            pen.text((LABEL - 10, middle), name, INK, font, anchor="rm")
            pen.rectangle((LABEL, top + 4, end, top + ROW - 4), OURS if name == "mattemill" else THEIRS)
            pen.line((least, middle, greatest, middle), INK, 2)
            pen.text(
                (greatest + 10, middle), f"{value['median']:.{0 if largest >= 100 else 2}f}", INK, font, anchor="lm"
            )
            top += ROW
    image.save(target)


def main() -> None:
    paths = [Path(argument) for argument in sys.argv[1:]]
    source = paths[0] if paths else ROOT / "bench" / "results" / "against_peers.json"
    draw(json.loads(source.read_text()), paths[1] if len(paths) > 1 else ROOT / "docs" / "peers.webp")


if __name__ == "__main__":
    main()
