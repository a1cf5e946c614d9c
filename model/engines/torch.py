"""PyTorch: FP16 with CUDA graphs on a GPU, the yardstick for TensorRT; FP32 on the processor."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.engines.base import EngineError, EngineLostError, check_alpha, check_images
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

_WARM_RUNS = 3
"""Runs before a capture: cuDNN chooses its algorithms in them, which must not be recorded."""


@dataclass(frozen=True, slots=True)
class _Graph:
    """A recorded run: write the images, replay, read the alpha."""

    replay: Callable[[], object]
    images: Tensor  # [n, H, W, 3] uint8, on the device
    alpha: Tensor  # [n, H, W] uint8, on the device


class TorchEngine:
    """Runs one of Mattemill's own networks.

    On a GPU in FP16, channels last, normalising and sigmoid in FP32; every run is a CUDA graph recorded for the next
    power of two of the batch, the images beyond the batch being left over from the last. On the processor in FP32,
    one image after the other: batches gain nothing there, and so an alpha never depends on its neighbours.

    Args:
        network: in FP32, ready for inference, see `model.networks`; with weights. It is copied.
        size_buckets: the sizes in pixels that the model runs at.
        max_batch: the most images in one call.
        cuda: run on CUDA device 0; False: on the processor.
        half: FP16 on a GPU; False: FP32 there too, to compare with.

    Raises:
        SetupError: when CUDA is asked for and PyTorch has none.
    """

    def __init__(
        self,
        network: nn.Module,
        size_buckets: tuple[SizeBucket, ...],
        max_batch: int,
        cuda: bool,
        half: bool = True,
    ) -> None:
        if cuda and not torch.cuda.is_available():
            raise SetupError(
                f"PyTorch {torch.__version__} finds no CUDA device.",
                "install a PyTorch with CUDA (https://pytorch.org/get-started) and the NVIDIA driver",
            )
        where = torch.cuda.get_device_name(0) if cuda else f"CPU, {torch.get_num_threads()} threads"
        self.name = f"torch {torch.__version__} {'FP16' if cuda and half else 'FP32'}, {where}"
        self.size_buckets = size_buckets
        self.max_batch = max_batch
        self._cuda = cuda
        self._contract: nn.Module | None = Contract(network, half=cuda and half).eval()
        self._graphs: dict[tuple[int, int, int], _Graph] = {}
        self._fits = dict.fromkeys(size_buckets, max_batch)
        if cuda:
            torch.backends.cudnn.benchmark = True  # shapes are few and stay the same: trying pays
            self._contract.to("cuda")
            for weights in self._contract.parameters():
                if weights.dim() == 4:
                    weights.data = weights.data.contiguous(memory_format=torch.channels_last)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._graphs.clear()
        self._contract = None

    def warm_up(self) -> None:
        """See `Engine.warm_up`; on a GPU every graph is recorded here."""
        for size_bucket in self.size_buckets:
            for batch in reversed(rungs(self.max_batch)) if self._cuda else (1,):
                self.infer(np.zeros((batch, size_bucket.height, size_bucket.width, 3), np.uint8))

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Engine.infer`."""
        check_images(images, self.size_buckets, self.max_batch)
        if self._contract is None:
            raise EngineError("The engine is closed.")
        alpha = np.empty(images.shape[:3], np.uint8)
        size_bucket, done = SizeBucket(images.shape[1], images.shape[2]), 0
        while done < len(images):
            count = min(self._fits[size_bucket] if self._cuda else 1, len(images) - done)
            part = images[done : done + count]
            try:
                with torch.inference_mode():
                    got = self._run_graph(part) if self._cuda else self._contract(torch.tensor(part)).numpy()
            except torch.OutOfMemoryError as error:
                self._graphs.clear()
                torch.cuda.empty_cache()
                if count == 1:
                    raise EngineError(f"The GPU has not enough memory for one image: {_first_line(error)}") from error
                self._fits[size_bucket] = count // 2
                continue
            except RuntimeError as error:
                self._look_after(error)
                raise EngineError(f"PyTorch failed: {_first_line(error)}") from error
            check_alpha(got, part)
            alpha[done : done + count] = got
            done += count
        return alpha

    def _run_graph(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        count, height, width, _ = images.shape
        rung = next(one for one in rungs(self.max_batch) if one >= count)
        graph = self._graphs.get((rung, height, width))
        if graph is None:
            graph = self._graphs[rung, height, width] = self._record(rung, height, width)
        graph.images[:count].copy_(torch.tensor(images))
        graph.replay()
        got: NDArray[np.uint8] = graph.alpha[:count].cpu().numpy()
        return got

    def _record(self, count: int, height: int, width: int) -> _Graph:
        assert self._contract is not None
        images = torch.zeros((count, height, width, 3), dtype=torch.uint8, device="cuda")
        for _ in range(_WARM_RUNS):
            self._contract(images)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            alpha = self._contract(images)
        return _Graph(graph.replay, images, alpha)

    def _look_after(self, error: RuntimeError) -> None:
        """After an error: is the context still there?

        Raises:
            EngineLostError: when it is not.
        """
        if not self._cuda:
            return
        try:
            torch.cuda.synchronize()
        except RuntimeError as second:
            raise EngineLostError(f"The GPU's context is gone: {_first_line(second)}") from error


class Contract(nn.Module):
    """A network between uint8 images and uint8 alpha, its inside in FP16 where `half`.

    Args:
        network: gives logits [N, 1, H, W] for float [N, 3, H, W] in 0..1; its `normalise` comes first. It is copied.
        half: everything behind `normalise`, and in front of the sigmoid, in FP16.
    """

    def __init__(self, network: nn.Module, half: bool) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.normalise = self.network.get_submodule("normalise")
        self.network.set_submodule("normalise", nn.Identity())
        self.kind = torch.float16 if half else torch.float32
        self.network.to(self.kind)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] -> uint8 [N, H, W]."""
        rgb = (images.float() / 255).permute(0, 3, 1, 2)  # [N, 3, H, W] float32, and so channels last in memory
        logits = self.network(self.normalise(rgb).to(self.kind))  # [N, 1, H, W]
        levels = torch.sigmoid(logits.float()) * 255 + 0.5
        return levels.clamp(0, 255).squeeze(1).to(torch.uint8)


def rungs(max_batch: int) -> list[int]:
    """The batches that graphs are recorded for: powers of two, and the largest."""
    powers = [1 << power for power in range(max_batch.bit_length()) if 1 << power < max_batch]
    return [*powers, max_batch]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
