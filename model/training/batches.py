"""Batches for the trainer, made beside its steps by a thread or, for a GPU, by processes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.training.compose import Composer, Sample
from model.training.config import Phase, TrainingConfig
from model.training.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one size as tensors.

    Attributes:
        images: float [N, 3, H, W] in 0..1.
        alpha, contrast: float [N, 1, H, W] in 0..1.
        weight: float [N].
        side: the long side, in pixels.
    """

    images: Tensor
    alpha: Tensor
    contrast: Tensor
    weight: Tensor
    side: int


class Batches:
    """Makes the batch of any step of a rank; the same step always gives the same batch.

    Args:
        composer: makes samples.
        config: sizes, seed.
        rank: which of the processes that share a step.
        teacher: labels some composites, where the configuration asks for it.
    """

    def __init__(self, composer: Composer, config: TrainingConfig, rank: int, teacher: Teacher | None) -> None:
        self._composer = composer
        self._config = config
        self._rank = rank
        self._teacher = teacher

    def make(self, step: int, phase: Phase) -> Batch:
        """The batch of a step."""
        # One size for all ranks: the slowest decides how long a step takes.
        shared = np.random.default_rng((self._config.seed, step))
        side = int(shared.choice(phase.sides))
        short = side if shared.random() < 0.4 else max(side * 3 // 4 // 32 * 32, 32)
        height, width = (side, short) if shared.random() < 0.5 else (short, side)
        count = max(2, round(phase.batch * phase.sides[0] ** 2 / (height * width)))
        samples = []
        for number in range(count):
            rng = np.random.default_rng((self._config.seed, step, self._rank, number))
            samples.append(self._distilled(self._composer.sample(rng, height, width), rng))
        return _tensors(samples, side)

    def _distilled(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self._teacher is None or rng.random() >= self._config.distillation:
            return sample
        return Sample(sample.image, self._teacher.label(sample.image).alpha, sample.contrast, 0.5)


class Ahead:
    """Makes the next batches in threads while a step is computed: NumPy and OpenCV free the interpreter's lock.

    Args:
        batches: makes them.
        depth: batches under way at most, one thread each.
    """

    def __init__(self, batches: Batches, depth: int) -> None:
        self._batches = batches
        self._depth = depth
        self._pool = ThreadPoolExecutor(depth, thread_name_prefix="compose")

    def follow(self, step: int, phase: Phase) -> Iterator[Batch]:
        """Batches from `step` on, without end; a new phase needs a new call."""
        waiting = [self._pool.submit(self._batches.make, step + ahead, phase) for ahead in range(self._depth)]
        following = step + self._depth
        try:
            while True:
                batch = waiting.pop(0).result()
                waiting.append(self._pool.submit(self._batches.make, following, phase))
                following += 1
                yield batch
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown(cancel_futures=True)


def _tensors(samples: list[Sample], side: int) -> Batch:
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))  # [N, H, W, 3] uint8
    alpha = torch.from_numpy(np.stack([sample.alpha for sample in samples]))
    contrast = torch.from_numpy(np.stack([sample.contrast for sample in samples]))
    return Batch(
        # The strides of this permutation are what channels_last means: nothing is copied twice.
        images=images.permute(0, 3, 1, 2).float() / 255,
        alpha=alpha.unsqueeze(1).float() / 255,
        contrast=contrast.unsqueeze(1).float() / 255,
        weight=torch.tensor([sample.weight for sample in samples]),
        side=side,
    )
