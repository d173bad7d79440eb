"""Pyramid pooling (PSPNet, arXiv:1612.01105), and what a convolution makes of it as products with small constants.

A branch averages the map over a k×k grid, mixes its channels and raises the result to the map's size again, where a 3x3
convolution reads it beside the map. All but the mixing and its ReLU is linear, and constant at a fixed size:

* the averages over all grids are one product with the rows' shares and one with the columns';
* raising is linear along each axis, and so is a shift by one pixel, zeros where it leaves the map. So the slice of the
  3x3 convolution over a branch is its nine taps on the k×k grid (a 1x1 convolution of 9·C), then a product along the
  rows and one along the columns.

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
from segdeploy.networks.folding import module_list, pointwise
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


def raising_and_shifting(scale: int, length: int, align_corners: bool) -> Tensor:
    """length×3·scale: raises `scale` values to `length` places, seen from the place before, the same and the next."""
    given = torch.eye(scale, dtype=torch.float64)[None]
    raised = F.interpolate(given, length, mode="linear", align_corners=align_corners)[0].T
    padded = F.pad(raised, (0, 0, 1, 1))
    return torch.cat([padded[tap : tap + length] for tap in range(3)], 1)


class DeployedPooledBranches(nn.Module):
    """The branches and the slices `weight` (O × branches·C × 3 × 3) of the convolution that reads them."""

    def __init__(self, plain: PooledBranches, weight: Tensor) -> None:
        super().__init__()
        self.scales, self.align_corners = plain.scales, plain.align_corners
        self.mix = module_list(without_norm(mix) for mix in plain.mix)
        self.taps = module_list(
            pointwise(part.permute(0, 2, 3, 1).reshape(-1, part.shape[1]), None)  # O·3·3 × C
            for part in weight.chunk(len(self.scales), 1)
        )

    def fit(self, height: int, width: int) -> None:
        def shares(length: int) -> Tensor:
            return torch.cat([averaging(scale, length) for scale in self.scales])

        def raises(length: int) -> list[Tensor]:
            return [raising_and_shifting(scale, length, self.align_corners) for scale in self.scales]

        self.pool_rows = nn.Buffer(shares(height).float())
        self.pool_columns = nn.Buffer(shares(width).T.contiguous().float())
        self.raise_rows = nn.Buffer(torch.cat(raises(height), 1).float())
        self.raise_columns = nn.ParameterList(
            nn.Parameter(part.T.contiguous().float(), requires_grad=False) for part in raises(width)
        )

    def forward(self, maps: Tensor) -> Tensor:  # N×C×h×w -> N×O×h×w
        pooled = self.pool_rows @ (maps @ self.pool_columns)  # each branch's grid is a block on the diagonal
        starts = accumulate(self.scales, initial=0)
        raised = []
        for scale, start, mix, taps, columns in zip(
            self.scales, starts, self.mix, self.taps, self.raise_columns, strict=False
        ):
            stop = start + scale
            spread = taps(mix(pooled[:, :, start:stop, start:stop]).relu())
            images, channels = spread.shape[0], spread.shape[1] // 9
            spread = spread.reshape(images, channels * 3, 3, scale, scale).transpose(2, 3)
            raised.append(spread.reshape(images, channels, 3 * scale, 3 * scale) @ columns)
        shared: Tensor = self.raise_rows @ torch.cat(raised, 2)
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
