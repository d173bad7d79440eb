"""Defines a 3x3 convolution over maps that are raised to its size, computed where they are small.

Raising bilinearly is linear along each axis, and so is a shift by one pixel, with zeros where it leaves the map. So the
slice of the convolution over a raised map is its nine taps on the small map (a 1x1 convolution of 9·O channels), then a
product along the columns and one along the rows, both with constants. That is exact, and much less work where the map
is much smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import module_list, pointwise


def raising_and_shifting(scale: int, length: int, align_corners: bool) -> Tensor:
    """length×3·scale: raises `scale` values to `length` places, seen from the place before, the same and the next."""
    given = torch.eye(scale, dtype=torch.float64)[None]
    raised = F.interpolate(given, length, mode="linear", align_corners=align_corners)[0].T
    padded = F.pad(raised, (0, 0, 1, 1))
    return torch.cat([padded[tap : tap + length] for tap in range(3)], 1)


class RaisedSlices(nn.Module):
    """The slices `weight` (O × maps·C × 3 × 3) of a convolution, each over one small map; their sum."""

    def __init__(self, weight: Tensor, count: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.taps = module_list(
            pointwise(part.permute(0, 2, 3, 1).reshape(-1, part.shape[1]), None)  # O·3·3 × C
            for part in weight.detach().chunk(count, 1)
        )

    def fit(self, given: Sides, wanted: tuple[int, int]) -> None:
        def raises(axis: int) -> list[Tensor]:
            return [raising_and_shifting(side[axis], wanted[axis], self.align_corners) for side in given]

        self.rows = nn.Buffer(torch.cat(raises(0), 1).float())
        self.columns = nn.ParameterList(
            nn.Parameter(part.T.contiguous().float(), requires_grad=False) for part in raises(1)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:  # each N×C×h'×w' -> N×O×h×w
        raised = []
        for small, taps, columns in zip(maps, self.taps, self.columns, strict=True):
            spread = taps(small)
            images, nine, height, width = spread.shape
            spread = spread.reshape(images, nine // 3, 3, height, width).transpose(2, 3)
            raised.append(spread.reshape(images, nine // 9, 3 * height, 3 * width) @ columns)
        summed: Tensor = self.rows @ torch.cat(raised, 2)
        return summed
