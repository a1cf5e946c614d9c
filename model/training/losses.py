"""What training minimises: how far predicted alpha is from the truth, in several ways at once."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.networks.blocks import upsample

_LEVELS = 4


@dataclass(frozen=True, slots=True)
class LossWeights:
    """The share of each loss; 0 leaves it out.

    Attributes:
        bce: binary cross-entropy of the logits.
        l1: mean absolute error of alpha.
        band: the same in a band round the edge only.
        laplacian: of a Laplacian pyramid (Hou & Liu, 2019, arXiv:1909.09725).
        iou: one less the soft intersection over union, which sees small subjects.
        composition: absolute error weighted by how far subject and background differ in colour, so by how much an
            error would show in a cut-out.
        auxiliary: cross-entropy of the coarse logits at an eighth of the size.
    """

    bce: float = 1.0
    l1: float = 1.0
    band: float = 0.5
    laplacian: float = 0.5
    iou: float = 0.5
    composition: float = 0.5
    auxiliary: float = 0.4


def matting_loss(
    coarse: Tensor, logits: Tensor, alpha: Tensor, contrast: Tensor, weight: Tensor, shares: LossWeights
) -> Tensor:
    """The loss of a batch, a scalar.

    Args:
        coarse: float [N, 1, H/8, W/8], logits.
        logits: float [N, 1, H, W].
        alpha: float [N, 1, H, W] in 0..1, the truth.
        contrast: float [N, 1, H, W] in 0..1.
        weight: float [N], of each sample.
        shares: of each loss.
    """
    predicted = torch.sigmoid(logits)
    error = (predicted - alpha).abs()
    total = shares.bce * _mean(functional.binary_cross_entropy_with_logits(logits, alpha, reduction="none"))
    total = total + shares.l1 * _mean(error)
    if shares.band:
        band = edge_band(alpha)
        total = total + shares.band * (error * band).sum((1, 2, 3)) / (band.sum((1, 2, 3)) + 1)
    if shares.composition:
        total = total + shares.composition * _mean(error * contrast)
    if shares.laplacian:
        total = total + shares.laplacian * _laplacian(predicted, alpha)
    if shares.iou:
        total = total + shares.iou * (1 - soft_iou(predicted, alpha))
    if shares.auxiliary:
        truth = functional.avg_pool2d(alpha, 8)
        total = total + shares.auxiliary * _mean(
            functional.binary_cross_entropy_with_logits(coarse, truth, reduction="none")
        )
    return (total * weight).sum() / weight.sum()


def soft_iou(predicted: Tensor, alpha: Tensor) -> Tensor:
    """Intersection over union of two alphas, float [N, 1, H, W] in 0..1 -> [N]; 1 where both are empty."""
    both = (predicted * alpha).sum((1, 2, 3))
    either = (predicted + alpha - predicted * alpha).sum((1, 2, 3))
    # Sixteen pixels: an empty picture then asks for an empty answer without an infinite slope.
    return (both + 16) / (either + 16)


def edge_band(alpha: Tensor) -> Tensor:
    """1 within a few pixels of where alpha changes, else 0: float [N, 1, H, W] in and out."""
    widest = functional.max_pool2d(alpha, 7, 1, 3)
    narrowest = -functional.max_pool2d(-alpha, 7, 1, 3)
    return (widest - narrowest > 0.05).to(alpha.dtype)


def _laplacian(predicted: Tensor, alpha: Tensor) -> Tensor:
    """Mean absolute difference of the pyramids' levels, coarser ones weighted more: [N].

    The coarsest remainder is left out: it is what the other losses look at, and its weight would drown them.
    """
    difference = predicted - alpha  # the pyramid is linear: of a difference it is the difference
    total = torch.zeros(len(alpha), device=alpha.device)
    for level in range(_LEVELS):
        lower = functional.avg_pool2d(difference, 2)
        total = total + 2.0**level * _mean((difference - upsample(lower)).abs())
        difference = lower
    return total / _LEVELS


def _mean(values: Tensor) -> Tensor:
    """The mean of each sample: [N, 1, H, W] -> [N]."""
    return values.mean((1, 2, 3))
