"""Defines the Mix Transformer (MiT) backbone twice: `Mit` as in the Hub's SegFormers, and its stages for devices.

The deployed stages compute the same function:

* LayerNorm's affine is folded into the projections that read it, the attention scale into the query projection;
* the key bias is dropped (a constant per query does not change softmax), and the value bias is folded into the output
  projection's bias, since the attention's rows sum to one;
* the Mix-FFN runs channels-first between two transposes of C channels instead of two of 4C.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.folding import (
    bare,
    gelu,
    linear,
    module_list,
    pointwise,
    reading_bare,
    to_maps,
    to_tokens,
)


@dataclass(frozen=True)
class NormEpsilons:
    """Holds LayerNorm's eps by place; the Hub's networks use 1e-5 everywhere, the original uses 1e-6 in blocks."""

    patch_embed: float = 1e-5
    block: float = 1e-5
    sr: float = 1e-5
    stage: float = 1e-5


@dataclass(frozen=True)
class MitConfig:
    """Holds one backbone's configuration under short names."""

    sizes: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...] = (1, 2, 5, 8)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    mlp_ratios: tuple[float, ...] = (4, 4, 4, 4)
    eps: NormEpsilons = NormEpsilons()

    @classmethod
    def from_hub(cls, config: Mapping[str, Any]) -> MitConfig:
        return cls(
            sizes=tuple(config["hidden_sizes"]),
            depths=tuple(config["depths"]),
            heads=tuple(config["num_attention_heads"]),
            sr_ratios=tuple(config["sr_ratios"]),
            patch_sizes=tuple(config["patch_sizes"]),
            strides=tuple(config["strides"]),
            mlp_ratios=tuple(config["mlp_ratios"]),
            eps=NormEpsilons(**config.get("eps", {})),
        )


# ---- the plain network: attribute names are the Hub's parameter names ------------------------------------------


