"""Prove by running it that a wrapped network still computes what the network computed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from engine_build.batch import QUANTISES
from engine_build.network import inputs_of
from engine_build.wrap import INPUT, Recipe, Wrapped
from pipeline.errors import SetupError
from pipeline.ids import SizeBucket

_LARGE: Final = 1 << 20  # pixels of an image of which three at once would take too much memory
_LEVELS: Final = 1  # of 255, that rounding may differ by; FP16 has steps of half a level near 1
_PROBABILITY: Final = (-0.5, 1.5)  # beyond that an output is surely no probability


@dataclass(frozen=True, slots=True)
class Proof:
    """What a comparison found.

    Attributes:
        batch: images in the batch that was compared with the same images one by one.
        worst_batch: largest difference between the two, in levels of 255.
        worst_wrap: largest difference to the network as it was, in levels of 255.
        lowest: of what the network gave, before any sigmoid.
        highest: of the same.
    """

    batch: int
    worst_batch: int
    worst_wrap: float
    lowest: float
    highest: float


def prove(wrapped: Wrapped, recipe: Recipe, sizes: Sequence[SizeBucket]) -> Proof:
    """Run the network as it was and as it is now on the same made-up photos, at every size.

    Raises:
        SetupError: when the network cannot run, gives something else in a batch or once wrapped, or does not give
            what the recipe says.
    """
    before, after = _session(wrapped.core.SerializeToString()), _session(wrapped.model)
    proofs = []
    for size in sizes:
        images = pictures(_count(size), size)
        own = _as_it_was(before, wrapped, recipe, images)
        alone, worst_batch = _batch(after, images, wrapped.freed.lost)
        worst_wrap = float(np.abs(alone - _levels(own, recipe.sigmoid)).max())
        if worst_wrap > _LEVELS + 0.5:  # rounded once more
            raise SetupError(f"The wrapped network differs from the network by {worst_wrap:.1f} of 255 at {size}.")
        proofs.append(Proof(len(images), worst_batch, worst_wrap, float(own.min()), float(own.max())))
    proof = Proof(
        min(one.batch for one in proofs),
        max(one.worst_batch for one in proofs),
        max(one.worst_wrap for one in proofs),
        min(one.lowest for one in proofs),
        max(one.highest for one in proofs),
    )
    _check_range(proof, recipe)
    return proof


def prove_batch(model: bytes, sizes: Sequence[SizeBucket]) -> int:
    """Compare batches with their images one by one, for a model.onnx in the contract; gives the largest difference.

    Raises:
        SetupError: when it cannot run or a batch gives something else.
    """
    session = _session(model)
    return max(_batch(session, pictures(_count(size), size), "")[1] for size in sizes)


def run_contract(model: bytes, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Alpha, uint8 [N, H, W], of images, uint8 [N, H, W, 3], by a model.onnx in the contract.

    Raises:
        SetupError: when it cannot run.
    """
    return np.asarray(_run(_session(model), INPUT, images, "The model cannot run"), np.uint8)


