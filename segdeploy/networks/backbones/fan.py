"""Defines the hybrid FAN backbone (arXiv:2204.12451): `Fan` as in NVIDIA's files, `DeployedFan` for devices.

Two ConvNeXt stages give the maps at 1/4 and 1/8; then tokens at 1/16 go through blocks, each of which mixes them by
attention and weighs their channels. The published class attention is left out: the tokens of the image never read the
class token, so that all it does to them is two layer norms (`ClassNorms`).

The deployed network computes the same in fewer steps:

* attention is folded as in a MiT, and every block's two scales are in the last weights before them;
* the channels' weights do not change with the bias of their query and with the shift of their norm, since a softmax
  over tokens does not: the query has no bias;
* the positions are a constant, and `gamma` is in the convolution before it. The batch norm stays, because the
  convolution behind it pads with zeros after the shift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.backbones.convnext import (
    ConvnextEmbeddings,
    ConvnextStage,
    DeployedConvnextBlock,
    DeployedStep,
)
from segdeploy.networks.backbones.mit import DeployedMitAttention, MitAttention
from segdeploy.networks.family import Sides
from segdeploy.networks.folding import (
    gain_and_shift,
    gelu,
    linear,
    module_list,
    pointwise,
    to_maps,
    to_tokens,
)

EPS = 1e-6
WAVES = 32  # of the positions, along each axis


class FourierPositions(nn.Module):
    """Encodes where a token lies; `floored` has each wavelength twice, once as a sine and once as a cosine."""

    def __init__(self, size: int, floored: bool) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(2 * WAVES, size, 1)
        self.floored = floored

    def waves(self, length: int) -> Tensor:  # length×WAVES
        places = torch.arange(1, length + 1, dtype=torch.float32)
        places = places / (places[-1] + 1e-6) * (2 * math.pi)
        steps = torch.arange(WAVES, dtype=torch.float32)
        halves = torch.div(steps, 2, rounding_mode="floor") if self.floored else steps / 2
        angles = places[:, None] / 10000 ** (2 * halves / WAVES)
        return torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), 2).flatten(1)

    def forward(self, height: int, width: int) -> Tensor:  # 1×C×h×w
        rows = self.waves(height)[:, None].expand(height, width, WAVES)
        columns = self.waves(width)[None].expand(height, width, WAVES)
        encoded: Tensor = self.token_projection(torch.cat((rows, columns), 2).permute(2, 0, 1)[None])
        return encoded


class TwiceConvolved(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(size, size, 3, padding=1, groups=size)
        self.bn = nn.BatchNorm2d(size)
        self.conv2 = nn.Conv2d(size, size, 3, padding=1, groups=size)

    def forward(self, maps: Tensor) -> Tensor:
        convolved: Tensor = self.conv2(self.bn(F.gelu(self.conv1(maps))))
        return convolved


class ConvolvedMlp(nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, inner)
        self.dwconv = TwiceConvolved(inner)
        self.gamma = nn.Parameter(torch.ones(inner))
        self.fc2 = nn.Linear(inner, size)

    def forward(self, tokens: Tensor) -> Tensor:  # N×h×w×C
        hidden = self.fc1(tokens)
        convolved = self.dwconv(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        mixed: Tensor = self.fc2(self.gamma * convolved + hidden)
        return mixed


class ChannelProcessing(nn.Module):
    """Gives each channel of an MLP's answer a weight, which is one number for all tokens."""

    def __init__(self, size: int, inner: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.q = nn.Linear(size, size)
        self.mlp_v = ConvolvedMlp(size, inner)
        self.norm_v = nn.LayerNorm(size)

    def forward(self, tokens: Tensor) -> Tensor:  # N×h×w×C
        query = self.split(self.q(tokens)).softmax(-1)
        key = self.split(tokens).softmax(-1).mean(2, keepdim=True)
        weights = (query @ key.transpose(-1, -2)).sigmoid() * self.temperature  # N×heads×d×1
        weighed: Tensor = weights.reshape(len(tokens), 1, 1, -1) * self.norm_v(self.mlp_v(tokens))
        return weighed

    def split(self, tokens: Tensor) -> Tensor:  # N×h×w×C -> N×heads×d×hw
        heads: Tensor = tokens.flatten(1, 2).transpose(1, 2).unflatten(1, (len(self.temperature), -1))
        return heads


class FanBlock(nn.Module):
    def __init__(self, size: int, inner: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size, eps=EPS)
        self.attention = MitAttention(size, heads, 1, EPS)
        self.norm2 = nn.LayerNorm(size, eps=EPS)
        self.mlp = ChannelProcessing(size, inner, heads)
        self.gamma1 = nn.Parameter(torch.ones(size))
        self.gamma2 = nn.Parameter(torch.ones(size))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.gamma1 * self.attention(self.norm1(tokens))
        mixed: Tensor = tokens + self.gamma2 * self.mlp(self.norm2(tokens))
        return mixed


class ClassNorms(nn.Module):
    """Does what a layer of class attention does to the tokens that are not the class's."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size, eps=EPS)
        self.norm2 = nn.LayerNorm(size, eps=EPS)
        self.gamma1 = nn.Parameter(torch.ones(size))

    def forward(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm2(tokens + self.gamma1 * self.norm1(tokens))
        return normed + normed


class Fan(nn.Module):
    """`taken` is the number of blocks before the third map; the fourth is taken behind the class norms."""

    def __init__(
        self,
        stages: Sequence[tuple[int, int]],
        size: int,
        inner: int,
        heads: int,
        depth: int,
        taken: int,
        floored: bool,
    ) -> None:
        super().__init__()
        sizes = [width for width, _ in stages]
        self.channels = (*sizes, size, size)
        self.taken = taken
        self.embeddings = ConvnextEmbeddings(sizes[0], 4)
        self.stages = module_list(
            ConvnextStage(before, *stage, unbiased=True)
            for before, stage in zip((0, *sizes[:-1]), stages, strict=True)
        )
        self.embed = nn.Conv2d(sizes[-1], size, 2, 2)
        self.positions = FourierPositions(size, floored)
        self.blocks = module_list(FanBlock(size, inner, heads) for _ in range(depth))
        self.class_norms = module_list(ClassNorms(size) for _ in range(2))

    def forward(self, pixels: Tensor) -> list[Tensor]:  # N×3×H×W -> four N×C×h×w
        maps = self.embeddings.layernorm(self.embeddings.patch_embeddings(pixels))
        found = []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        maps = self.embed(maps)
        tokens = (maps + self.positions(*maps.shape[2:])).permute(0, 2, 3, 1)
        for place, block in enumerate(self.blocks):
            tokens = block(tokens)
            if place + 1 == self.taken:
                found.append(tokens.permute(0, 3, 1, 2))
        for norms in self.class_norms:
            tokens = norms(tokens)
        return [*found, tokens.permute(0, 3, 1, 2)]


# ---- the deployed network: the same function in fewer steps ----------------------------------------------------


def scaled_norm(norm: nn.LayerNorm, factors: Tensor | float) -> nn.LayerNorm:
    made = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    made.weight = nn.Parameter((norm.weight * factors).detach())
    made.bias = nn.Parameter((norm.bias * factors).detach())
    return made


class DeployedConvolvedMlp(nn.Module):
    def __init__(self, plain: ConvolvedMlp) -> None:
        super().__init__()
        twice = plain.dwconv
        self.expand = pointwise(plain.fc1.weight, plain.fc1.bias)
        self.convolve = twice.conv1
        gain, shift = gain_and_shift(twice.bn)
        self.gain, self.shift = (nn.Buffer(one.detach().float()[:, None, None]) for one in (gain, shift))
        self.convolve_again = twice.conv2
        self.convolve_again.weight = nn.Parameter(
            (twice.conv2.weight * plain.gamma[:, None, None, None]).detach()
        )
        assert twice.conv2.bias is not None  # noqa: S101 - it always has one
        self.convolve_again.bias = nn.Parameter((twice.conv2.bias * plain.gamma).detach())
        self.shrink = pointwise(plain.fc2.weight, plain.fc2.bias)

    def forward(self, maps: Tensor) -> Tensor:
        hidden = self.expand(maps)
        between = gelu(self.convolve(hidden)) * self.gain + self.shift
        mixed: Tensor = self.shrink(hidden + self.convolve_again(between))
        return mixed


class DeployedFanBlock(nn.Module):
    def __init__(self, plain: FanBlock) -> None:
        super().__init__()
        channels = plain.mlp
        self.norm1 = nn.LayerNorm(plain.norm1.normalized_shape, eps=EPS, elementwise_affine=False)
        self.attention = DeployedMitAttention(plain.norm1, plain.attention)
        project = self.attention.project
        self.attention.project = linear(
            project.weight * plain.gamma1[:, None], cast("Tensor", project.bias) * plain.gamma1
        )
        self.norm2 = plain.norm2
        self.heads = len(channels.temperature)
        self.query = pointwise(channels.q.weight, None)
        self.mlp = DeployedConvolvedMlp(channels.mlp_v)
        temperature = channels.temperature.flatten().repeat_interleave(len(plain.gamma2) // self.heads)
        self.norm_value = scaled_norm(channels.norm_v, plain.gamma2 * temperature)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:  # N×hw×C
        tokens = tokens + self.attention(self.norm1(tokens), height, width)
        maps = to_maps(self.norm2(tokens), height, width)
        query = self.split(self.query(maps)).softmax(-1)
        key = self.split(maps).softmax(-1).mean(2)
        weights = (query @ key[..., None]).sigmoid().reshape(len(tokens), 1, -1)
        mixed: Tensor = tokens + weights * self.norm_value(to_tokens(self.mlp(maps)))
        return mixed

    def split(self, maps: Tensor) -> Tensor:  # N×C×h×w -> N×heads×d×hw
        batch, size, height, width = maps.shape
        return maps.reshape(batch, self.heads, size // self.heads, height * width)


def steps_between(stage: ConvnextStage) -> list[DeployedStep]:
    """Give the step before a stage; none before the first."""
    if not len(stage.downsampling_layer):
        return []
    norm, conv = stage.downsampling_layer
    return [DeployedStep(cast("nn.LayerNorm", norm), cast("nn.Conv2d", conv))]


class DeployedFan(nn.Module):
    multiple = 1

    def __init__(self, plain: Fan) -> None:
        super().__init__()
        self.embed, self.embed_norm = plain.embeddings.patch_embeddings, plain.embeddings.layernorm
        self.stages = nn.ModuleList(
            nn.Sequential(*steps_between(stage), *(DeployedConvnextBlock(block) for block in stage.layers))
            for stage in plain.stages
        )
        self.embed_tokens = plain.embed
        self.encode = plain.positions
        self.taken = plain.taken
        self.blocks = module_list(DeployedFanBlock(block) for block in plain.blocks)
        self.class_norms = nn.ModuleList(
            nn.ModuleList((scaled_norm(layer.norm1, layer.gamma1), scaled_norm(layer.norm2, 2)))
            for layer in plain.class_norms
        )

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution, which has no padding."""
        self.embed.weight *= factors[:, None, None]

    def sides(self, height: int, width: int) -> Sides:
        """Return the height and width of each map; a row or column that a stride leaves over is cut."""
        return [(height // stride, width // stride) for stride in (4, 8, 16, 16)]

    def fit(self, height: int, width: int) -> Sides:
        """Make the positions of one input size; returns the sides of the maps."""
        sides = self.sides(height, width)
        self.positions = nn.Buffer(to_tokens(self.encode(*sides[-1])).detach().clone())
        return sides

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = self.embed_norm(self.embed(pixels))
        found = []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        maps = self.embed_tokens(maps)
        height, width = maps.shape[2:]
        tokens = to_tokens(maps) + self.positions
        for place, block in enumerate(self.blocks):
            tokens = block(tokens, height, width)
            if place + 1 == self.taken:
                found.append(to_maps(tokens, height, width))
        for norms in self.class_norms:
            first, second = cast("Sequence[nn.Module]", norms)
            tokens = second(tokens + first(tokens))
        return [*found, to_maps(tokens, height, width)]
