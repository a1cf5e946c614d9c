"""What is done to pictures on their way into a sample; all take and give uint8."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

_LUMA = np.array((0.299, 0.587, 0.114), np.float32)


def over(top: NDArray[np.uint8], bottom: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay premultiplied RGBA on RGB or on premultiplied RGBA: uint8 [H, W, C] as `bottom`."""
    channels = bottom.shape[2]
    rest = 255 - top[..., 3:].astype(np.uint16)
    return (top[..., :channels] + (bottom * rest + 127) // 255).clip(0, 255).astype(np.uint8)


def contrast(subject: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How far a premultiplied subject's colour and the background's are apart, uint8 [H, W].

    Where there is no subject its colour is unknown; a middling difference stands there.
    """
    alpha = subject[..., 3].astype(np.float32)
    colour = subject[..., :3] * (255 / np.maximum(alpha, 1))[..., None]
    difference = np.abs(colour - background).mean(2)
    return np.where(alpha > 8, np.minimum(difference, 255), 96).astype(np.uint8)


def recolour(rng: Generator, premultiplied: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Change brightness, contrast, saturation and warmth of a subject: uint8 [h, w, 4] premultiplied in and out.

    All of it is linear in colour and alpha, so that premultiplied colours need not be divided.
    """
    if rng.random() < 0.25:
        return premultiplied
    matrix = np.zeros((4, 4), np.float32)
    matrix[:3, :3] = _saturation(rng.uniform(0.5, 1.4)) * rng.uniform(0.7, 1.25)
    matrix[:3, :3] *= rng.uniform(0.9, 1.1, (3, 1))
    matrix[:3, 3] = rng.uniform(-0.12, 0.12)  # an offset, where there is alpha
    matrix[3, 3] = 1
    out = cv2.transform(premultiplied, matrix)
    # What rounding or clipping lifted above alpha would shine when laid on a background.
    return np.minimum(out, premultiplied[..., 3:])


def background(rng: Generator, rgb: NDArray[np.uint8], blur: bool = True) -> NDArray[np.uint8]:
    """Change light and colour of a background and sometimes put it out of focus: uint8 [H, W, 3] in and out."""
    if rng.random() < 0.7:
        matrix = np.zeros((3, 4), np.float32)
        matrix[:, :3] = _saturation(rng.uniform(0.4, 1.4)) * rng.uniform(0.6, 1.25)
        matrix[:, 3] = rng.uniform(-25, 25)
        rgb = np.asarray(cv2.transform(rgb, matrix), np.uint8)
    if blur and rng.random() < 0.35:
        rgb = np.asarray(cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.5, 4.0) * rgb.shape[0] / 256), np.uint8)
    return rgb


def crop(rng: Generator, picture: NDArray[np.uint8], height: int, width: int, smallest: float) -> NDArray[np.uint8]:
    """A part of a picture at a wanted size, mirrored half of the time: uint8 [height, width, C].

    Args:
        rng: source of chance.
        picture: uint8 [h, w, C].
        height: wanted, in pixels.
        width: wanted, in pixels.
        smallest: the least share of the largest possible part.
    """
    full = min(picture.shape[0] / height, picture.shape[1] / width)
    # Half of the parts are as large as can be: what a photographer framed.
    share = 1.0 if rng.random() < 0.5 else rng.uniform(smallest, 1.0)
    rows, columns = max(int(height * full * share), 1), max(int(width * full * share), 1)
    top = int(rng.integers(picture.shape[0] - rows + 1))
    left = int(rng.integers(picture.shape[1] - columns + 1))
    part = picture[top : top + rows, left : left + columns]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    interpolation = cv2.INTER_AREA if rows > height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=interpolation), np.uint8)


