"""Makes classes' scores of queries that each give a class and a mask.

A class has, at each place, the sum over queries of its share in the query times the query's mask. Masks are
raised to the image before they are summed, as published, or the scores are raised afterwards.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Its exponential is zero beside that of any score, and its sum with a score stays within our limit for FP16.
BLOCKED = -4096.0


def class_scores(classes: Tensor, masks: Tensor, raised: torch.Size | None) -> Tensor:
    """Sum as published: N×queries×(C+1) and N×queries×h×w, both logits, give N×C×h×w."""
    if raised is not None:
        masks = F.interpolate(masks, raised, mode="bilinear", align_corners=False)
    return torch.einsum("nqc,nqhw->nchw", classes.softmax(-1)[..., :-1], masks.sigmoid())


def summed_scores(classes: Tensor, masks: Tensor, size: torch.Size, raised: torch.Size | None) -> Tensor:
    """Sum with one product; the masks are N×queries×hw, with h×w in `size`."""
    shares = classes.softmax(-1)[..., :-1].transpose(1, 2)
    if raised is None:
        return to_image(shares @ masks.sigmoid(), size)
    masks = F.interpolate(to_image(masks, size), raised, mode="bilinear", align_corners=False)
    return to_image(shares @ masks.flatten(2).sigmoid(), raised)


def to_image(scores: Tensor, size: torch.Size) -> Tensor:  # N×C×hw -> N×C×h×w
    return scores.reshape(scores.shape[0], scores.shape[1], *size)
