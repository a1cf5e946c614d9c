"""Draws where the cores' time goes in `bench.throughput`: from what nobody could leave out down to what we could.

python -m bench.throughput_plot [bench/results/throughput.json ...] [docs/limit.webp]
"""

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.machine import ROOT

WIDTH, LABEL, BAR, ROW, TITLE = 1020, 290, 560, 26, 48
NEEDED, SERVER, OURS, INK = "#1f6f5c", "#a9b4bf", "#c2703d", "#20262c"
RESULTS = [ROOT / "bench" / "results" / name for name in ("throughput.json", "throughput_12.json")]


def parts(answer: dict) -> list[tuple[str, float, str]]:  # type: ignore[type-arg]
    """What one image took of the cores, in milliseconds: name, share and colour; they add up to cores / images/s."""
    steps, processes = answer["unavoidable_cpu_ms_an_image"], answer["cpu_ms_an_image_by_process"]
    per_image = 1000 * answer["machine"]["cores"] / answer["images_per_second"]
    s3 = answer["s3_cpu_ms_an_image"]
    # The encode stage fetches the photo once more; the limit counts one fetch.
    spent = {
        "GPU worker, beside inferring": processes["workers.gpu"] - steps["infer"],
        "loaders, beside fetch and decode": processes["children of workers.gpu"]
        - steps["fetch"]
        - steps["decode and letterbox"],
        "encode children: second fetch, rest": processes["children of workers.cpu"] - steps["cutout"] - steps["upload"],
        "encode parent": processes["workers.cpu"],
        "Redis": processes["Redis"],
        "S3 server: second GET, rest": processes["S3"] - s3,
        "producer, supervisors, housekeeping": sum(
            processes.get(name, 0.0) for name in ("producer", "supervisors", "workers.finisher")
        ),
    }
    found = [(name, value, NEEDED) for name, value in sorted(steps.items(), key=lambda one: -one[1])]
    found.append(("S3 server: one GET, one PUT", s3, SERVER))
    found += [(name, value, OURS) for name, value in sorted(spent.items(), key=lambda one: -one[1])]
    rest = per_image - sum(value for _, value, _ in found)
    return [*found, ("idle, and all else on the machine", rest, OURS)]


def draw(answers: list[dict], target: Path) -> None:  # type: ignore[type-arg]
    """Write the picture; its ending says how."""
    rows = [parts(answer) for answer in answers]
    height = sum(TITLE + ROW * len(one) for one in rows) + 24
    image = Image.new("RGB", (WIDTH, height), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    top = 0
    for answer, one in zip(answers, rows, strict=True):
        total = sum(value for _, value, _ in one)
        low, high = answer["megapixels"]
        what = f"{low:g} to {high:g}" if low != high else f"{low:g}"
        title = f"{answer['photos']} photos of {what} megapixels: {total:.0f} ms of a core for one image"
        pen.text((LABEL, top + 18), title, INK, font)
        top, left = top + TITLE, 0.0
        for name, value, colour in one:
            begin, end = sorted((LABEL + BAR * left / total, LABEL + BAR * (left + value) / total))
            pen.text((LABEL - 10, top + ROW // 2), name, INK, font, anchor="rm")
            pen.rectangle((begin, top + 4, max(end, begin + 1), top + ROW - 4), colour)
            pen.text((end + 8, top + ROW // 2), f"{value:.1f}", INK, font, anchor="lm")
            top, left = top + ROW, left + value
    image.save(target)


def main() -> None:
    paths = [Path(argument) for argument in sys.argv[1:]]
    target = paths.pop() if paths else ROOT / "docs" / "limit.webp"
    sources = paths or [path for path in RESULTS if path.exists()]
    draw([json.loads(source.read_text()) for source in sources], target)


if __name__ == "__main__":
    main()
