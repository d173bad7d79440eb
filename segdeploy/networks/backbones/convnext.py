"""Defines the ConvNeXt backbone (arXiv:2201.03545): `Convnext` as in the Hub's files, `DeployedConvnext` for devices.

FAN's hybrids begin with two of its stages, whose norms take another variance: see `UnbiasedNorm`.

In the deployed network the scale of a block's result is in its last product, and each norm's affine is in what reads
it: the block's first product, or the convolution between two stages, which has no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import bare, gelu, linear, module_list, reading_bare

EPS = 1e-6


class MapNorm(nn.LayerNorm):
    """A layer norm over the channels of maps."""

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=EPS)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class UnbiasedNorm(nn.LayerNorm):
    """A layer norm over the last axis, whose variance is divided by C - 1 instead of C.

    timm's LayerNorm2d of 2022 computed that wherever its input was channels-last in memory, as torch.var_mean does
    when it is not told otherwise.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        variance, mean = torch.var_mean(tokens, dim=-1, keepdim=True)
        return (tokens - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class UnbiasedMapNorm(MapNorm, UnbiasedNorm):
    """Is an `UnbiasedNorm` over the channels of maps."""


def with_biased_variance(norm: nn.LayerNorm) -> nn.LayerNorm:
    """Give the layer norm that computes the same with the usual variance, which is (C - 1) / C of the unbiased one."""
    if not isinstance(norm, UnbiasedNorm):
        return norm
    size = norm.weight.numel()
    made = nn.LayerNorm(size, eps=norm.eps * (size - 1) / size)
    made.weight = nn.Parameter(norm.weight.detach() * ((size - 1) / size) ** 0.5)
    made.bias = norm.bias
    return made


class ConvnextBlock(nn.Module):
    def __init__(self, size: int, norm: type[nn.LayerNorm] = nn.LayerNorm) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(size, size, 7, padding=3, groups=size)
        self.layernorm = norm(size, eps=EPS)
        self.pwconv1 = nn.Linear(size, 4 * size)
        self.pwconv2 = nn.Linear(4 * size, size)
        self.layer_scale_parameter = nn.Parameter(torch.ones(size))

    def forward(self, maps: Tensor) -> Tensor:
        tokens = self.layernorm(self.dwconv(maps).permute(0, 2, 3, 1))
        tokens = self.layer_scale_parameter * self.pwconv2(F.gelu(self.pwconv1(tokens)))
        mixed: Tensor = maps + tokens.permute(0, 3, 1, 2)
        return mixed


class ConvnextStage(nn.Module):
    def __init__(self, before: int, size: int, depth: int, unbiased: bool = False) -> None:
        super().__init__()
        map_norm, norm = (UnbiasedMapNorm, UnbiasedNorm) if unbiased else (MapNorm, nn.LayerNorm)
        step = [map_norm(before), nn.Conv2d(before, size, 2, 2)] if before else []
        self.downsampling_layer = nn.Sequential(*step)
        self.layers = module_list(ConvnextBlock(size, norm) for _ in range(depth))

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.downsampling_layer(maps)
        for block in self.layers:
            maps = block(maps)
        return maps


class ConvnextEmbeddings(nn.Module):
    def __init__(self, size: int, patch: int) -> None:
        super().__init__()
        self.patch_embeddings = nn.Conv2d(3, size, patch, patch)
        self.layernorm = MapNorm(size)


class ConvnextEncoder(nn.Module):
    def __init__(self, sizes: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.stages = module_list(
            ConvnextStage(*facts) for facts in zip((0, *sizes[:-1]), sizes, depths, strict=True)
        )


class Convnext(nn.Module):
    def __init__(self, sizes: Sequence[int], depths: Sequence[int], patch: int = 4) -> None:
        super().__init__()
        self.channels = tuple(sizes)
        self.embeddings = ConvnextEmbeddings(sizes[0], patch)
        self.encoder = ConvnextEncoder(sizes, depths)
        self.hidden_states_norms = nn.ModuleDict(
            {f"stage{stage + 1}": MapNorm(size) for stage, size in enumerate(sizes)}
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:  # N×3×H×W -> four N×C×h×w
        maps = self.embeddings.layernorm(self.embeddings.patch_embeddings(pixels))
        found = []
        for stage, norm in zip(self.encoder.stages, self.hidden_states_norms.values(), strict=True):
            maps = stage(maps)
            found.append(norm(maps))
        return found


# ---- the deployed network: the same function in fewer steps ----------------------------------------------------


class DeployedConvnextBlock(nn.Module):
    def __init__(self, plain: ConvnextBlock) -> None:
        super().__init__()
        self.convolve = plain.dwconv
        norm = with_biased_variance(plain.layernorm)
        self.norm = bare(norm)
        self.expand = linear(*reading_bare(norm, plain.pwconv1.weight, plain.pwconv1.bias))
        scale = plain.layer_scale_parameter
        self.shrink = linear(plain.pwconv2.weight * scale[:, None], plain.pwconv2.bias * scale)

    def forward(self, maps: Tensor) -> Tensor:
        tokens = self.norm(self.convolve(maps).permute(0, 2, 3, 1))
        mixed: Tensor = maps + self.shrink(gelu(self.expand(tokens))).permute(0, 3, 1, 2)
        return mixed


class DeployedStep(nn.Module):
    """The norm and the strided convolution between two stages."""

    def __init__(self, norm: nn.LayerNorm, conv: nn.Conv2d) -> None:
        super().__init__()
        norm = with_biased_variance(norm)
        self.norm = bare(norm)
        self.convolve = conv
        assert conv.bias is not None  # noqa: S101 - it always has one
        shift = torch.einsum("oikl,i->o", conv.weight, norm.bias)
        conv.bias = nn.Parameter((conv.bias + shift).detach())
        conv.weight = nn.Parameter((conv.weight * norm.weight[:, None, None]).detach())

    def forward(self, maps: Tensor) -> Tensor:
        normed = self.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        strided: Tensor = self.convolve(normed)
        return strided


class DeployedConvnext(nn.Module):
    multiple = 1

    def __init__(self, plain: Convnext) -> None:
        super().__init__()
        self.embed = plain.embeddings.patch_embeddings
        self.embed_norm = plain.embeddings.layernorm
        stages = plain.encoder.stages
        self.steps = module_list(
            DeployedStep(cast("MapNorm", norm), cast("nn.Conv2d", conv))
            for norm, conv in (stage.downsampling_layer for stage in stages[1:])
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(DeployedConvnextBlock(block) for block in stage.layers)) for stage in stages
        )
        self.norms = nn.ModuleList(plain.hidden_states_norms.values())

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution, which has no padding."""
        self.embed.weight *= factors[:, None, None]

    def sides(self, height: int, width: int) -> Sides:
        """Return the height and width of each stage's map; a row or column that a stride leaves over is cut."""
        patch = self.embed.stride[0]
        return [(height // patch >> stage, width // patch >> stage) for stage in range(len(self.stages))]

    def fit(self, height: int, width: int) -> Sides:
        """Return the sides; nothing in this network depends on the input's size."""
        return self.sides(height, width)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = self.embed_norm(self.embed(pixels))
        found = []
        for place, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if place:
                maps = self.steps[place - 1](maps)
            maps = stage(maps)
            found.append(norm(maps))
        return found