def place(
    rng: Generator, premultiplied: NDArray[np.uint8], height: int, width: int, scale: float, crop: bool
) -> NDArray[np.uint8]:
    """Turn, mirror, scale and move a subject into an empty frame: premultiplied uint8 [height, width, 4].

    Args:
        rng: source of chance.
        premultiplied: uint8 [h, w, 4].
        height: of the frame.
        width: of the frame.
        scale: size of the subject where it is largest, as a share of the frame.
        crop: whether the frame may cut it off where it would fit.
    """
    rows, columns = premultiplied.shape[:2]
    factor = scale * min(height / rows, width / columns)
    if scale > 1.0:  # larger than the frame: fill it, whatever the shapes
        factor = (scale - 0.2) * (height / rows + width / columns) / 2
    if factor < 0.6:  # warping alone would alias
        size = (max(round(columns * factor), 2), max(round(rows * factor), 2))
        premultiplied = np.asarray(cv2.resize(premultiplied, size, interpolation=cv2.INTER_AREA), np.uint8)
        factor = factor * rows / premultiplied.shape[0]
        rows, columns = premultiplied.shape[:2]
    angle = np.deg2rad(rng.normal(0, 6) if rng.random() < 0.8 else rng.uniform(-40, 40))
    cosine, sine = np.cos(angle) * factor, np.sin(angle) * factor
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    free_x, free_y = width - columns * factor, height - rows * factor
    x, y = width / 2 + _shift(rng, free_x, crop), height / 2 + _shift(rng, free_y, crop)
    if crop and scale <= 1.0 and rng.random() < 0.2:  # a portrait: cut off by the lower edge
        y = height - rows * factor * rng.uniform(0.2, 0.5)
    matrix = np.array(
        (
            (mirror * cosine, -sine, x - (mirror * cosine * columns - sine * rows) / 2),
            (mirror * sine, cosine, y - (mirror * sine * columns + cosine * rows) / 2),
        )
    )
    return np.asarray(cv2.warpAffine(premultiplied, matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def shadow(rng: Generator, rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Darken a background by a soft, shifted copy of a subject's shape: it belongs to the background."""
    height, width = alpha.shape
    matrix = np.array(((1, rng.uniform(-0.3, 0.3), 0.0), (0, rng.uniform(0.6, 1.0), 0.0)))
    matrix[:, 2] = rng.uniform(-0.08, 0.08, 2) * (width, height)
    matrix[1, 2] += (1 - matrix[1, 1]) * height * 0.9  # it lies on the ground
    small = (max(width // 2, 1), max(height // 2, 1))
    cast = cv2.resize(cv2.warpAffine(alpha, matrix, (width, height)), small, interpolation=cv2.INTER_AREA)
    cast = cv2.GaussianBlur(cast, (0, 0), rng.uniform(0.008, 0.05) * height)
    cast = cv2.resize(cast, (width, height), interpolation=cv2.INTER_LINEAR)
    dark = 255 - (cast * rng.uniform(0.15, 0.7)).astype(np.uint16)
    return (rgb * dark[..., None] // 255).astype(np.uint8)


def finish(rng: Generator, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What camera and file do to the whole picture: light, colour, softness, noise, JPEG. It also hides the seam."""
    if rng.random() < 0.3:
        gamma = np.exp(rng.uniform(-0.45, 0.45))
        table = (255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
        rgb = np.asarray(cv2.LUT(rgb, table), np.uint8)
    if rng.random() < 0.04:
        rgb = np.ascontiguousarray(np.repeat((rgb @ _LUMA).astype(np.uint8)[..., None], 3, 2))
    if rng.random() < 0.3:
        rgb = np.asarray(cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.3, 1.1)), np.uint8)
    if rng.random() < 0.3:
        noise = rng.standard_normal(rgb.shape, np.float32)
        noise *= rng.uniform(1, 9)
        rgb = (rgb + noise).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        _, data = cv2.imencode(".jpg", rgb, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))))
        rgb = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return rgb


def _saturation(factor: float) -> NDArray[np.float32]:
    matrix: NDArray[np.float32] = np.eye(3, dtype=np.float32) * factor + (1 - factor) * _LUMA
    return matrix


def _shift(rng: Generator, free: float, crop: bool) -> float:
    """How far from the middle: anywhere that fits, and past the edge where that is wanted."""
    reach = abs(free) / 2
    if crop and free > 0 and rng.random() < 0.15:
        reach = free / 2 + 0.15 * reach
    return float(rng.uniform(-reach, reach))
