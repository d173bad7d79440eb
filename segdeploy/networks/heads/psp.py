"""Pyramid pooling (PSPNet, arXiv:1612.01105), and what a convolution makes of it as products with small constants.

A branch averages the map over a k×k grid, mixes its channels and raises the result to the map's size again, where a 3x3
convolution reads it beside the map. All but the mixing and its ReLU is linear, and constant at a fixed size:

* the averages over all grids are one product with the rows' shares and one with the columns';
* the slice of the 3x3 convolution that reads a branch is its taps on the k×k grid, raised by products (`raised`).

That is exact, and a fraction of the work: the convolution itself then reads the map alone. The exporter's own form of
adaptive pooling has thousands of nodes (torch 2.13: 2,343 for a PSPNet at 375x1242).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import module_list
from segdeploy.networks.heads.raised import RaisedSlices
from segdeploy.networks.normed import NormedConvolution, without_norm


class PooledBranches(nn.Module):
    def __init__(self, inputs: int, channels: int, scales: Sequence[int], align_corners: bool) -> None:
        super().__init__()
        self.scales, self.align_corners = tuple(scales), align_corners
        self.mix = module_list(NormedConvolution(inputs, channels, 1) for _ in self.scales)

    def forward(self, maps: Tensor) -> list[Tensor]:  # N×C×h×w -> one N×channels×h×w per scale
        return [
            F.interpolate(
                mix(F.adaptive_avg_pool2d(maps, scale)).relu(),
                maps.shape[-2:],
                mode="bilinear",
                align_corners=self.align_corners,
            )
            for scale, mix in zip(self.scales, self.mix, strict=True)
        ]


class PspHead(nn.Module):
    def __init__(
        self, inputs: int, channels: int, classes: int, index: int, scales: Sequence[int], align_corners: bool
    ) -> None:
        super().__init__()
        self.index = index
        self.psp_modules = PooledBranches(inputs, channels, scales, align_corners)
        self.bottleneck = NormedConvolution(inputs + len(scales) * channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        maps = stages[self.index]
        joined = torch.cat((maps, *self.psp_modules(maps)), 1)
        logits: Tensor = self.conv_seg(self.bottleneck(joined).relu())
        return logits


# ---- the deployed head -----------------------------------------------------------------------------------------


def averaging(scale: int, length: int) -> Tensor:
    """scale×length: the share that each place has in the averages over `scale` windows, as PyTorch cuts them."""
    share = torch.zeros(scale, length, dtype=torch.float64)
    for window in range(scale):
        start, stop = window * length // scale, -(-(window + 1) * length // scale)
        share[window, start:stop] = 1 / (stop - start)
    return share


class DeployedPooledBranches(nn.Module):
    """The branches and the slices `weight` (O × branches·C × 3 × 3) of the convolution that reads them."""

    def __init__(self, plain: PooledBranches, weight: Tensor) -> None:
        super().__init__()
        self.scales = plain.scales
        self.mix = module_list(without_norm(mix) for mix in plain.mix)
        self.read = RaisedSlices(weight, len(plain.scales), plain.align_corners)

    def fit(self, height: int, width: int) -> None:
        def shares(length: int) -> Tensor:
            return torch.cat([averaging(scale, length) for scale in self.scales])

        self.pool_rows = nn.Buffer(shares(height).float())
        self.pool_columns = nn.Buffer(shares(width).T.contiguous().float())
        self.read.fit([(scale, scale) for scale in self.scales], (height, width))

    def forward(self, maps: Tensor) -> Tensor:  # N×C×h×w -> N×O×h×w
        pooled = self.pool_rows @ (maps @ self.pool_columns)  # each branch's grid is a block on the diagonal
        stops = accumulate(self.scales)
        grids = []
        for scale, stop, mix in zip(self.scales, stops, self.mix, strict=True):
            block = slice(stop - scale, stop)
            grids.append(mix(pooled[:, :, block, block]).relu())
        shared: Tensor = self.read(grids)
        return shared


def slice_of(conv: nn.Conv2d, start: int, stop: int) -> nn.Conv2d:
    """The same convolution over some of its input's channels."""
    made = copy.deepcopy(conv)
    made.weight = nn.Parameter(conv.weight.detach()[:, start:stop].clone())
    made.in_channels = stop - start
    return made


class DeployedPyramid(nn.Module):
    """Pyramid pooling and the 3x3 convolution over the map and all branches, with its batch norm and ReLU."""

    def __init__(self, branches: PooledBranches, bottleneck: NormedConvolution) -> None:
        super().__init__()
        conv = without_norm(bottleneck)
        own = branches.mix[0].convolution.in_channels
        self.convolve = slice_of(conv, 0, own)
        self.pooled = DeployedPooledBranches(branches, conv.weight.detach()[:, own:])

    def forward(self, maps: Tensor) -> Tensor:
        summed: Tensor = self.convolve(maps) + self.pooled(maps)
        return summed.relu()


class DeployedPspHead(nn.Module):
    def __init__(self, plain: PspHead) -> None:
        super().__init__()
        self.index = plain.index
        self.pyramid = DeployedPyramid(plain.psp_modules, plain.bottleneck)
        self.classify = plain.conv_seg

    def fit(self, sides: Sides) -> None:
        self.pyramid.pooled.fit(*sides[self.index])

    def logits_sides(self, sides: Sides) -> tuple[int, int]:
        return sides[self.index]

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.classify(self.pyramid(stages[self.index]))
        return logits
