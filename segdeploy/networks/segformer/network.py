"""SegFormer twice: `Segformer` as the paper and the Hub's files have it, `DeployedSegformer` as devices like it.

The plain network is the reference that every exported graph is compared with. The deployed one computes the same
function with exact rewrites, each of which a test compares with the plain network on random weights:

* the head's per-stage projection, its slice of the fusing convolution and the batch norm become one matrix per
  stage, applied at that stage's own resolution: a bilinear resize is linear and its weights sum to one, so it
  commutes with them (B0 -39 %, B2 -53 % multiply-adds at 1024x1024);
* LayerNorm's affine goes into the projections that read it, the attention scale into the query projection;
* the key bias is dropped (softmax does not see a constant per query), the value bias goes through the
  attention's rows, which sum to one, into the output projection's bias;
* the Mix-FFN runs channels-first between two transposes of C channels instead of two of 4C.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.errors import RequestError
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
from segdeploy.size import Size


@dataclass(frozen=True)
class NormEpsilons:
    """LayerNorm's eps where it is used; the Hub's networks have 1e-5 everywhere, the original has 1e-6 in blocks."""

    patch_embed: float = 1e-5
    block: float = 1e-5
    sr: float = 1e-5
    stage: float = 1e-5


@dataclass(frozen=True)
class SegformerConfig:
    """The facts of one network, under short names; `from_hub` reads them from a Hub config.json."""

    classes: int
    hidden_sizes: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...] = (1, 2, 5, 8)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    mlp_ratios: tuple[int, ...] = (4, 4, 4, 4)
    head_size: int = 256
    projection_relu: bool = False  # mmsegmentation's head has a ReLU after each stage's projection
    eps: NormEpsilons = NormEpsilons()

    @classmethod
    def from_hub(cls, config: Mapping[str, Any]) -> SegformerConfig:
        return cls(
            classes=len(config["id2label"]),
            hidden_sizes=tuple(config["hidden_sizes"]),
            depths=tuple(config["depths"]),
            heads=tuple(config["num_attention_heads"]),
            sr_ratios=tuple(config["sr_ratios"]),
            patch_sizes=tuple(config["patch_sizes"]),
            strides=tuple(config["strides"]),
            mlp_ratios=tuple(config["mlp_ratios"]),
            head_size=config["decoder_hidden_size"],
            projection_relu=config.get("head_activation") == "relu",
            eps=NormEpsilons(**config.get("eps", {})),
        )


# ---- the plain network: attribute names are the Hub's parameter names ------------------------------------------


class PatchEmbedding(nn.Module):
    def __init__(self, channels: int, size: int, kernel: int, stride: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, size, kernel, stride, padding=kernel // 2)
        self.layer_norm = nn.LayerNorm(size, eps=eps)

    def forward(self, maps: Tensor) -> Tensor:  # N×C×H×W -> N×h×w×size
        tokens: Tensor = self.layer_norm(self.proj(maps).permute(0, 2, 3, 1))
        return tokens


class SelfAttention(nn.Module):
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


class AttentionOutput(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, size)


class Attention(nn.Module):
    def __init__(self, size: int, heads: int, sr_ratio: int, eps: float) -> None:
        super().__init__()
        self.self = SelfAttention(size, heads, sr_ratio, eps)
        self.output = AttentionOutput(size)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed: Tensor = self.output.dense(self.self(tokens))
        return mixed


class Depthwise(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(size, size, 3, padding=1, groups=size)


class MixFFN(nn.Module):
    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(size, hidden)
        self.dwconv = Depthwise(hidden)
        self.dense2 = nn.Linear(hidden, size)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.dwconv.dwconv(self.dense1(tokens).permute(0, 3, 1, 2))
        mixed: Tensor = self.dense2(F.gelu(hidden).permute(0, 2, 3, 1))
        return mixed


class Block(nn.Module):
    def __init__(self, config: SegformerConfig, stage: int) -> None:
        super().__init__()
        size = config.hidden_sizes[stage]
        self.layer_norm_1 = nn.LayerNorm(size, eps=config.eps.block)
        self.attention = Attention(size, config.heads[stage], config.sr_ratios[stage], config.eps.sr)
        self.layer_norm_2 = nn.LayerNorm(size, eps=config.eps.block)
        self.mlp = MixFFN(size, size * config.mlp_ratios[stage])

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.layer_norm_1(tokens))
        mixed: Tensor = tokens + self.mlp(self.layer_norm_2(tokens))
        return mixed


class Encoder(nn.Module):
    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        sizes = (3, *config.hidden_sizes)
        stages = range(len(config.depths))
        self.patch_embeddings = module_list(
            PatchEmbedding(
                sizes[i], sizes[i + 1], config.patch_sizes[i], config.strides[i], config.eps.patch_embed
            )
            for i in stages
        )
        self.block = module_list(
            nn.ModuleList(Block(config, i) for _ in range(config.depths[i])) for i in stages
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


class Projection(nn.Module):
    def __init__(self, size: int, head_size: int) -> None:
        super().__init__()
        self.proj = nn.Linear(size, head_size)


class AllMlpHead(nn.Module):
    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        size = config.head_size
        self.linear_c = module_list(Projection(hidden, size) for hidden in config.hidden_sizes)
        self.linear_fuse = nn.Conv2d(size * len(config.hidden_sizes), size, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(size)
        self.classifier = nn.Conv2d(size, config.classes, 1)
        self.projection_relu = config.projection_relu

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        size = stages[0].shape[-2:]
        raised = []
        for maps, linear_c in zip(stages, self.linear_c, strict=True):
            projected = linear_c.proj(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            if self.projection_relu:
                projected = projected.relu()
            raised.append(F.interpolate(projected, size, mode="bilinear", align_corners=False))
        fused = self.linear_fuse(torch.cat(raised[::-1], dim=1))
        logits: Tensor = self.classifier(self.batch_norm(fused).relu())
        return logits


class Backbone(nn.Module):
    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)


class Segformer(nn.Module):
    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        self.config = config
        self.segformer = Backbone(config)
        self.decode_head = AllMlpHead(config)

    def forward(self, pixels: Tensor) -> Tensor:  # normalised N×3×H×W -> logits N×C×⌈H/4⌉×⌈W/4⌉
        logits: Tensor = self.decode_head(self.segformer.encoder(pixels))
        return logits


# ---- the deployed network: the same function in fewer steps ----------------------------------------------------


class DeployedAttention(nn.Module):
    """Reads tokens that were normed without an affine."""

    def __init__(self, norm: nn.LayerNorm, attention: Attention) -> None:
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
        # The key's bias adds the same number to all scores of a query: softmax does not see it.
        self.key = linear(plain.key.weight * norm.weight, None)
        value, value_bias = reading_bare(norm, plain.value.weight, plain.value.bias)
        self.value = linear(value, None)
        dense = attention.output.dense
        self.project = linear(dense.weight, dense.bias + dense.weight @ value_bias)

    @staticmethod
    def reading_bare_reduction(conv: nn.Conv2d, norm: nn.LayerNorm) -> nn.Conv2d:
        """Exact because this convolution has no padding."""
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


class DeployedFFN(nn.Module):
    """Reads tokens that were normed without an affine; works channels-first."""

    def __init__(self, norm: nn.LayerNorm, mlp: MixFFN) -> None:
        super().__init__()
        self.expand = pointwise(*reading_bare(norm, mlp.dense1.weight, mlp.dense1.bias))
        self.depthwise = mlp.dwconv.dwconv
        self.shrink = pointwise(mlp.dense2.weight, mlp.dense2.bias)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        hidden = self.depthwise(self.expand(to_maps(tokens, height, width)))
        return to_tokens(self.shrink(gelu(hidden)))


class DeployedBlock(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1 = bare(block.layer_norm_1)
        self.attention = DeployedAttention(block.layer_norm_1, block.attention)
        self.norm2 = bare(block.layer_norm_2)
        self.ffn = DeployedFFN(block.layer_norm_2, block.mlp)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens), height, width)
        mixed: Tensor = tokens + self.ffn(self.norm2(tokens), height, width)
        return mixed


class DeployedStage(nn.Module):
    def __init__(self, embed: PatchEmbedding, blocks: Iterable[Block], norm: nn.LayerNorm) -> None:
        super().__init__()
        self.embed = embed.proj
        self.embed_norm = embed.layer_norm
        self.blocks = module_list(DeployedBlock(block) for block in blocks)
        self.norm = norm  # keeps its affine: the next stage's embedding pads with zeros after it

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.embed(maps)
        height, width = maps.shape[2:]
        tokens = self.embed_norm(to_tokens(maps))
        for block in self.blocks:
            tokens = block(tokens, height, width)
        return to_maps(self.norm(tokens), height, width)


class DeployedHead(nn.Module):
    """relu(Σ upsampled(Aᵢ·xᵢ) + b), Aᵢ = batch norm · fusing slice · projection, computed in float64."""

    def __init__(self, head: AllMlpHead) -> None:
        super().__init__()
        norm = head.batch_norm
        assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101
        gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        bias = norm.bias.double() - gain * norm.running_mean.double()
        fuse = gain[:, None] * head.linear_fuse.weight.double().flatten(1)
        # The Hub's head concatenates the deepest stage first.
        slices = fuse.chunk(len(head.linear_c), dim=1)[::-1]
        inner: list[nn.Module] = []
        weights: list[Tensor] = []
        for fused, linear_c in zip(slices, head.linear_c, strict=True):
            proj = linear_c.proj
            if head.projection_relu:
                inner.append(nn.Sequential(pointwise(proj.weight, proj.bias), nn.ReLU()))
                weights.append(fused)
            else:
                inner.append(nn.Identity())
                weights.append(fused @ proj.weight.double())
                bias = bias + fused @ proj.bias.double()
        # The bias is a constant that a resize passes through: it is added once, with the finest stage.
        biases = [bias.float(), *[None] * (len(weights) - 1)]
        self.project = module_list(
            nn.Sequential(before, pointwise(weight.float(), shift))
            for before, weight, shift in zip(inner, weights, biases, strict=True)
        )
        self.classifier = head.classifier

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        finest, *coarser = (project(maps) for project, maps in zip(self.project, stages, strict=True))
        size = finest.shape[-2:]
        raised = [F.interpolate(maps, size, mode="bilinear", align_corners=False) for maps in coarser]
        # Added to the convolution's own output last, so that runtimes can fuse sum and ReLU into it.
        logits: Tensor = self.classifier((finest + sum(raised[1:], raised[0])).relu())
        return logits


class DeployedSegformer(nn.Module):
    def __init__(self, plain: Segformer) -> None:
        super().__init__()
        plain = copy.deepcopy(plain)  # nothing done to this network reaches the one it is compared with
        encoder = plain.segformer.encoder
        self.stages = module_list(
            DeployedStage(embed, cast("Iterable[Block]", blocks), norm)
            for embed, blocks, norm in zip(
                encoder.patch_embeddings, encoder.block, encoder.layer_norm, strict=True
            )
        )
        self.head = DeployedHead(plain.decode_head)
        self.requires_grad_(False)

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution; zero padding stays zero, so it is exact."""
        self.stages[0].embed.weight *= factors[:, None, None]

    def fit(self, size: Size, msda: str | None = None) -> None:
        """Nothing in this network depends on the input's size; there is no deformable attention to write."""
        if msda is not None:
            raise RequestError(f"a SegFormer has no deformable attention to write as {msda!r}; leave it out")

    def forward(self, pixels: Tensor) -> Tensor:  # N×3×H×W -> logits N×C×⌈H/4⌉×⌈W/4⌉
        stages = []
        for stage in self.stages:
            pixels = stage(pixels)
            stages.append(pixels)
        logits: Tensor = self.head(stages)
        return logits
