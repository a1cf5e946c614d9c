"""Weights of Mattemill's networks in PyTorch: read what a training saved, and write it small."""

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from model.networks import build
from pipeline.errors import SetupError

_INSIDE = ("ema", "state_dict", "model", "network", "net", "weights", "params")
"""Where training scripts keep the weights in what they save; averaged ones first, because they are the better ones."""
_PREFIXES = ("module.", "_orig_mod.", "network.", "net.", "model.")  # of DataParallel, torch.compile, wrappers
_ONLY_TRAINING = ("auxiliary.", "num_batches_tracked")
_TORCH = (b"PK\x03\x04", b"\x80")  # zip archives, and the bare pickles of old versions
_LISTED = 8  # names of each kind in one error


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights by layer name.

    Attributes:
        weights: as they were saved.
        sha256: of the file.
    """

    weights: Mapping[str, Tensor]
    sha256: str


def read_checkpoint(file: Path) -> Checkpoint:
    """Read a safetensors file or what `torch.save` wrote; no code in it is run.

    Raises:
        SetupError: when it cannot be read or holds no weights.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SetupError(
            f"{file} cannot be read: {error.strerror}.", "give a .pth, .pt or .safetensors file"
        ) from error
    return parse_checkpoint(data, str(file))


def parse_checkpoint(data: bytes, called: str) -> Checkpoint:
    """As `read_checkpoint`, of a file's bytes.

    Raises:
        SetupError: when they hold no weights.
    """
    try:
        if data.startswith(_TORCH):
            weights = _weights_in(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
        else:
            weights = load_tensors(data)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise SetupError(
            f"{called} is no checkpoint that can be read safely: {reason}.",
            "save the weights alone: torch.save(network.state_dict(), FILE)",
        ) from error
    return Checkpoint(_without_prefix(weights), hashlib.sha256(data).hexdigest())


def load_network(name: str, checkpoint: Checkpoint) -> nn.Module:
    """A network with these weights, ready for inference.

    Of the light networks both orders of the decoder's layers are tried (see `model.networks.blocks.LightBlock`).

    Raises:
        SetupError: when there is no such network, or the weights do not fit; it lists what is missing, unknown, and of
            another shape.
    """
    best: list[str] | None = None
    for article_order in (False, True):
        network = build(name, article_order=article_order)
        wrong = _mismatch(network, checkpoint.weights)
        if not wrong:
            own = {key: value for key, value in checkpoint.weights.items() if not _only_training(key)}
            network.load_state_dict(own, strict=False)
            return network.eval()
        if best is None or sum(map(len, wrong)) < sum(map(len, best)):
            best = wrong
    raise SetupError(f"The checkpoint does not fit {name}: {'; '.join(best or [])}.", "is it of another network?")


def write_half(network: nn.Module) -> bytes:
    """The weights in FP16 as safetensors, without what only training needs: half the size of the ONNX file."""
    weights = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in network.state_dict().items()
        if not _only_training(key)
    }
    data: bytes = save_tensors(weights)
    return data


def _weights_in(saved: object) -> Mapping[str, Tensor]:
    """The weights in whatever a training script saved.

    Raises:
        ValueError: when there are none.
    """
    if isinstance(saved, Mapping):
        if saved and all(isinstance(value, Tensor) for value in saved.values()):
            return {str(key): value for key, value in saved.items()}
        for key in _INSIDE:
            if isinstance(saved.get(key), Mapping):
                try:
                    return _weights_in(saved[key])
                except ValueError:
                    continue
    raise ValueError("it holds no weights")


def _without_prefix(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Names as the network has them, where all of them carry what a wrapper put in front."""
    stripped = dict(weights)
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            if stripped and all(key.startswith(prefix) for key in stripped):
                stripped = {key.removeprefix(prefix): value for key, value in stripped.items()}
    return stripped


def _only_training(key: str) -> bool:
    return key.startswith(_ONLY_TRAINING[0]) or key.endswith(_ONLY_TRAINING[1])


def _mismatch(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """What keeps the weights from fitting, one sentence part for each kind."""
    expected = network.state_dict()
    missing = [key for key in expected if key not in weights and not _only_training(key)]
    unknown = [key for key in weights if key not in expected and not _only_training(key)]
    shapes = [
        f"{key} is {list(weights[key].shape)}, expected {list(value.shape)}"
        for key, value in expected.items()
        if key in weights and weights[key].shape != value.shape and not _only_training(key)
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
    return [f"{len(found)} {what}: {_listed(found)}" for what, found in kinds if found]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
