"""Defines the encoder of CV-3315's baseline (github.com/UAws/CV-3315-Is-All-You-Need), a plain stack of convolutions.

For any input it gives one output size, which its configuration says (256x864), resized with aligned corners. There is
nothing to rewrite: it has no norms, and the decoder is less than one per cent of the work.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides


class BasicSegNet(nn.Module):
    """Holds convolutions under their files' names; after each of four steps a map is halved, odd sides rounded up."""

    def __init__(self, widths: Sequence[int], inner: int, classes: int) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.conv1_1 = nn.Conv2d(3, first, 3, padding=1)
        self.conv1_2 = nn.Conv2d(first, first, 3, padding=1)
        self.conv2_1 = nn.Conv2d(first, second, 3, padding=1)
        self.conv3_1 = nn.Conv2d(second, third, 3, padding=1)
        self.conv4_1 = nn.Conv2d(third, fourth, 3, padding=1)
        self.conv5_1 = nn.Conv2d(fourth, inner, 3)
        self.conv5_2 = nn.Conv2d(inner, inner, 1)
        self.conv5_3 = nn.Conv2d(inner, classes, 1)
        self.channels = (classes,)

    multiple = 1

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution; zero padding stays zero, so it is exact."""
        self.conv1_1.weight *= factors[:, None, None]

    def sides(self, height: int, width: int) -> Sides:
        return [(-(-height // 16) - 2, -(-width // 16) - 2)]

    def fit(self, height: int, width: int) -> Sides:
        """Return the sides; nothing in this network depends on the input's size."""
        return self.sides(height, width)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = self.conv1_1(pixels).relu()
        for layer in (self.conv1_2, self.conv2_1, self.conv3_1, self.conv4_1):
            maps = F.max_pool2d(layer(maps).relu(), 2, ceil_mode=True)
        maps = self.conv5_2(self.conv5_1(maps).relu()).relu()
        return [self.conv5_3(maps)]
