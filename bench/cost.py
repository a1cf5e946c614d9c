"""What images cost: `python -m bench.cost --price-per-hour 1.20 --images-per-second 40 [--encode-cpu-ms 60 ...]`.

    GPU    = price of the GPU machine per hour / (images/s * 3600)
    encode = CPU seconds an image / usable share of a core * price of a core per hour / 3600
    S3     = (GETs * price of a GET + PUTs and lists * price of a PUT), an image

All but the requests is asked for: no price is known here, and how fast a GPU is tells `mattemill engine bench`.
"""

import argparse
from dataclasses import dataclass

GETS, PUTS, LISTED = 2, 1, 1000
"""An image: a GET by each stage, a PUT; keys in a page of a listing."""


@dataclass(frozen=True)
class Cost:
    """Money for one image, in the currency of the prices."""

    gpu: float
    encode: float
    requests: float

    @property
    def total(self) -> float:
        return self.gpu + self.encode + self.requests


def cost(
    price_per_hour: float,
    images_per_second: float,
    encode_cpu_ms: float = 0.0,
    core_per_hour: float = 0.0,
    usable: float = 0.8,
    thousand_gets: float = 0.0,
    thousand_puts: float = 0.0,
) -> Cost:
    if price_per_hour < 0 or images_per_second <= 0 or not 0 < usable <= 1:
        raise ValueError("prices are not negative, images/s above 0, the usable share above 0 and at most 1")
    return Cost(
        gpu=price_per_hour / images_per_second / 3600,
        encode=encode_cpu_ms / 1000 / usable * core_per_hour / 3600,
        requests=(GETS * thousand_gets + (PUTS + 1 / LISTED) * thousand_puts) / 1000,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--price-per-hour", type=float, required=True, help="of the machine with the GPU")
    parser.add_argument("--images-per-second", type=float, required=True, help="of that GPU; mattemill engine bench")
    parser.add_argument("--encode-cpu-ms", type=float, default=0, help="of your photos; python -m bench.stage")
    parser.add_argument("--core-per-hour", type=float, default=0, help="0 where the GPU's machine has cores enough")
    parser.add_argument("--usable", type=float, default=0.8, help="share of a core that does such work")
    parser.add_argument("--thousand-gets", type=float, default=0, help="price of 1000 GETs or HEADs")
    parser.add_argument("--thousand-puts", type=float, default=0, help="price of 1000 PUTs or listings")
    parser.add_argument("--images", type=int, default=100_000)
    asked = vars(parser.parse_args())
    images = asked.pop("images")
    found = cost(**asked)
    for name, price in {"GPU": found.gpu, "encode": found.encode, "S3": found.requests, "in all": found.total}.items():
        print(f"{name:8}{price * images:10.2f} for {images} images")


if __name__ == "__main__":
    main()
