"""The state of a training run on disk: whatever interrupts it, a whole one is there."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

_VERSION = 1
_FRESH, _COUNTERS = "auxiliary.", "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        step: steps done.
        images: samples seen by all ranks.
        seconds: trained, pauses not counted.
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0


class Average:
    """Exponential moving average of a network's weights and norms: smoother, and better, than the last step's.

    Args:
        network: whose state it follows; it starts as a copy.
        decay: share kept at each step, less in the first steps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Follow the network after its `step`-th step."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


def save(
    path: Path, network_name: str, network: nn.Module, average: Average, optimiser: torch.optim.Optimizer, at: Progress
) -> None:
    """Replace the checkpoint as a whole. Chance needs no state: it is drawn from the seed and the step."""
    part = path.with_suffix(".part")
    state = {
        "version": _VERSION,
        "network": network_name,
        "model": network.state_dict(),
        "ema": average.state,
        "optimiser": optimiser.state_dict(),
        "step": at.step,
        "images": at.images,
        "seconds": at.seconds,
    }
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(
    path: Path, network_name: str, network: nn.Module, average: Average, optimiser: torch.optim.Optimizer
) -> Progress:
    """Put a run back to where its checkpoint was written.

    Raises:
        ValueError: when the checkpoint is another network's or another version's.
    """
    state = read(path, network_name)
    network.load_state_dict(state["model"])
    average.state = state["ema"]
    optimiser.load_state_dict(state["optimiser"])
    return Progress(int(state["step"]), int(state["images"]), float(state["seconds"]))


def averaged_weights(path: Path, network_name: str) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint, as a state_dict: what is evaluated and exported.

    Raises:
        ValueError: see `load`.
    """
    weights: dict[str, Tensor] = read(path, network_name)["ema"]
    return weights


def start_from(path: Path, network_name: str, network: nn.Module) -> None:
    """Give a network the averaged weights of an earlier run, or those of a .safetensors file that `model export` wrote.

    A .safetensors file knows nothing of what only training needs; that keeps its fresh weights.

    Raises:
        ValueError: when they are another network's.
    """
    if path.suffix != ".safetensors":
        network.load_state_dict(averaged_weights(path, network_name))
        return
    weights = {name: value.float() for name, value in load_file(path).items()}
    known = network.load_state_dict(weights, strict=False)
    missing = [name for name in known.missing_keys if not name.startswith(_FRESH) and not name.endswith(_COUNTERS)]
    if missing or known.unexpected_keys:
        odd = (missing + known.unexpected_keys)[0]
        raise ValueError(f"{path} holds no weights of {network_name}: {odd} does not fit")


def read(path: Path, network_name: str) -> dict[str, Any]:
    """The whole checkpoint; nothing in it is executed.

    Raises:
        ValueError: see `load`.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("version") != _VERSION or state.get("network") != network_name:
        raise ValueError(
            f"{path} holds {state.get('network')} in version {state.get('version')}, "
            f"expected {network_name} in version {_VERSION}"
        )
    return state
