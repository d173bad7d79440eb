"""Defines mmsegmentation's U-Net (arXiv:1505.04597): five maps, the deepest first, the last of the input's own size.

In the deployed network the 1x1 convolution behind each resize comes before it: both are linear, and the resize's
weights sum to one, so the bias does not change. It then reads a quarter of the pixels; the ReLU stays behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import module_list
from segdeploy.networks.normed import NormedConvolution, rectified, without_norm


def twice_as_large(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


class UnetConvolutions(nn.Module):
    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        self.convs = module_list(
            NormedConvolution(outputs if place else inputs, outputs, 3) for place in range(count)
        )

    def forward(self, maps: Tensor) -> Tensor:
        for layer in self.convs:
            maps = layer(maps).relu()
        return maps


class UnetStep(nn.Module):
    """Goes one step up: enlarges and narrows the coarser map, and joins it with the encoder's map of that size."""

    def __init__(self, outputs: int, count: int) -> None:
        super().__init__()
        self.narrow = NormedConvolution(2 * outputs, outputs, 1)
        self.conv_block = UnetConvolutions(2 * outputs, outputs, count)

    def forward(self, skipped: Tensor, coarse: Tensor) -> Tensor:
        raised = self.narrow(twice_as_large(coarse)).relu()
        made: Tensor = self.conv_block(torch.cat((skipped, raised), 1))
        return made


class Unet(nn.Module):
    def __init__(self, width: int, down: Sequence[int], up: Sequence[int]) -> None:
        """Make it from the first stage's width and the number of convolutions of each stage and each step up."""
        super().__init__()
        sizes = [width << stage for stage in range(len(down))]
        self.channels = tuple(sizes[::-1])
        self.encoder = module_list(
            UnetConvolutions(inputs, outputs, count)
            for inputs, outputs, count in zip((3, *sizes), sizes, down, strict=False)
        )
        self.decoder = module_list(UnetStep(size, count) for size, count in zip(sizes, up, strict=False))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = pixels
        skipped: list[Tensor] = []
        for stage in self.encoder:
            maps = stage(F.max_pool2d(maps, 2) if skipped else maps)
            skipped.append(maps)
        found = [maps]
        for step, fine in zip(self.decoder[::-1], skipped[-2::-1], strict=True):
            found.append(step(fine, found[-1]))
        return found


# ---- the deployed network --------------------------------------------------------------------------------------


class DeployedUnetStep(nn.Module):
    def __init__(self, plain: UnetStep) -> None:
        super().__init__()
        self.narrow = without_norm(plain.narrow)
        self.convolve = rectified(*plain.conv_block.convs)

    def forward(self, skipped: Tensor, coarse: Tensor) -> Tensor:
        raised = twice_as_large(self.narrow(coarse)).relu()
        made: Tensor = self.convolve(torch.cat((skipped, raised), 1))
        return made


class DeployedUnet(nn.Module):
    def __init__(self, plain: Unet) -> None:
        super().__init__()
        self.encoder = module_list(rectified(*stage.convs) for stage in plain.encoder)
        self.decoder = module_list(DeployedUnetStep(step) for step in plain.decoder)
        self.multiple = 1 << len(self.decoder)

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution; zero padding stays zero, so it is exact."""
        cast("nn.Conv2d", self.encoder[0][0]).weight *= factors[:, None, None]

    def sides(self, height: int, width: int) -> Sides:
        return [(height >> step, width >> step) for step in range(len(self.decoder), -1, -1)]

    def fit(self, height: int, width: int) -> Sides:
        """Return the sides; nothing in this network depends on the input's size."""
        return self.sides(height, width)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = pixels
        skipped: list[Tensor] = []
        for stage in self.encoder:
            maps = stage(F.max_pool2d(maps, 2) if skipped else maps)
            skipped.append(maps)
        found = [maps]
        for step, fine in zip(self.decoder[::-1], skipped[-2::-1], strict=True):
            found.append(step(fine, found[-1]))
        return found
