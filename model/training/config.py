"""What a training run is told, read from a TOML file."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.networks.build import NAMES
from model.training.compose import Recipe
from model.training.losses import LossWeights
from model.training.sources import Kind
from pipeline.errors import SetupError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Phase(_Section):
    """A part of the run with its own sizes.

    Attributes:
        until: where it ends, as a share of the run.
        sides: long sides in pixels, one drawn for each step; multiples of 32.
        batch: samples in a step of one rank at the first of `sides`; larger sides get fewer.
        freeze_norms: whether batch norms keep the means they have, for batches too small to measure them by.
    """

    until: float = Field(gt=0, le=1)
    sides: tuple[int, ...] = Field(min_length=1)
    batch: int = Field(ge=2)
    freeze_norms: bool = False


class OptimiserConfig(_Section):
    """AdamW, linear warm-up, then a cosine down to `final` of the rate."""

    encoder_rate: float = Field(gt=0)
    decoder_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warm_up_steps: int = Field(ge=0)
    final: float = Field(ge=0, le=1)
    clip: float = Field(gt=0)
    ema: float = Field(ge=0, lt=1)


class CompositionConfig(_Section):
    """See `compose.Recipe`."""

    kinds: dict[Kind, float]
    pseudo_cutouts: float = Field(0.25, ge=0, le=1)
    photos: float = Field(0.2, ge=0, le=1)
    photo_weight: float = Field(0.7, gt=0, le=1)
    empty: float = Field(0.03, ge=0, le=1)
    studio: float = Field(0.3, ge=0, le=1)
    distractors: float = Field(0.25, ge=0, le=1)
    filling: float = Field(0.3, ge=0, le=1)

    def recipe(self) -> Recipe:
        """The same for the composer."""
        return Recipe(**self.model_dump())


class LossConfig(_Section):
    """See `losses.LossWeights`."""

    bce: float = Field(1.0, ge=0)
    l1: float = Field(1.0, ge=0)
    band: float = Field(0.5, ge=0)
    laplacian: float = Field(0.5, ge=0)
    iou: float = Field(0.5, ge=0)
    composition: float = Field(0.5, ge=0)
    auxiliary: float = Field(0.4, ge=0)

    def weights(self) -> LossWeights:
        """The same for the loss."""
        return LossWeights(**self.model_dump())


class TrainingConfig(_Section):
    """One training run.

    Attributes:
        network: its name.
        minutes: how long it trains, pauses and restarts not counted; the schedule follows this clock.
        seed: of all chance.
        device: where it runs.
        ranks: processes that share each step; on a processor one for each core, each with one thread.
        encoder_weights: a file in torchvision's format; none: MobileNetV2's ImageNet weights that `data` collected.
        frozen_layers: first layers of the encoder that keep their ImageNet weights; their maps are the largest, so
            their gradients the dearest.
        distillation: share of composites labelled by the teacher instead of by their own alpha.
        start_from: a checkpoint of an earlier run, or a .safetensors file of `model export`: this one goes on with
            its weights.
    """

    network: str
    minutes: float = Field(gt=0)
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    ranks: int = Field(2, ge=1, le=64)
    encoder_weights: Path | None = None
    start_from: Path | None = None
    frozen_layers: int = Field(0, ge=0)
    distillation: float = Field(0.0, ge=0, le=1)
    checkpoint_seconds: float = Field(120, gt=0, le=180)
    validate_minutes: float = Field(8, gt=0)
    validate_side: int = Field(320, ge=64)
    optimiser: OptimiserConfig
    phases: tuple[Phase, ...] = Field(min_length=1)
    composition: CompositionConfig
    loss: LossConfig = Field(default_factory=lambda: LossConfig.model_validate({}))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.network not in NAMES:
            raise ValueError(f"network is one of {', '.join(NAMES)}; got {self.network!r}")
        ends = [phase.until for phase in self.phases]
        if ends != sorted(ends) or ends[-1] != 1:
            raise ValueError(f"phases end one after the other and the last at 1; got {ends}")
        odd = [side for phase in self.phases for side in phase.sides if side % 32]
        if odd or self.validate_side % 32:
            raise ValueError(f"sides are multiples of 32; got {odd or self.validate_side}")
        if self.device == "cuda" and self.ranks != 1:
            raise ValueError("on a GPU there is one rank")
        return self


def load_config(path: Path | None) -> TrainingConfig:
    """Read a configuration; the default one where there is no path.

    Raises:
        SetupError: when it cannot be read or says something impossible.
    """
    try:
        text = path.read_text("utf-8") if path else files("model.training").joinpath("default.toml").read_text("utf-8")
        return TrainingConfig.model_validate(tomllib.loads(text))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path or 'default.toml'} cannot be read: {error}.") from error
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise SetupError(f"{path or 'default.toml'} is no training configuration: {details}.") from error
