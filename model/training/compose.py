"""Training samples: subjects of known alpha on backgrounds, and photos whose alpha a teacher guessed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.training import augment
from model.training.pack import Entry, Pack
from model.training.sources import Kind
from model.training.split import Split
from model.training.studio import studio


@dataclass(frozen=True, slots=True)
class Sample:
    """One training picture.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        alpha: uint8 [H, W].
        contrast: uint8 [H, W]: how far subject and background differ in colour, so how much an error would show.
        weight: of its loss; less than 1 where a teacher made the alpha.
    """

    image: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    contrast: NDArray[np.uint8]
    weight: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How often what is composed; shares are of all samples unless said otherwise.

    Attributes:
        kinds: share of each kind among the subjects.
        pseudo_cutouts: share of photographic subjects that a teacher cut out.
        photos: whole photos with a teacher's alpha.
        photo_weight: weight of their loss.
        empty: backgrounds with no subject.
        studio: studio backgrounds among composites.
        distractors: composites with small things in the background that are not the subject.
        filling: subjects that fill the frame or are cut off by it.
    """

    kinds: Mapping[Kind, float]
    pseudo_cutouts: float = 0.25
    photos: float = 0.2
    photo_weight: float = 0.7
    empty: float = 0.03
    studio: float = 0.3
    distractors: float = 0.25
    filling: float = 0.3


class Composer:
    """Makes samples from a pack; what it makes depends on nothing but the generator it is given.

    Args:
        pack: the pictures.
        split: which part of them.
        recipe: how often what.
    """

    def __init__(self, pack: Pack, split: Split, recipe: Recipe) -> None:
        self._pack = pack
        self._recipe = recipe
        self._subjects: dict[Kind, list[Entry]] = {}
        for kind, share in recipe.kinds.items():
            entries = pack.select(split, "cutout", kind, pseudo=False)
            if entries and share > 0:
                self._subjects[kind] = entries
        self._pseudo = pack.select(split, "cutout", "photo", pseudo=True)
        self._photos = pack.select(split, "photo")
        self._backgrounds = pack.select(split, "background")
        shares = np.array([recipe.kinds[kind] for kind in self._subjects])
        self._shares = shares / shares.sum()

    def sample(self, rng: Generator, height: int, width: int) -> Sample:
        """One sample of `height` x `width` pixels."""
        if self._photos and rng.random() < self._recipe.photos:
            return self._photo(rng, height, width)
        return self._composite(rng, height, width)

    def _composite(self, rng: Generator, height: int, width: int) -> Sample:
        plain = rng.random() < self._recipe.studio
        background = studio(rng, height, width) if plain else self._background(rng, height, width)
        count = 0 if rng.random() < self._recipe.empty else int(rng.choice((1, 2, 3), p=(0.82, 0.14, 0.04)))
        if rng.random() < self._recipe.distractors * (0.3 if plain else 1.0) and count:
            background = self._distract(rng, background)
        fill = rng.random() < self._recipe.filling
        layers = [self._subject(rng, height, width, count, fill) for _ in range(count)]
        if layers and rng.random() < (0.6 if plain else 0.25):
            background = augment.shadow(rng, background, layers[0][..., 3])
        subject = np.zeros((height, width, 4), np.uint8)  # premultiplied
        for layer in layers:
            subject = augment.over(layer, subject)
        alpha = subject[..., 3]
        contrast = augment.contrast(subject, background)
        image = augment.finish(rng, augment.over(subject, background))
        return Sample(image, np.ascontiguousarray(alpha), contrast, 1.0)

    def _subject(self, rng: Generator, height: int, width: int, count: int, fill: bool) -> NDArray[np.uint8]:
        picture = augment.recolour(rng, self._cutout(rng))
        # Several share the frame; one alone may be larger than it.
        low, high = (0.25, 0.7) if count > 1 else (0.9, 1.6) if fill else (0.3, 1.0)
        scale = rng.uniform(low, high)
        return augment.place(rng, picture, height, width, float(scale), crop=count == 1)

    def _cutout(self, rng: Generator) -> NDArray[np.uint8]:
        kind = list(self._subjects)[int(rng.choice(len(self._subjects), p=self._shares))]
        pseudo = kind == "photo" and self._pseudo and rng.random() < self._recipe.pseudo_cutouts
        return self._pack.picture(_choose(rng, self._pseudo if pseudo else self._subjects[kind]))

    def _background(self, rng: Generator, height: int, width: int) -> NDArray[np.uint8]:
        picture = self._pack.picture(_choose(rng, self._backgrounds))
        return augment.background(rng, augment.crop(rng, picture, height, width, smallest=0.35))

    def _distract(self, rng: Generator, background: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Small things behind the subject, out of focus or dim: part of the background."""
        height, width = background.shape[:2]
        for _ in range(int(rng.integers(1, 3))):
            picture = augment.recolour(rng, self._cutout(rng))
            layer = augment.place(rng, picture, height, width, float(rng.uniform(0.12, 0.3)), crop=False)
            sigma = float(rng.uniform(0.4, 2.5)) * height / 256
            layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), sigma), np.uint8)
            background = augment.over(layer, background)
        return background

    def _photo(self, rng: Generator, height: int, width: int) -> Sample:
        labelled = self._pack.picture(_choose(rng, self._photos))
        part = augment.crop(rng, labelled, height, width, smallest=0.55)
        image = augment.finish(rng, augment.background(rng, np.ascontiguousarray(part[..., :3]), blur=False))
        alpha = np.ascontiguousarray(part[..., 3])
        return Sample(image, alpha, np.full((height, width), 96, np.uint8), self._recipe.photo_weight)


def _choose(rng: Generator, entries: Sequence[Entry]) -> Entry:
    return entries[int(rng.integers(len(entries)))]
