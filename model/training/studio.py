"""Backgrounds as a photographer's studio has them: plain, graded, lit from one side, with a horizon."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


def studio(rng: Generator, height: int, width: int) -> NDArray[np.uint8]:
    """A studio background, uint8 [height, width, 3]."""
    low = _colour(rng)
    # Painted at a quarter of the size: it has no detail that would be lost.
    rows, columns = max(height // 4, 8), max(width // 4, 8)
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j].astype(np.float32)
    style = rng.random()
    if style < 0.25:
        ramp = np.zeros_like(x)
    elif style < 0.6:
        angle = rng.uniform(0, 2 * np.pi)
        ramp = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)
    else:
        cx, cy = rng.uniform(0.2, 0.8, 2)
        ramp = np.sqrt((x - cx) ** 2 + (y - cy) ** 2) * rng.uniform(0.6, 1.4)
    high = low + rng.normal(0, 45, 3) if rng.random() < 0.5 else low + rng.uniform(-70, 70)
    picture = low + ramp[..., None] * (high - low)
    if rng.random() < 0.2:  # a table or the fold of a backdrop
        horizon = rng.uniform(0.5, 0.9)
        softness = rng.uniform(0.005, 0.1)
        ground = 1 / (1 + np.exp(-np.clip((y - horizon) / softness, -30, 30)))
        picture = picture + ground[..., None] * rng.uniform(-50, 40)
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _colour(rng: Generator) -> NDArray[np.float64]:
    """White and grey are what products are shot on; any colour may come."""
    style = rng.random()
    if style < 0.35:
        return np.full(3, rng.uniform(225, 255)) + rng.normal(0, 3, 3)
    if style < 0.6:
        return np.full(3, rng.uniform(10, 225)) + rng.normal(0, 6, 3)
    return rng.uniform(0, 255, 3)
