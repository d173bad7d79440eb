"""Defines the ResNet backbones twice: `Resnet` as in the Hub's files, `DeployedResnet` without batch norms.

Each batch norm is folded into the convolution before it, in float64. Besides the Hub's form (7x7 stem, bottlenecks)
there is mmsegmentation's: a stem of three 3x3 convolutions, the basic blocks of ResNet-18 and -34, and stages whose
convolutions are dilated instead of strided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import module_list
from segdeploy.networks.normed import NormedConvolution, rectified, without_norm

REDUCTION = 4  # of a bottleneck's inner channels


@dataclass(frozen=True)
class ResnetConfig:
    stem: int
    sizes: tuple[int, ...]
    depths: tuple[int, ...]
    stride_first: bool = (
        False  # a bottleneck strides in its first 1x1 convolution, as the original ResNets do
    )
    strides: tuple[int, ...] = (1, 2, 2, 2)
    dilations: tuple[tuple[int, ...], ...] = ()  # of each block of each stage; none: 1 everywhere
    basic: bool = False  # blocks of two 3x3 convolutions
    deep_stem: bool = False

    @classmethod
    def from_hub(cls, config: Mapping[str, Any]) -> ResnetConfig:
        return cls(
            stem=config["embedding_size"],
            sizes=tuple(config["hidden_sizes"]),
            depths=tuple(config["depths"]),
            stride_first=config["downsample_in_bottleneck"],
        )

    def dilation(self, stage: int, place: int) -> int:
        return self.dilations[stage][place] if self.dilations else 1


def block_convolutions(
    config: ResnetConfig, inputs: int, outputs: int, stride: int, dilation: int
) -> tuple[NormedConvolution, ...]:
    if config.basic:  # only the first dilates
        return (
            NormedConvolution(inputs, outputs, 3, stride, dilation),
            NormedConvolution(outputs, outputs, 3),
        )
    inner = outputs // REDUCTION
    first, second = (stride, 1) if config.stride_first else (1, stride)
    return (
        NormedConvolution(inputs, inner, 1, first),
        NormedConvolution(inner, inner, 3, second, dilation),
        NormedConvolution(inner, outputs, 1),
    )


class ResnetBlock(nn.Module):
    def __init__(self, config: ResnetConfig, stage: int, place: int) -> None:
        super().__init__()
        outputs = config.sizes[stage]
        inputs = outputs if place else (config.stem, *config.sizes)[stage]
        stride = 1 if place else config.strides[stage]
        changes = inputs != outputs or stride != 1
        self.shortcut = NormedConvolution(inputs, outputs, 1, stride) if changes else nn.Identity()
        self.layer = module_list(
            block_convolutions(config, inputs, outputs, stride, config.dilation(stage, place))
        )

    def forward(self, maps: Tensor) -> Tensor:
        shortcut: Tensor = self.shortcut(maps)
        *before, last = self.layer
        for layer in before:
            maps = layer(maps).relu()
        summed: Tensor = last(maps) + shortcut
        return summed.relu()


class ResnetStage(nn.Module):
    def __init__(self, config: ResnetConfig, stage: int) -> None:
        super().__init__()
        self.layers = module_list(ResnetBlock(config, stage, place) for place in range(config.depths[stage]))


class DeepStem(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.steps = module_list(
            (
                NormedConvolution(3, size // 2, 3, 2),
                NormedConvolution(size // 2, size // 2, 3),
                NormedConvolution(size // 2, size, 3),
            )
        )

    def forward(self, pixels: Tensor) -> Tensor:
        *before, last = self.steps
        for step in before:
            pixels = step(pixels).relu()
        embedded: Tensor = last(pixels)
        return embedded


class ResnetStem(nn.Module):
    def __init__(self, config: ResnetConfig) -> None:
        super().__init__()
        self.embedder: DeepStem | NormedConvolution = (
            DeepStem(config.stem) if config.deep_stem else NormedConvolution(3, config.stem, 7, 2)
        )

    @property
    def steps(self) -> list[NormedConvolution]:
        return list(self.embedder.steps) if isinstance(self.embedder, DeepStem) else [self.embedder]


class ResnetEncoder(nn.Module):
    def __init__(self, config: ResnetConfig) -> None:
        super().__init__()
        self.stages = module_list(ResnetStage(config, stage) for stage in range(len(config.depths)))


class Resnet(nn.Module):
    def __init__(self, config: ResnetConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = config.sizes
        self.embedder = ResnetStem(config)
        self.encoder = ResnetEncoder(config)

    def forward(self, pixels: Tensor) -> list[Tensor]:  # N×3×H×W -> four N×C×h×w
        maps = F.max_pool2d(self.embedder.embedder(pixels).relu(), 3, 2, 1)
        found = []
        for stage in self.encoder.stages:
            for block in stage.layers:
                maps = block(maps)
            found.append(maps)
        return found


# ---- the deployed network --------------------------------------------------------------------------------------


class DeployedResnetBlock(nn.Module):
    def __init__(self, plain: ResnetBlock) -> None:
        super().__init__()
        *before, last = plain.layer
        self.inner = rectified(*before)
        self.expand = without_norm(last)
        shortcut = plain.shortcut
        self.shortcut = without_norm(shortcut) if isinstance(shortcut, NormedConvolution) else None

    def forward(self, maps: Tensor) -> Tensor:
        summed: Tensor = self.expand(self.inner(maps)) + (
            maps if self.shortcut is None else self.shortcut(maps)
        )
        return summed.relu()


class DeployedResnetStage(nn.Module):
    def __init__(self, stage: ResnetStage) -> None:
        super().__init__()
        self.blocks = module_list(DeployedResnetBlock(block) for block in stage.layers)

    def forward(self, maps: Tensor) -> Tensor:
        for block in self.blocks:
            maps = block(maps)
        return maps


class DeployedResnet(nn.Module):
    multiple = 1

    def __init__(self, plain: Resnet) -> None:
        super().__init__()
        self.embed = rectified(*plain.embedder.steps)
        self.strides = plain.config.strides
        self.stages = module_list(DeployedResnetStage(stage) for stage in plain.encoder.stages)

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution; zero padding stays zero, so it is exact."""
        cast("nn.Conv2d", self.embed[0]).weight *= factors[:, None, None]

    def sides(self, height: int, width: int) -> Sides:
        """Return the height and width of each stage's map."""
        found, reduction = [], 4
        for stride in self.strides:
            reduction *= stride
            found.append((-(-height // reduction), -(-width // reduction)))
        return found

    def fit(self, height: int, width: int) -> Sides:
        """Return the sides; nothing in this network depends on the input's size."""
        return self.sides(height, width)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = F.max_pool2d(self.embed(pixels), 3, 2, 1)
        found = []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        return found
