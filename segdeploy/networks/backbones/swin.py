"""Defines Swin Transformer twice: `Swin` as in the Hub's files, `DeployedSwin` for devices; both give four maps.

The deployed network computes the same function in fewer steps:

* padding, the cyclic shift, the cut into windows and the heads' order are one gather with a constant index, and so is
  the way back; patch merging is one gather too, where the usual form has four strided slices and a concatenation;
* tokens of all images lie in one matrix, so that a product and its bias are one step;
* queries, keys and values are one product, before the padding; the output projection comes after its removal;
* the mask of tokens in a shifted window that may see each other is a constant of the exported size;
* the attention scale is in the query projection; the key bias is dropped (a constant per query does not change
  softmax); the value bias is folded into the output projection, since the attention's rows sum to one.

Padding follows the norm, so padded tokens take part as keys: zeros, times the weights, plus the biases. Without biases
that is zero, so their keys and values can be zeros; their queries do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.backbones.windows import Regrouping, Windows, forbidden_pairs, merging_order
from segdeploy.networks.family import Sides
from segdeploy.networks.folding import gelu, linear, module_list


@dataclass(frozen=True)
class SwinConfig:
    """Holds one backbone's configuration under short names."""

    size: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    patch: int = 4
    mlp_ratio: float = 4.0
    biased: bool = True
    eps: float = 1e-5

    @classmethod
    def from_hub(cls, config: Mapping[str, Any]) -> SwinConfig:
        return cls(
            size=config["embed_dim"],
            depths=tuple(config["depths"]),
            heads=tuple(config["num_heads"]),
            window=config["window_size"],
            patch=config["patch_size"],
            mlp_ratio=config["mlp_ratio"],
            biased=config["qkv_bias"],
            eps=config["layer_norm_eps"],
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.size << stage for stage in range(len(self.depths)))


# ---- the plain network: attribute names are the Hub's parameter names ------------------------------------------


class SwinProjection(nn.Module):
    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, config.size, config.patch, config.patch)


class SwinEmbeddings(nn.Module):
    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.patch_embeddings = SwinProjection(config)
        self.norm = nn.LayerNorm(config.size)

    def forward(self, pixels: Tensor) -> Tensor:  # N×3×H×W -> N×h×w×C
        embedded = self.patch_embeddings.projection(padded_to(pixels, self.patch))
        tokens: Tensor = self.norm(embedded.permute(0, 2, 3, 1))
        return tokens

    @property
    def patch(self) -> int:
        return self.patch_embeddings.projection.stride[0]


def padded_to(maps: Tensor, multiple: int) -> Tensor:
    """Pad with zeros on the right and below, up to a multiple."""
    height, width = maps.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(maps, (0, right, 0, below)) if below or right else maps


