"""Defines the head of fully convolutional networks (arXiv:1411.4038): convolutions over one map, and a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import module_list
from segdeploy.networks.normed import NormedConvolution, rectified


class FcnHead(nn.Module):
    """Classifies one map; with `joins` one more convolution reads the map itself beside the others' result."""

    def __init__(
        self, inputs: int, channels: int, classes: int, index: int, convolutions: int, kernel: int,
        dilation: int, joins: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.index = index
        self.convs = module_list(
            NormedConvolution(channels if place else inputs, channels, kernel, dilation=dilation)
            for place in range(convolutions)
        )
        self.conv_cat = NormedConvolution(inputs + channels, channels, kernel) if joins else None
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        maps = made = stages[self.index]
        for layer in self.convs:
            made = layer(made).relu()
        if self.conv_cat is not None:
            made = self.conv_cat(torch.cat((maps, made), 1)).relu()
        logits: Tensor = self.conv_seg(made)
        return logits


class DeployedFcnHead(nn.Module):
    def __init__(self, plain: FcnHead) -> None:
        super().__init__()
        self.index = plain.index
        self.convolve = rectified(*plain.convs)
        self.join = None if plain.conv_cat is None else rectified(plain.conv_cat)
        self.classify = plain.conv_seg

    def fit(self, sides: Sides) -> None:
        """Do nothing: this head does not depend on the input's size."""

    def logits_sides(self, sides: Sides) -> tuple[int, int]:
        return sides[self.index]

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        maps = stages[self.index]
        made = self.convolve(maps)
        if self.join is not None:
            made = self.join(torch.cat((maps, made), 1))
        logits: Tensor = self.classify(made)
        return logits
