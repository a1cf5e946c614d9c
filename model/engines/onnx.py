"""ONNX Runtime: on the processor the engine where there is no GPU; on a GPU where onnxruntime-gpu is installed."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.catalogue import ModelSpec
from model.engines.base import EngineError, EngineLostError, check_alpha, check_images
from model.heap import trim
from pipeline.errors import SetupError

_WITH_CUDA = (
    "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'; from 1.27 on it is made for CUDA 13, "
    "for a driver with CUDA 12 (nvidia-smi shows it) ask for 'onnxruntime-gpu[cuda,cudnn]<1.27'"
)


class OnnxEngine:
    """Runs the images of a batch side by side, one to a thread; on a GPU the batch in one call.

    A processor gains nothing from batches. Measured with u2netp, batch 8, two threads on two cores: images side by
    side 3.2/s, 604 ms of processor time each, 0.6 GB in all; one image after the other on both threads 2.9/s, 667 ms,
    0.35 GB; the batch in one call 2.9/s, 670 ms, 2.4 to 4.1 GB, because every activation is there eight times. On
    cores that others use too, side by side costs 618 ms and one after the other 725: nothing waits for a slower twin.

    Args:
        path: a model.onnx that fulfils the contract (see `model.catalogue.CONTRACT`).
        spec: the model's name and size buckets.
        max_batch: the most images in one call.
        threads: images worked on at once; each takes its own activations, 270 MB for u2netp. 1 on a GPU.
        cuda: run on CUDA device 0; False: on the processor.
        beside: milliseconds of processor time that the same cores spend on each image beside the engine. `warm_up` then
            lowers `threads` to the engine's share of the work.

    Raises:
        SetupError: when the file cannot be loaded, does not fulfil the contract, or CUDA is asked for and not there.
    """

    def __init__(
        self, path: Path, spec: ModelSpec, max_batch: int, threads: int, cuda: bool = False, beside: float = 0.0
    ) -> None:
        self.size_buckets = spec.size_buckets
        self.max_batch = max_batch
        self._cuda = cuda
        self._beside = beside  # until it was heeded
        self._at_once = max_batch if cuda else 1
        self._session: onnxruntime.InferenceSession | None = _load(path, spec.name, cuda)
        self._use(threads)

    def _use(self, threads: int) -> None:
        where = "CUDA" if self._cuda else f"CPU, {threads} thread{'s' if threads > 1 else ''}"
        self.name = f"onnxruntime {onnxruntime.__version__} {where}"
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="onnx")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._session = None

    def warm_up(self) -> None:
        """See `Engine.warm_up`; here a batch that gives every thread one image is as good as a full one."""
        if self._beside:
            self._leave_room()
        for size_bucket in self.size_buckets:
            for batch in sorted({1, self._at_once, min(self._threads, self.max_batch)}):
                self.infer(np.zeros((batch, size_bucket.height, size_bucket.width, 3), np.uint8))

    def _leave_room(self) -> None:
        """Use no more threads than the engine has of the work: each takes memory."""
        largest = max(self.size_buckets, key=lambda size: size.height * size.width)
        image = np.zeros((1, largest.height, largest.width, 3), np.uint8)
        self.infer(image)
        started = time.process_time()
        self.infer(image)
        own = (time.process_time() - started) * 1000
        beside, self._beside = self._beside, 0.0
        needed = max(math.ceil(self._threads * own / (own + beside)), 1)
        if needed < self._threads:
            self._pool.shutdown()
            self._use(needed)

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Engine.infer`."""
        check_images(images, self.size_buckets, self.max_batch)
        session = self._session
        if session is None:
            raise EngineError("The engine is closed.")
        alpha = np.empty(images.shape[:3], np.uint8)

        def run(start: int) -> None:
            part = images[start : start + self._at_once]  # [n, H, W, 3] uint8
            outputs = session.run(None, {"images": part})
            check_alpha(outputs[0], part)  # [n, H, W] uint8
            alpha[start : start + self._at_once] = outputs[0]

        try:
            for _ in self._pool.map(run, range(0, len(images), self._at_once)):
                pass
        except EngineError:
            raise
        except Exception as error:  # ONNX Runtime's own errors have no common base
            # It owns the context and does not let us ask whether that is still there.
            lost = "CUDA failure" in str(error) and "out of memory" not in str(error)
            raise (EngineLostError if lost else EngineError)(f"ONNX Runtime failed: {error}") from error
        return alpha


def _load(path: Path, name: str, cuda: bool) -> onnxruntime.InferenceSession:
    provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise SetupError(f"This onnxruntime {onnxruntime.__version__} knows no CUDA.", _WITH_CUDA)
    if cuda:
        onnxruntime.preload_dlls()  # CUDA and cuDNN lie in wheels, where the loader does not look
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # the pattern takes 200 MB a thread for u2netp and saves no time
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle engine uses no processor
    options.log_severity_level = 3  # errors
    hint = f"mattemill model fetch {name}"
    # Left alone, the provider for CUDA rounds to TF32, whose 10 bits are no more than FP16 has.
    chosen = (provider, {"use_tf32": "0"} if cuda else {})
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[chosen])
    except Exception as error:  # ONNX Runtime's own errors have no common base
        or_cuda = f"; if CUDA is to blame: {_WITH_CUDA}" if cuda else ""
        raise SetupError(f"ONNX Runtime cannot load {path}: {error}", hint + or_cuda) from error
    trim()  # loading has freed twice the model's size, and the first images would be laid between what is left of it
    if session.get_providers()[0] != provider:  # it falls back to the processor with a warning
        raise SetupError(
            f"ONNX Runtime cannot use CUDA here; it would run on {session.get_providers()[0]}. Most often its CUDA or "
            "cuDNN is missing, or newer than the driver.",
            _WITH_CUDA,
        )
    ends = [(end.name, end.type, len(end.shape)) for end in (*session.get_inputs(), *session.get_outputs())]
    expected = [("images", "tensor(uint8)", 4), ("alpha", "tensor(uint8)", 3)]
    if ends != expected:
        raise SetupError(f"{path} does not fulfil the contract: it has {ends}, expected {expected}.", hint)
    return session
