"""Computes the loss of a batch as a sum and the weight it is a mean over, so that processes can add both up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segdeploy.train.recipe import TrainingRecipe

LEAST_SCORE = 1e-6


def log_probabilities(answer: Tensor, size: torch.Size, align_corners: bool, are_scores: bool) -> Tensor:
    """Give log-probabilities N×C×H×W of a network's small answer; scores of masks are shares of their sum."""
    values = answer.float()
    if values.shape[2:] != size:
        values = F.interpolate(values, size, mode="bilinear", align_corners=align_corners)
    if not are_scores:
        return values.log_softmax(1)
    values = values.clamp_min(LEAST_SCORE)
    return values.log() - values.sum(1, keepdim=True).log()


def pixel_loss(
    logs: Tensor, truth: Tensor, ignore: int, weights: Tensor | None, recipe: TrainingRecipe
) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy over the pixels that are learnt from; gives the sum, and the weight of these pixels.

    Which pixels are hard is decided for each crop by itself, whatever else is in the batch.
    """
    counted = truth != ignore
    target = torch.where(counted, truth, 0).long()
    losses = -logs.gather(1, target[:, None])[:, 0]
    if recipe.ohem:
        counted = counted & hard(losses.detach(), counted, recipe)
    weight = counted.to(losses.dtype) if weights is None else weights[target] * counted
    return (losses * weight).sum(), weight.sum()


def hard(losses: Tensor, counted: Tensor, recipe: TrainingRecipe) -> Tensor:
    """Find the pixels whose class got less than `ohem`; of each crop at least a share of the hardest ones."""
    hardest = torch.where(counted, losses, -1).flatten(1)
    least = max(1, int(recipe.ohem_least * hardest.shape[1]))
    limit = hardest.topk(least, dim=1).values[:, -1].clamp(min=0)
    bound = torch.minimum(limit, -torch.log(torch.tensor(recipe.ohem)))
    return losses >= bound[:, None, None]


def balanced(shares: Sequence[float]) -> Tensor:
    """Weigh each class by 1/√share, so that a pixel weighs 1 in the mean; a class without pixels weighs nothing."""
    share = torch.tensor(shares, dtype=torch.float64)
    weights = torch.where(share > 0, share.clamp_min(1e-12).rsqrt(), 0)
    return (weights / (weights * share).sum()).float()
