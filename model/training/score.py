"""A quick score on the validation composites while a run goes on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from model.preprocess import content, letterbox
from pipeline.ids import SizeBucket


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean IoU of alpha above one half, by background."""

    studio: float
    photo: float


@torch.inference_mode()
def score(network: nn.Module, folder: Path, side: int, device: torch.device) -> Scores:
    """Run a network in evaluation mode over the composites below `folder`, letterboxed into a square of `side` pixels.

    It compares at the model's size, as is enough to watch a run; `mattemill model evaluate` compares at full size.
    """
    return Scores(*(_mean_iou(network, folder / group, side, device) for group in ("studio", "photo")))


def _mean_iou(network: nn.Module, folder: Path, side: int, device: torch.device) -> float:
    values = []
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path) as image, Image.open(path.with_suffix(".png")) as truth:
            picture, box = letterbox(np.asarray(image.convert("RGB"), np.uint8), SizeBucket(side, side))
            alpha = np.asarray(truth.convert("L").resize((box.width, box.height), Image.Resampling.BOX)) > 127
        rgb = torch.from_numpy(picture).to(device).permute(2, 0, 1).unsqueeze(0).float() / 255
        logits = network(rgb)[0, 0].cpu().numpy()  # [side, side]
        predicted = content((logits > 0).astype(np.uint8), box) > 0
        either = int((predicted | alpha).sum())
        values.append(float((predicted & alpha).sum() / either) if either else 1.0)
    return float(np.mean(values)) if values else float("nan")