class WindowSelfAttention(nn.Module):
    def __init__(self, size: int, heads: int, window: int, biased: bool) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.query = nn.Linear(size, size, biased)
        self.key = nn.Linear(size, size, biased)
        self.value = nn.Linear(size, size, biased)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))

    def forward(self, windows: Tensor, forbidden: Tensor | None) -> Tensor:  # N·windows×L×C
        query, key, value = (
            part(windows).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        bias = self.position_bias()[None]
        if forbidden is not None:
            bias = (bias + forbidden).repeat(len(windows) // len(forbidden), 1, 1, 1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return mixed.transpose(1, 2).flatten(2)

    def position_bias(self) -> Tensor:  # heads×L×L, by the distance of key and query
        place = torch.arange(self.window)
        apart = place[:, None] - place + self.window - 1
        index = apart[:, None, :, None] * (2 * self.window - 1) + apart[None, :, None, :]
        length = self.window**2
        return self.relative_position_bias_table[index.reshape(length, length)].permute(2, 0, 1)


class SwinOutput(nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, size)


class SwinAttention(nn.Module):
    def __init__(self, size: int, heads: int, window: int, biased: bool) -> None:
        super().__init__()
        self.self = WindowSelfAttention(size, heads, window, biased)
        self.output = SwinOutput(size, size)


class SwinExpansion(nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, inner)


class SwinBlock(nn.Module):
    def __init__(self, config: SwinConfig, stage: int, place: int) -> None:
        super().__init__()
        size, inner = config.sizes[stage], int(config.sizes[stage] * config.mlp_ratio)
        self.window = config.window
        self.shift = config.window // 2 if place % 2 else 0
        self.layernorm_before = nn.LayerNorm(size, config.eps)
        self.attention = SwinAttention(size, config.heads[stage], config.window, config.biased)
        self.layernorm_after = nn.LayerNorm(size, config.eps)
        self.intermediate = SwinExpansion(size, inner)
        self.output = SwinOutput(size, inner)

    def forward(self, tokens: Tensor) -> Tensor:  # N×h×w×C
        tokens = tokens + self.attend(self.layernorm_before(tokens))
        hidden = F.gelu(self.intermediate.dense(self.layernorm_after(tokens)))
        mixed: Tensor = tokens + self.output.dense(hidden)
        return mixed

    def attend(self, tokens: Tensor) -> Tensor:
        height, width = tokens.shape[1:3]
        side = self.window
        tokens = padded_to(tokens.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)
        rows, columns = tokens.shape[1] // side, tokens.shape[2] // side
        if self.shift:
            tokens = tokens.roll((-self.shift, -self.shift), (1, 2))
        batch, _, _, size = tokens.shape
        windows = tokens.reshape(batch, rows, side, columns, side, size).transpose(2, 3)
        windows = windows.reshape(batch * rows * columns, side * side, size)
        mixed = self.attention.output.dense(
            self.attention.self(windows, forbidden_pairs(rows, columns, side, self.shift))
        )
        mixed = mixed.reshape(batch, rows, columns, side, side, size).transpose(2, 3).reshape(tokens.shape)
        if self.shift:
            mixed = mixed.roll((self.shift, self.shift), (1, 2))
        cropped: Tensor = mixed[:, :height, :width]
        return cropped


class PatchMerging(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * size, 2 * size, bias=False)
        self.norm = nn.LayerNorm(4 * size)

    def forward(self, tokens: Tensor) -> Tensor:  # N×h×w×C -> N×⌈h/2⌉×⌈w/2⌉×2C
        tokens = padded_to(tokens.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        quarters = [tokens[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(quarters, dim=-1)))
        return merged


class SwinStage(nn.Module):
    def __init__(self, config: SwinConfig, stage: int) -> None:
        super().__init__()
        self.blocks = module_list(SwinBlock(config, stage, place) for place in range(config.depths[stage]))
        self.downsample = PatchMerging(config.sizes[stage]) if stage + 1 < len(config.depths) else None


class SwinEncoder(nn.Module):
    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.layers = module_list(SwinStage(config, stage) for stage in range(len(config.depths)))


class Swin(nn.Module):
    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = config.sizes
        self.embeddings = SwinEmbeddings(config)
        self.encoder = SwinEncoder(config)
        self.hidden_states_norms = nn.ModuleDict(
            {f"stage{stage + 1}": nn.LayerNorm(size) for stage, size in enumerate(config.sizes)}
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:  # N×3×H×W -> four N×C×h×w
        tokens = self.embeddings(pixels)
        found = []
        for stage, norm in zip(self.encoder.layers, self.hidden_states_norms.values(), strict=True):
            for block in stage.blocks:
                tokens = block(tokens)
            found.append(norm(tokens).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)
        return found


# ---- the deployed network: the same function in fewer steps ----------------------------------------------------


class DeployedWindowAttention(nn.Module):
    def __init__(self, attention: SwinAttention) -> None:
        super().__init__()
        plain, dense = attention.self, attention.output.dense
        size = plain.query.in_features
        scale = (size // plain.heads) ** -0.5
        weights = [plain.query.weight * scale, plain.key.weight, plain.value.weight]
        biases = torch.zeros(3 * size)
        if plain.query.bias is not None:
            biases[:size] = plain.query.bias.detach() * scale
        self.triple = linear(torch.cat(weights), biases)  # query, key, value
        bias = dense.bias if plain.value.bias is None else dense.bias + dense.weight @ plain.value.bias
        self.project = linear(dense.weight, bias)
        self.position_bias = nn.Buffer(plain.position_bias().detach()[None, None].clone())

    def forward(self, tokens: Tensor, windows: Windows) -> Tensor:  # Nhw×C
        query, key, value = windows.cut(self.triple(tokens)).split_with_sizes([windows.heads] * 3, dim=2)
        scores = query @ key.transpose(-1, -2)  # N×windows×heads×L×L
        scores = scores + self.position_bias
        if windows.forbidden is not None:
            scores = scores + windows.forbidden
        projected: Tensor = self.project(windows.join(scores.softmax(-1) @ value))
        return projected


class DeployedSwinBlock(nn.Module):
    def __init__(self, block: SwinBlock) -> None:
        super().__init__()
        self.shift = block.shift
        self.norm1, self.norm2 = block.layernorm_before, block.layernorm_after
        self.attention = DeployedWindowAttention(block.attention)
        self.expand, self.shrink = block.intermediate.dense, block.output.dense

    def forward(self, tokens: Tensor, windows: Windows) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens), windows)
        mixed: Tensor = tokens + self.shrink(gelu(self.expand(self.norm2(tokens))))
        return mixed


class DeployedSwinStage(nn.Module):
    """Merges the previous stage's tokens, and runs the blocks of one stage on them."""

    def __init__(self, merging: PatchMerging | None, stage: SwinStage, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.merge_norm = None if merging is None else merging.norm
        self.reduce = None if merging is None else merging.reduction
        self.blocks = module_list(DeployedSwinBlock(block) for block in stage.blocks)
        self.norm = norm
        self.side, self.heads = stage.blocks[0].window, stage.blocks[0].attention.self.heads

    def fit(self, height: int, width: int) -> None:
        self.merge = Regrouping(merging_order(height, width)) if self.reduce is not None else None
        self.merged = height * width
        if self.merge is not None:
            height, width = -(-height // 2), -(-width // 2)
        self.height, self.width = height, width
        shifts = sorted({block.shift for block in self.blocks})
        self.windows = nn.ModuleList(Windows(height, width, self.side, shift, self.heads) for shift in shifts)

    def forward(self, tokens: Tensor) -> Tensor:  # of the stage before -> of the blocks, Nhw×C
        if self.merge is not None and self.merge_norm is not None and self.reduce is not None:
            images = len(tokens) // self.merged
            quarters = self.merge(tokens.reshape(images, self.merged, tokens.shape[1]))
            joined = quarters.reshape(len(quarters) * self.height * self.width, 4 * quarters.shape[-1])
            tokens = self.reduce(self.merge_norm(joined))
        for block in self.blocks:
            tokens = block(tokens, self.windows[1 if block.shift else 0])
        return tokens

    def maps_of(self, tokens: Tensor) -> Tensor:  # Nhw×C -> N×C×h×w
        normed: Tensor = self.norm(tokens)
        images = len(tokens) // (self.height * self.width)
        return normed.reshape(images, self.height, self.width, normed.shape[1]).permute(0, 3, 1, 2)


class DeployedSwin(nn.Module):
    multiple = 1

    def __init__(self, plain: Swin) -> None:
        super().__init__()
        self.embed = plain.embeddings.patch_embeddings.projection
        self.embed_norm = plain.embeddings.norm
        stages = plain.encoder.layers
        mergings = [None, *(stage.downsample for stage in stages[:-1])]
        self.stages = module_list(
            DeployedSwinStage(merging, stage, cast("nn.LayerNorm", norm))
            for merging, stage, norm in zip(mergings, stages, plain.hidden_states_norms.values(), strict=True)
        )

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution; zero padding stays zero, so it is exact."""
        self.embed.weight *= factors[:, None, None]

    def sides(self, height: int, width: int) -> Sides:
        """Return the height and width of each stage's map."""
        reductions = [self.embed.stride[0] << stage for stage in range(len(self.stages))]
        return [(-(-height // reduction), -(-width // reduction)) for reduction in reductions]

    def fit(self, height: int, width: int) -> Sides:
        """Make the constants of one input size; returns the height and width of each stage's map."""
        sides = self.sides(height, width)
        for stage, before in zip(self.stages, (sides[0], *sides), strict=False):
            stage.fit(*before)
        return sides

    def forward(self, pixels: Tensor) -> list[Tensor]:  # N×3×H×W -> four N×C×h×w
        maps = self.embed(padded_to(pixels, self.embed.stride[0]))
        tokens = self.embed_norm(maps.permute(0, 2, 3, 1).flatten(0, 2))
        found = []
        for stage in self.stages:
            tokens = stage(tokens)
            found.append(stage.maps_of(tokens))
        return found
