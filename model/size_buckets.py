"""Which fixed sizes a model of dynamic sides is built for, and which of them a photo goes to."""

from collections.abc import Iterable, Sequence

from pipeline.ids import SizeBucket

MULTIPLE = 32
"""Sides are multiples of what the deepest network halves them to."""
ASPECTS = (1.0, 1.5)
"""Long side by short side. On the mix of `bench/padding.py` these two pad 6 % of the pixels; three pad 3 %, but make 15
sizes instead of 9: more contexts on the GPU and more images in flight for full batches."""
LONG_SIDES = (512, 768, 1024)


def size_buckets(
    longest: int = 1024, long_sides: Iterable[int] = LONG_SIDES, aspects: Sequence[float] = ASPECTS
) -> tuple[SizeBucket, ...]:
    """The sizes for a model whose native long side is `longest` pixels: landscape and portrait of every aspect."""
    sides = sorted({min(side, longest) for side in long_sides})
    found = set[SizeBucket]()
    for side in sides:
        for aspect in aspects:
            short = max(round(side / aspect / MULTIPLE), 1) * MULTIPLE
            found |= {SizeBucket(short, side), SizeBucket(side, short)}
    return tuple(sorted(found, key=lambda size: (size.height * size.width, size.height)))


def fit(height: int, width: int, sizes: Sequence[SizeBucket]) -> SizeBucket:
    """The size bucket for a photo of `height` x `width` pixels.

    A photo smaller than the largest sizes goes to the smallest class that holds it, for enlarging adds work and no
    detail. Within a class it goes where the least is padding.

    Raises:
        ValueError: when there are no sizes.
    """
    if not sizes:
        raise ValueError("a model has at least one size bucket")
    classes = sorted({max(size.height, size.width) for size in sizes})
    long_side = next((side for side in classes if side >= max(height, width)), classes[-1])
    candidates = [size for size in sizes if max(size.height, size.width) == long_side]
    return max(candidates, key=lambda size: share(height, width, size))


def share(height: int, width: int, size: SizeBucket) -> float:
    """The part of a size bucket's pixels that shows the photo when it is letterboxed, 0 to 1."""
    scale = min(size.height / height, size.width / width)
    return height * width * scale * scale / (size.height * size.width)
