"""Pyramid pooling (PSPNet, arXiv:1612.01105), and what a convolution makes of it as products with small constants.

A branch averages the map over a k×k grid, mixes its channels and raises the result to the map's size again, where a 3x3
convolution reads it beside the map. All but the mixing and its ReLU is linear, and constant at a fixed size:

* the averages over all grids are one product with the shares of the map's places;
* the slice of the 3x3 convolution that reads a branch is its taps on the k×k grid, raised by products (`raised`);
* all branches go side by side, on grids as large as the largest; what lies beside a smaller one is multiplied by zeros.

That is exact, and a fraction of the work: the convolution itself then reads the map alone. The exporter's own form of
adaptive pooling has thousands of nodes (torch 2.13: 2,343 for a PSPNet at 375x1242).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import module_list
from segdeploy.networks.heads.raised import raising_and_shifting
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
        self.scales, self.align_corners = plain.scales, plain.align_corners
        mix = [without_norm(one) for one in plain.mix]
        parts = weight.detach().chunk(len(mix), 1)
        self.mix = nn.Buffer(torch.stack([conv.weight.detach().flatten(1) for conv in mix]))
        self.shift = nn.Buffer(torch.stack([cast("Tensor", conv.bias).detach()[:, None] for conv in mix]))
        self.taps = nn.Buffer(
            torch.stack([part.permute(0, 2, 3, 1).reshape(-1, part.shape[1]) for part in parts])
        )

    def fit(self, height: int, width: int) -> None:
        most = max(self.scales)

        def raises(length: int) -> list[Tensor]:  # length×3·most for each branch
            found = [raising_and_shifting(scale, length, self.align_corners) for scale in self.scales]
            return [
                F.pad(one.reshape(length, 3, -1), (0, most - one.shape[1] // 3)).flatten(1) for one in found
            ]

        shares = [torch.kron(averaging(scale, height), averaging(scale, width)) for scale in self.scales]
        self.shares = nn.Buffer(torch.cat(shares).T.contiguous().float())
        self.lay_out = nn.Buffer(grids_side_by_side(self.scales))
        self.rows = nn.Buffer(torch.cat(raises(height), 1).float())
        self.columns = nn.Buffer(torch.stack(raises(width)).transpose(1, 2).contiguous().float())

    def forward(self, maps: Tensor) -> Tensor:  # N×C×h×w -> N×O×h×w
        images, channels, height, width = maps.shape
        branches, most = len(self.scales), max(self.scales)
        grids = (maps.reshape(images, 1, channels, height * width) @ self.shares) @ self.lay_out
        taps = self.taps @ (self.mix @ grids + self.shift).relu()  # N×branches×9·O×most²
        taps = taps.reshape(images, branches, -1, 3, 3, most, most).permute(0, 2, 1, 3, 5, 4, 6)
        raised = taps.reshape(images, -1, branches, 3 * most, 3 * most) @ self.columns
        summed: Tensor = self.rows @ raised.reshape(images, -1, branches * 3 * most, width)
        return summed


def grids_side_by_side(scales: Sequence[int]) -> Tensor:
    """branches × all grids' places × most²: puts each grid, whose places follow each other, at the start of its own."""
    most, start = max(scales), 0
    found = torch.zeros(len(scales), sum(scale**2 for scale in scales), most, most)
    for branch, scale in enumerate(scales):
        own = torch.eye(scale**2).reshape(scale**2, scale, scale)
        found[branch, start : start + scale**2, :scale, :scale] = own
        start += scale**2
    return found.flatten(2)


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