class MitEmbedding(nn.Module):
    def __init__(self, channels: int, size: int, kernel: int, stride: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, size, kernel, stride, padding=kernel // 2)
        self.layer_norm = nn.LayerNorm(size, eps=eps)

    def forward(self, maps: Tensor) -> Tensor:  # N×C×H×W -> N×h×w×size
        tokens: Tensor = self.layer_norm(self.proj(maps).permute(0, 2, 3, 1))
        return tokens


class MitSelfAttention(nn.Module):
    def __init__(self, size: int, heads: int, sr_ratio: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        if sr_ratio > 1:
            self.sr = nn.Conv2d(size, size, sr_ratio, sr_ratio)
            self.layer_norm = nn.LayerNorm(size, eps=eps)
        self.sr_ratio = sr_ratio

    def forward(self, tokens: Tensor) -> Tensor:  # N×h×w×C
        reduced = tokens
        if self.sr_ratio > 1:
            reduced = self.layer_norm(self.sr(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        query = self.split(self.query(tokens))
        key = self.split(self.key(reduced))
        value = self.split(self.value(reduced))
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        mixed: Tensor = (weights @ value).transpose(1, 2).reshape(tokens.shape)
        return mixed

    def split(self, tokens: Tensor) -> Tensor:  # N×h×w×C -> N×heads×hw×d
        batch, size = tokens.shape[0], tokens.shape[-1]
        return tokens.reshape(batch, -1, self.heads, size // self.heads).transpose(1, 2)


class MitAttentionOutput(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, size)


class MitAttention(nn.Module):
    def __init__(self, size: int, heads: int, sr_ratio: int, eps: float) -> None:
        super().__init__()
        self.self = MitSelfAttention(size, heads, sr_ratio, eps)
        self.output = MitAttentionOutput(size)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = self.output.dense(self.self(tokens))
        return mixed


class MitDepthwise(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(size, size, 3, padding=1, groups=size)


class MixFFN(nn.Module):
    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(size, hidden)
        self.dwconv = MitDepthwise(hidden)
        self.dense2 = nn.Linear(hidden, size)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.dwconv.dwconv(self.dense1(tokens).permute(0, 3, 1, 2))
        mixed: Tensor = self.dense2(F.gelu(hidden).permute(0, 2, 3, 1))
        return mixed


class MitBlock(nn.Module):
    def __init__(self, config: MitConfig, stage: int) -> None:
        super().__init__()
        size = config.sizes[stage]
        self.layer_norm_1 = nn.LayerNorm(size, eps=config.eps.block)
        self.attention = MitAttention(size, config.heads[stage], config.sr_ratios[stage], config.eps.sr)
        self.layer_norm_2 = nn.LayerNorm(size, eps=config.eps.block)
        self.mlp = MixFFN(size, int(size * config.mlp_ratios[stage]))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.layer_norm_1(tokens))
        mixed: Tensor = tokens + self.mlp(self.layer_norm_2(tokens))
        return mixed


class Mit(nn.Module):
    def __init__(self, config: MitConfig) -> None:
        super().__init__()
        sizes = (3, *config.sizes)
        stages = range(len(config.depths))
        self.patch_embeddings = module_list(
            MitEmbedding(
                sizes[i], sizes[i + 1], config.patch_sizes[i], config.strides[i], config.eps.patch_embed
            )
            for i in stages
        )
        self.block = module_list(
            nn.ModuleList(MitBlock(config, i) for _ in range(config.depths[i])) for i in stages
        )
        self.layer_norm = module_list(nn.LayerNorm(sizes[i + 1], eps=config.eps.stage) for i in stages)

    def forward(self, maps: Tensor) -> list[Tensor]:
        stages = []
        for embed, blocks, norm in zip(self.patch_embeddings, self.block, self.layer_norm, strict=True):
            tokens = embed(maps)
            for block in blocks:
                tokens = block(tokens)
            maps = norm(tokens).permute(0, 3, 1, 2)
            stages.append(maps)
        return stages


# ---- the deployed network: the same function in fewer steps ----------------------------------------------------


class DeployedMitAttention(nn.Module):
    """Attends over tokens that were normed without an affine."""

    def __init__(self, norm: nn.LayerNorm, attention: MitAttention) -> None:
        super().__init__()
        plain = attention.self
        size, self.heads = plain.query.in_features, plain.heads
        scale = (size // plain.heads) ** -0.5
        self.query = linear(*reading_bare(norm, plain.query.weight * scale, plain.query.bias * scale))
        self.reduces = plain.sr_ratio > 1
        if self.reduces:
            self.reduce = self.reading_bare_reduction(plain.sr, norm)
            norm = plain.layer_norm
            self.reduced_norm = bare(norm)
        # The key's bias adds the same number to all scores of a query, which does not change softmax.
        self.key = linear(plain.key.weight * norm.weight, None)
        value, value_bias = reading_bare(norm, plain.value.weight, plain.value.bias)
        self.value = linear(value, None)
        dense = attention.output.dense
        self.project = linear(dense.weight, dense.bias + dense.weight @ value_bias)

    @staticmethod
    def reading_bare_reduction(conv: nn.Conv2d, norm: nn.LayerNorm) -> nn.Conv2d:
        """Fold the norm's affine into the reducing convolution; exact, because it has no padding."""
        assert conv.bias is not None  # noqa: S101 - SegFormer's always has one
        stride = (conv.stride[0], conv.stride[1])
        folded = nn.Conv2d(conv.in_channels, conv.out_channels, stride, stride)
        folded.weight = nn.Parameter(conv.weight.detach() * norm.weight.detach()[:, None, None])
        shift = torch.einsum("oikl,i->o", conv.weight, norm.bias)
        folded.bias = nn.Parameter((conv.bias + shift).detach())
        return folded

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:  # N×hw×C
        reduced = tokens
        if self.reduces:
            reduced = self.reduced_norm(to_tokens(self.reduce(to_maps(tokens, height, width))))
        query, key, value = (
            self.split(part) for part in (self.query(tokens), self.key(reduced), self.value(reduced))
        )
        mixed = (query @ key.transpose(-1, -2)).softmax(-1) @ value
        if self.heads > 1:
            mixed = mixed.transpose(1, 2).reshape(tokens.shape)
        projected: Tensor = self.project(mixed)
        return projected

    def split(self, tokens: Tensor) -> Tensor:  # N×L×C -> N×heads×L×d, and as it is for one head
        if self.heads == 1:
            return tokens
        batch, length, size = tokens.shape
        return tokens.reshape(batch, length, self.heads, size // self.heads).transpose(1, 2)


class DeployedMixFFN(nn.Module):
    """Computes the Mix-FFN channels-first, of tokens that were normed without an affine."""

    def __init__(self, norm: nn.LayerNorm, mlp: MixFFN) -> None:
        super().__init__()
        self.expand = pointwise(*reading_bare(norm, mlp.dense1.weight, mlp.dense1.bias))
        self.depthwise = mlp.dwconv.dwconv
        self.shrink = pointwise(mlp.dense2.weight, mlp.dense2.bias)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        hidden = self.depthwise(self.expand(to_maps(tokens, height, width)))
        return to_tokens(self.shrink(gelu(hidden)))


class DeployedMitBlock(nn.Module):
    def __init__(self, block: MitBlock) -> None:
        super().__init__()
        self.norm1 = bare(block.layer_norm_1)
        self.attention = DeployedMitAttention(block.layer_norm_1, block.attention)
        self.norm2 = bare(block.layer_norm_2)
        self.ffn = DeployedMixFFN(block.layer_norm_2, block.mlp)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens), height, width)
        mixed: Tensor = tokens + self.ffn(self.norm2(tokens), height, width)
        return mixed


class DeployedMitStage(nn.Module):
    def __init__(self, embed: MitEmbedding, blocks: Iterable[MitBlock], norm: nn.LayerNorm) -> None:
        super().__init__()
        self.embed = embed.proj
        self.embed_norm = embed.layer_norm
        self.blocks = module_list(DeployedMitBlock(block) for block in blocks)
        self.norm = norm  # keeps its affine: the next stage's embedding pads with zeros after it

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.embed(maps)
        height, width = maps.shape[2:]
        tokens = self.embed_norm(to_tokens(maps))
        for block in self.blocks:
            tokens = block(tokens, height, width)
        return to_maps(self.norm(tokens), height, width)


def deployed_stages(plain: Mit) -> Sequence[DeployedMitStage]:
    """Make the stages of `plain` for devices; each takes the previous one's map."""
    return module_list(
        DeployedMitStage(embed, cast("Iterable[MitBlock]", blocks), norm)
        for embed, blocks, norm in zip(plain.patch_embeddings, plain.block, plain.layer_norm, strict=True)
    )
