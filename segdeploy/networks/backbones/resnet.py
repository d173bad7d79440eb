"""Defines the ResNet-50 and -101 backbones twice: `Resnet` as in the Hub's files, `DeployedResnet` without batch norms.

Each batch norm is folded into the convolution before it, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.folding import folded, module_list

REDUCTION = 4  # of a bottleneck's inner channels


@dataclass(frozen=True)
class ResnetConfig:
    stem: int
    sizes: tuple[int, ...]
    depths: tuple[int, ...]
    stride_first: bool = (
        False  # a bottleneck strides in its first 1x1 convolution, as the original ResNets do
    )

    @classmethod
    def from_hub(cls, config: Mapping[str, Any]) -> ResnetConfig:
        return cls(
            stem=config["embedding_size"],
            sizes=tuple(config["hidden_sizes"]),
            depths=tuple(config["depths"]),
            stride_first=config["downsample_in_bottleneck"],
        )


class NormedConvolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        normed: Tensor = self.normalization(self.convolution(maps))
        return normed


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, stride_first: bool) -> None:
        super().__init__()
        inner = outputs // REDUCTION
        first, second = (stride, 1) if stride_first else (1, stride)
        changes = inputs != outputs or stride != 1
        self.shortcut = NormedConvolution(inputs, outputs, 1, stride) if changes else nn.Identity()
        self.layer = module_list(
            (
                NormedConvolution(inputs, inner, 1, first),
                NormedConvolution(inner, inner, 3, second),
                NormedConvolution(inner, outputs, 1),
            )
        )

    def forward(self, maps: Tensor) -> Tensor:
        first, second, third = self.layer
        deep: Tensor = third(second(first(maps).relu()).relu())
        shortcut: Tensor = self.shortcut(maps)
        return (deep + shortcut).relu()


class ResnetStage(nn.Module):
    def __init__(self, config: ResnetConfig, stage: int) -> None:
        super().__init__()
        inputs = (config.stem, *config.sizes)[stage]
        outputs, stride = config.sizes[stage], 2 if stage else 1
        self.layers = module_list(
            Bottleneck(outputs if place else inputs, outputs, 1 if place else stride, config.stride_first)
            for place in range(config.depths[stage])
        )


class ResnetStem(nn.Module):
    def __init__(self, config: ResnetConfig) -> None:
        super().__init__()
        self.embedder = NormedConvolution(3, config.stem, 7, 2)


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


def without_norm(layer: NormedConvolution) -> nn.Conv2d:
    return folded(layer.convolution, layer.normalization)


class DeployedBottleneck(nn.Module):
    def __init__(self, plain: Bottleneck) -> None:
        super().__init__()
        self.reduce, self.mix, self.expand = map(without_norm, plain.layer)
        shortcut = plain.shortcut
        self.shortcut = without_norm(shortcut) if isinstance(shortcut, NormedConvolution) else None

    def forward(self, maps: Tensor) -> Tensor:
        deep = self.expand(self.mix(self.reduce(maps).relu()).relu())
        summed: Tensor = deep + (maps if self.shortcut is None else self.shortcut(maps))
        return summed.relu()


class DeployedResnetStage(nn.Module):
    def __init__(self, stage: ResnetStage) -> None:
        super().__init__()
        self.blocks = module_list(DeployedBottleneck(block) for block in stage.layers)

    def forward(self, maps: Tensor) -> Tensor:
        for block in self.blocks:
            maps = block(maps)
        return maps


class DeployedResnet(nn.Module):
    def __init__(self, plain: Resnet) -> None:
        super().__init__()
        self.embed = without_norm(plain.embedder.embedder)
        self.stages = module_list(DeployedResnetStage(stage) for stage in plain.encoder.stages)

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution; zero padding stays zero, so it is exact."""
        self.embed.weight *= factors[:, None, None]

    def fit(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the height and width of each stage's map."""
        return [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = F.max_pool2d(self.embed(pixels).relu(), 3, 2, 1)
        found = []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        return found
