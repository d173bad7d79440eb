"""Defines the decoder of CV-3315's baseline: three transposed convolutions, with one output size for any input."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides


class BasicDecoder(nn.Module):
    def __init__(self, classes: int, height: int, width: int) -> None:
        super().__init__()
        self.size = height, width
        self.upsample_cov1 = nn.ConvTranspose2d(classes, classes, 4, 2, output_padding=1, bias=False)
        self.upsample_cov2 = nn.ConvTranspose2d(classes, classes, 4, 2, bias=False)
        self.upsample_cov3 = nn.ConvTranspose2d(classes, classes, 4, 2, padding=1, bias=False)

    def fit(self, sides: Sides) -> None:
        """Do nothing: this head does not depend on the input's size."""

    def logits_sides(self, sides: Sides) -> tuple[int, int]:
        return self.size

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        raised = self.upsample_cov3(self.upsample_cov2(self.upsample_cov1(stages[0])))
        return F.interpolate(raised, self.size, mode="bilinear", align_corners=True)