def pictures(count: int, size: SizeBucket) -> NDArray[np.uint8]:
    """Made-up photos, uint8 [count, H, W, 3], always the same: a thing before a sky, blurred colours, noise."""
    random = np.random.default_rng(20)
    height, width = size.height, size.width
    images = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        coarse = random.integers(0, 256, (4 + index, 5, 3), np.uint8)
        cv2.resize(coarse, (width, height), dst=images[index], interpolation=cv2.INTER_CUBIC)
        if index % 3 == 0:
            colour = random.integers(0, 256, 3).tolist()
            cv2.circle(images[index], (width // 2, height * 3 // 5), min(height, width) // 4, colour, -1)
        elif index % 3 == 2:
            images[index] = random.integers(0, 256, (height, width, 3), np.uint8)
    return images


def _count(size: SizeBucket) -> int:
    return 2 if size.height * size.width >= _LARGE else 3


def _as_it_was(
    session: onnxruntime.InferenceSession, wrapped: Wrapped, recipe: Recipe, images: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """What the network gave before it was wrapped, image by image: [N, H, W]."""
    count, height, width, _ = images.shape
    size = SizeBucket(height, width)
    entry = inputs_of(wrapped.core.graph)[0]
    half = entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    normalised = ((images / 255 - recipe.mean) / recipe.std).transpose(0, 3, 1, 2)  # [N, 3, H, W]
    planes = np.ascontiguousarray(normalised, np.float16 if half else np.float32)
    own = np.empty((count, height, width), np.float32)
    for index in range(count):
        result = _run(session, entry.name, planes[index : index + 1], f"The network cannot run at {size}")
        if result.size != height * width:
            raise SetupError(f"The network gives {list(result.shape)} for an image of {size}, expected [1, 1, H, W].")
        own[index] = result.reshape(height, width)
    if not np.isfinite(own).all():
        raise SetupError(f"The network gives values that are no numbers at {size}.")
    return own


def _batch(
    session: onnxruntime.InferenceSession, images: NDArray[np.uint8], lost: str
) -> tuple[NDArray[np.int16], int]:
    """The alpha of images one by one, and how far those of a batch are from them.

    Args:
        session: a model in the contract.
        images: uint8 [N, H, W, 3].
        lost: the likely reason for trouble; may be empty.
    """
    count, size = len(images), SizeBucket(*images.shape[1:3])
    because = f" ({lost})" if lost else ""
    hint = "use its version of floats" if QUANTISES in lost else "export the network with a dynamic batch"
    single = f"The wrapped network cannot run at {size}"
    alone = np.concatenate([_run(session, INPUT, images[index : index + 1], single) for index in range(count)])
    what = f"The network cannot run a batch of {count}{because}"
    together = _run(session, INPUT, images, what, hint)
    if together.shape != images.shape[:3] or alone.shape != images.shape[:3]:
        raise SetupError(f"{what}: it gives {list(together.shape)}, expected {list(images.shape[:3])}.", hint)
    worst = int(np.abs(together.astype(np.int16) - alone).max())
    if worst > _LEVELS:
        raise SetupError(
            f"A batch of {count} images at {size} gives other results than the images one by one, "
            f"by up to {worst} of 255{because}.",
            hint,
        )
    return alone.astype(np.int16), worst


def _check_range(proof: Proof, recipe: Recipe) -> None:
    spread = f"from {proof.lowest:.3g} to {proof.highest:.3g}"
    if not recipe.sigmoid and not (_PROBABILITY[0] <= proof.lowest and proof.highest <= _PROBABILITY[1]):
        hint = "give --sigmoid if these are logits" if proof.lowest < 0 else "choose another output with --output"
        raise SetupError(f"The network's output goes {spread}, which is no probability.", hint)
    if recipe.sigmoid and proof.lowest >= 0 and proof.highest <= 1:
        raise SetupError(
            f"The network's output goes {spread}: it seems to be a probability already, and no sigmoid is needed.",
            "leave --sigmoid away, or give --no-sigmoid where a preset asks for one",
        )


def _levels(output: NDArray[np.float32], sigmoid: bool) -> NDArray[np.float64]:
    """What the alpha should be, in levels of 255, not rounded."""
    probability = output.astype(np.float64)
    if sigmoid:
        probability = 1 / (1 + np.exp(-np.clip(probability, -80, 80)))
    return probability.clip(0, 1) * 255


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors have no common base
        raise SetupError(f"ONNX Runtime cannot load the network: {_first_line(error)}.") from error


def _run(
    session: onnxruntime.InferenceSession, name: str, images: NDArray[np.generic], what: str, hint: str = ""
) -> NDArray[np.generic]:
    try:
        return np.asarray(session.run(None, {name: images})[0])
    except Exception as error:  # ONNX Runtime's own errors have no common base
        raise SetupError(f"{what}: {_first_line(error)}.", hint) from error


def _first_line(error: Exception) -> str:
    """What ONNX Runtime says, without its error numbers and places in its own source."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    found = re.search(r"running (\w+) node\. Name:'([^']*)' Status Message: (.*)", text)
    if found is None:
        return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text).rstrip(".")
    kind, name, why = found.groups()
    why = re.sub(r"^\S*onnxruntime_src.*\) (const )?", "", why.split("was false. ")[-1])
    return f"{kind} {name!r}: {why.rstrip('.')}"
