"""Defines UPerNet's head (arXiv:1807.10221), plain and deployed: pyramid pooling, a path down, one last convolution.

The last convolution is most of the work: it reads all maps, raised to the finest one's size. In the deployed head it
reads those that are a quarter of that size and less where they are (`raised`), which is exact; of the map of half the
size it would save less than it moves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import module_list
from segdeploy.networks.heads.psp import DeployedPyramid, PooledBranches, slice_of
from segdeploy.networks.heads.raised import RaisedSlices
from segdeploy.networks.normed import NormedConvolution, rectified, without_norm

RAISED = 2  # maps before the last convolution, the finest first: they are read at the finest one's size


class UperHead(nn.Module):
    def __init__(
        self, inputs: Sequence[int], channels: int, classes: int, scales: Sequence[int], align_corners: bool
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.psp_modules = PooledBranches(inputs[-1], channels, scales, align_corners)
        self.bottleneck = NormedConvolution(inputs[-1] + len(scales) * channels, channels, 3)
        self.lateral_convs = module_list(NormedConvolution(size, channels, 1) for size in inputs[:-1])
        self.fpn_convs = module_list(NormedConvolution(channels, channels, 3) for _ in inputs[:-1])
        self.fpn_bottleneck = NormedConvolution(len(inputs) * channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        *fine, deepest = stages
        pooled = self.bottleneck(torch.cat((deepest, *self.psp_modules(deepest)), 1)).relu()
        maps = [layer(one).relu() for layer, one in zip(self.lateral_convs, fine, strict=True)]
        maps = path_down([*maps, pooled], self.align_corners)
        maps = [*(layer(one).relu() for layer, one in zip(self.fpn_convs, maps, strict=False)), pooled]
        raised = [raised_to(maps[0], one, self.align_corners) for one in maps[1:]]
        logits: Tensor = self.conv_seg(self.fpn_bottleneck(torch.cat((maps[0], *raised), 1)).relu())
        return logits


def raised_to(fine: Tensor, coarse: Tensor, align_corners: bool) -> Tensor:
    return F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=align_corners)


def path_down(maps: Sequence[Tensor], align_corners: bool) -> list[Tensor]:
    """Add to each map the next coarser one's sum; the coarsest itself is left out."""
    sums = [maps[-1]]
    for fine in maps[-2::-1]:
        sums.append(fine + raised_to(fine, sums[-1], align_corners))
    return sums[:0:-1]


class DeployedUperHead(nn.Module):
    def __init__(self, plain: UperHead) -> None:
        super().__init__()
        self.align_corners = plain.align_corners
        self.pyramid = DeployedPyramid(plain.psp_modules, plain.bottleneck)
        self.narrow = module_list(rectified(layer) for layer in plain.lateral_convs)
        self.mix = module_list(rectified(layer) for layer in plain.fpn_convs)
        join = without_norm(plain.fpn_bottleneck)
        channels = plain.conv_seg.in_channels
        self.join = slice_of(join, 0, RAISED * channels)
        coarse = join.weight[:, RAISED * channels :]
        self.read = RaisedSlices(coarse, coarse.shape[1] // channels, plain.align_corners)
        self.classify = plain.conv_seg

    def fit(self, sides: Sides) -> None:
        self.pyramid.pooled.fit(*sides[-1])
        self.read.fit(sides[RAISED:], sides[0])

    def logits_sides(self, sides: Sides) -> tuple[int, int]:
        return sides[0]

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        *fine, deepest = stages
        pooled = self.pyramid(deepest)
        maps = [narrow(one) for narrow, one in zip(self.narrow, fine, strict=True)]
        maps = path_down([*maps, pooled], self.align_corners)
        maps = [*(mix(one) for mix, one in zip(self.mix, maps, strict=True)), pooled]
        raised = [raised_to(maps[0], one, self.align_corners) for one in maps[1:RAISED]]
        joined = self.join(torch.cat((maps[0], *raised), 1)) + self.read(maps[RAISED:])
        logits: Tensor = self.classify(joined.relu())
        return logits
