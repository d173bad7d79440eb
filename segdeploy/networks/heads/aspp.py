"""Defines parallel dilated convolutions (ASPP), the heads of DeepLabV3 (arXiv:1706.05587) and V3+ (arXiv:1802.02611).

Both join four convolutions of the deepest map, each wider than the one before, with the average over the whole map. In
V3+ the wide ones are depthwise, and the result is joined with the finest map, at its size. The average's branch is
pyramid pooling of one scale, and is deployed as that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import module_list
from segdeploy.networks.heads.psp import DeployedPooledBranches, PooledBranches, slice_of
from segdeploy.networks.normed import (
    NormedConvolution,
    SeparableConvolution,
    rectified,
    rectified_separable,
    without_norm,
)

Look = NormedConvolution | SeparableConvolution


class AsppHead(nn.Module):
    """Is V3+'s head if `separable`; `fine_inputs` and `fine_channels` are the finest map's, 0 if it is not joined."""

    def __init__(
        self, inputs: int, channels: int, classes: int, index: int, dilations: Sequence[int], align_corners: bool,
        separable: bool, fine_inputs: int = 0, fine_channels: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.index, self.align_corners = index, align_corners
        self.image_pool = PooledBranches(inputs, channels, (1,), align_corners)
        self.aspp_modules: Sequence[Look] = module_list(
            SeparableConvolution(inputs, channels, dilation)
            if separable and dilation > 1
            else NormedConvolution(inputs, channels, 1 if dilation == 1 else 3, dilation=dilation)
            for dilation in dilations
        )
        self.bottleneck = NormedConvolution((len(dilations) + 1) * channels, channels, 3)
        self.c1_bottleneck = NormedConvolution(fine_inputs, fine_channels, 1) if fine_inputs else None
        self.sep_bottleneck = module_list(
            (
                SeparableConvolution(channels + fine_channels, channels),
                SeparableConvolution(channels, channels),
            )
            if separable
            else ()
        )
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        maps = stages[self.index]
        looks = [look(maps).relu() for look in self.aspp_modules]
        made = self.bottleneck(torch.cat((*self.image_pool(maps), *looks), 1)).relu()
        if self.c1_bottleneck is not None:
            made = beside(made, self.c1_bottleneck(stages[0]).relu(), self.align_corners)
        for layer in self.sep_bottleneck:
            made = layer(made)
        logits: Tensor = self.conv_seg(made)
        return logits


def beside(coarse: Tensor, fine: Tensor, align_corners: bool) -> Tensor:
    raised = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=align_corners)
    return torch.cat((raised, fine), 1)


def deployed_look(look: Look) -> nn.Sequential:
    return rectified_separable(look) if isinstance(look, SeparableConvolution) else rectified(look)


class DeployedAsppHead(nn.Module):
    def __init__(self, plain: AsppHead) -> None:
        super().__init__()
        self.index, self.align_corners = plain.index, plain.align_corners
        self.looks = module_list(deployed_look(look) for look in plain.aspp_modules)
        conv = without_norm(plain.bottleneck)
        channels = plain.bottleneck.convolution.out_channels
        self.pooled = DeployedPooledBranches(plain.image_pool, conv.weight.detach()[:, :channels])
        self.join = slice_of(conv, channels, conv.in_channels)
        self.fine = None if plain.c1_bottleneck is None else rectified(plain.c1_bottleneck)
        self.refine = nn.Sequential(*map(rectified_separable, plain.sep_bottleneck))
        self.classify = plain.conv_seg

    def fit(self, sides: Sides) -> None:
        self.pooled.fit(*sides[self.index])

    def logits_sides(self, sides: Sides) -> tuple[int, int]:
        return sides[self.index if self.fine is None else 0]

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        maps = stages[self.index]
        made = self.join(torch.cat([look(maps) for look in self.looks], 1)) + self.pooled(maps)
        made = made.relu()
        if self.fine is not None:
            made = beside(made, self.fine(stages[0]), self.align_corners)
        logits: Tensor = self.classify(self.refine(made))
        return logits
