"""Rewrites `plain.Mask2former` for devices; it computes exactly the same function.

* Position encodings, reference points and level embeddings are constants of the exported size.
* An attention mask is predicted at its attention's resolution, not at a quarter of the image: the bilinear resize of
  mask features commutes with the product that makes masks from them.
* The mask features' 1x1 convolution is folded into the layers of a query's mask vector, its bias into a scalar per
  query.
* A query's own position, projected, is a constant that is added like the projection's bias; key biases are dropped (a
  constant per query does not change softmax); value biases and level embeddings are folded into the output projection,
  since the attention's rows sum to one.
* All that the queries compute before they see the image (mask vectors, the first layer's query projection) is constant.
* Classes are predicted only after the last layer, and the semantic sum is made at a quarter of the image, so classes
  are resized to the image's size, not queries. In the published order it is queries, of which there are more.

A place outside a query's mask gets BLOCKED added to its score, unless the mask is empty. BLOCKED is finite, so no row
can become NaN.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.backbones.resnet import DeployedResnet, Resnet
from segdeploy.networks.backbones.swin import DeployedSwin
from segdeploy.networks.family import Options, Output, Sides, reduced
from segdeploy.networks.folding import linear, module_list, to_maps, to_tokens
from segdeploy.networks.heads.mask_classes import BLOCKED, summed_scores
from segdeploy.networks.mask2former.deformable import LEVELS, DeployedDeformableAttention
from segdeploy.networks.mask2former.plain import (
    Decoder,
    DecoderLayer,
    Mask2former,
    PixelDecoder,
    PixelLayer,
    QueryAttention,
    TransformerModule,
    sine_positions,
)
from segdeploy.size import Size


def positions_of(sides: Sides, embedding: Tensor) -> list[Tensor]:
    """Give 1×hw×C for each level: the sine encoding of its places plus the level's own embedding."""
    return [
        to_tokens(sine_positions(height, width, own.shape[0])[None]) + own.detach()
        for (height, width), own in zip(sides, embedding, strict=True)
    ]


class DeployedPixelLayer(nn.Module):
    """Takes tokens N×1×hw×C: in three axes ONNX Runtime would fuse a sum and its norm, which is slower on a CPU."""

    def __init__(self, plain: PixelLayer) -> None:
        super().__init__()
        self.attention = DeployedDeformableAttention(plain.self_attn)
        self.norm1, self.norm2 = plain.self_attn_layer_norm, plain.final_layer_norm
        self.expand, self.shrink = plain.fc1, plain.fc2

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        tokens = self.norm1(tokens + self.attention(tokens, tokens + positions))
        mixed: Tensor = self.norm2(tokens + self.shrink(self.expand(tokens).relu()))
        return mixed


class DeployedPixelDecoder(nn.Module):
    """Gives the tokens of three levels, the coarsest first, and the mask features."""

    def __init__(self, plain: PixelDecoder) -> None:
        super().__init__()
        self.level_embedding = plain.level_embed.detach()
        self.project = plain.input_projections
        self.layers = module_list(DeployedPixelLayer(layer) for layer in plain.encoder.layers)
        self.lateral, self.smooth = plain.adapter_1, plain.layer_1

    def fit(self, sides: Sides, form: str) -> None:
        self.sides = list(sides)
        self.positions = nn.Buffer(torch.cat(positions_of(sides, self.level_embedding), 1)[None])
        for layer in self.layers:
            layer.attention.fit(sides, form)

    def forward(self, stages: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        finest, *coarser = stages
        projected = zip(self.project, coarser[::-1], strict=True)
        tokens = torch.cat([to_tokens(project(stage)) for project, stage in projected], 1).unsqueeze(1)
        for layer in self.layers:
            tokens = layer(tokens, self.positions)
        lengths = [height * width for height, width in self.sides]
        levels = list(tokens.squeeze(1).split_with_sizes(lengths, dim=1))
        highest = to_maps(levels[-1], *self.sides[-1])
        raised = F.interpolate(highest, finest.shape[2:], mode="bilinear", align_corners=False)
        features: Tensor = self.smooth(self.lateral(finest) + raised)
        return levels, features


class MaskVectors(nn.Module):
    """Turns normed queries into a vector and an offset: vector · features + offset are the mask's logits."""

    def __init__(self, decoder: Decoder, projection: nn.Conv2d) -> None:
        super().__init__()
        first, second, third = (step.linear for step in decoder.mask_predictor.mask_embedder)
        self.first, self.second = first, second
        assert projection.bias is not None  # noqa: S101 - PixelDecoder's always has one
        weight, bias = projection.weight.double().flatten(1), projection.bias.double()[None]
        self.vector = self.behind(third, weight.T)
        self.offset = self.behind(third, bias)

    @staticmethod
    def behind(layer: nn.Linear, matrix: Tensor) -> nn.Linear:
        """Make one layer of `layer` followed by a product with `matrix`."""
        weight, bias = matrix @ layer.weight.double(), matrix @ layer.bias.double()
        return linear(weight.to(layer.weight.dtype), bias.to(layer.weight.dtype))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:  # N×queries×C -> …×features, …×1
        hidden = self.second(self.first(tokens).relu()).relu()
        return self.vector(hidden), self.offset(hidden)


def split_heads(tokens: Tensor, heads: int) -> Tensor:  # N×L×C -> N×heads×L×d
    batch, length, size = tokens.shape
    return tokens.reshape(batch, length, heads, size // heads).transpose(1, 2)


def split_keys(tokens: Tensor, heads: int) -> Tensor:  # N×L×C -> N×heads×d×L
    batch, length, size = tokens.shape
    return tokens.reshape(batch, length, heads, size // heads).permute(0, 2, 3, 1)


def join_heads(mixed: Tensor) -> Tensor:  # N×heads×L×d -> N×L×C
    return mixed.transpose(1, 2).flatten(2)


class LevelAttention(nn.Module):
    """Lets queries look at one level of the image, each within its mask."""

    def __init__(self, plain: nn.MultiheadAttention, positions: Tensor, embedding: Tensor) -> None:
        super().__init__()
        self.heads = plain.num_heads
        query, key, value = plain.in_proj_weight.detach().chunk(3)
        query_bias, _, value_bias = plain.in_proj_bias.detach().chunk(3)
        scale = plain.head_dim**-0.5
        self.query = linear(query * scale, None)
        self.placed = nn.Buffer((F.linear(positions.detach(), query, query_bias) * scale)[None])
        self.key, self.value = linear(key, None), linear(value, None)
        passed = value @ embedding.detach() + value_bias
        self.project = linear(plain.out_proj.weight, plain.out_proj.bias + plain.out_proj.weight @ passed)
        self.zero, self.minus = nn.Buffer(torch.zeros(1, 1, 1)), nn.Buffer(torch.full((1, 1, 1), BLOCKED))

    def queries(self, tokens: Tensor) -> Tensor:
        return split_heads(self.query(tokens) + self.placed, self.heads)

    def forward(self, queries: Tensor, level: Tensor, placed_level: Tensor, masks: Tensor) -> Tensor:
        blocked = (masks < self.zero) & ~(masks.amax(-1, keepdim=True) < self.zero)
        scores = queries @ split_keys(self.key(placed_level), self.heads)
        scores = scores + torch.where(blocked, self.minus, self.zero).unsqueeze(1)
        mixed: Tensor = self.project(
            join_heads(scores.softmax(-1) @ split_heads(self.value(level), self.heads))
        )
        return mixed


class DeployedQueryAttention(nn.Module):
    def __init__(self, plain: QueryAttention, positions: Tensor) -> None:
        super().__init__()
        self.heads = plain.heads
        scale = (plain.q_proj.in_features // plain.heads) ** -0.5
        weights = [plain.q_proj.weight * scale, plain.k_proj.weight, plain.v_proj.weight]
        self.triple = linear(torch.cat(weights), None)  # query, key, value
        placed = [plain.q_proj(positions) * scale, F.linear(positions, plain.k_proj.weight)]
        self.placed = nn.Buffer(torch.cat([*placed, torch.zeros_like(positions)], dim=1).detach()[None])
        dense = plain.out_proj
        self.project = linear(dense.weight, dense.bias + dense.weight @ plain.v_proj.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = split_heads(self.triple(tokens) + self.placed, 3 * self.heads)
        query, key, value = parts.split_with_sizes([self.heads] * 3, dim=1)
        weights = (query @ key.transpose(-1, -2)).softmax(-1)
        mixed: Tensor = self.project(join_heads(weights @ value))
        return mixed


class DeployedDecoderLayer(nn.Module):
    def __init__(self, plain: DecoderLayer, positions: Tensor, embedding: Tensor) -> None:
        super().__init__()
        self.look = LevelAttention(plain.cross_attn, positions, embedding)
        self.attention = DeployedQueryAttention(plain.self_attn, positions)
        self.norm1, self.norm2 = plain.cross_attn_layer_norm, plain.self_attn_layer_norm
        self.norm3 = plain.final_layer_norm
        self.expand, self.shrink = plain.fc1, plain.fc2

    def forward(
        self, tokens: Tensor, queries: Tensor, level: Tensor, placed_level: Tensor, masks: Tensor
    ) -> Tensor:
        tokens = self.norm1(tokens + self.look(queries, level, placed_level, masks))
        tokens = self.norm2(tokens + self.attention(tokens))
        mixed: Tensor = self.norm3(tokens + self.shrink(self.expand(tokens).relu()))
        return mixed


class DeployedDecoder(nn.Module):
    def __init__(self, plain: TransformerModule, projection: nn.Conv2d, classes: nn.Linear) -> None:
        super().__init__()
        decoder, positions = plain.decoder, plain.queries_embedder.weight
        self.level_embedding = plain.level_embed.weight.detach()
        self.project = (
            module_list(
                linear(conv.weight.flatten(1), conv.bias)
                for conv in plain.input_projections
                if isinstance(conv, nn.Conv2d)
            )
            if plain.projects
            else None
        )
        self.layers = module_list(
            DeployedDecoderLayer(layer, positions, self.level_embedding[turn % LEVELS])
            for turn, layer in enumerate(decoder.layers)
        )
        self.norm, self.masks, self.classes = decoder.layernorm, MaskVectors(decoder, projection), classes
        start = plain.queries_features.weight.detach()[None]
        with torch.no_grad():
            vector, offset = self.masks(self.norm(start))
            self.first_queries = nn.Buffer(self.layers[0].look.queries(start))
        self.start, self.first_vector, self.first_offset = map(nn.Buffer, (start, vector, offset))

    def fit(self, sides: Sides, raised: torch.Size | None) -> None:
        """Make the constants of `sides`, and note the size that masks are `raised` to before they are summed."""
        self.sides, self.raised = list(sides), raised
        placed = positions_of(sides, self.level_embedding)
        self.placed0, self.placed1, self.placed2 = map(nn.Buffer, placed)

    def forward(self, levels: Sequence[Tensor], features: Tensor) -> Tensor:
        if self.project is not None:
            levels = [project(level) for project, level in zip(self.project, levels, strict=True)]
        placed = [
            level + place
            for level, place in zip(levels, (self.placed0, self.placed1, self.placed2), strict=True)
        ]
        lowered = [
            F.interpolate(features, side, mode="bilinear", align_corners=False).flatten(2)
            for side in self.sides
        ]
        tokens: Tensor = self.start
        vector: Tensor = self.first_vector
        offset: Tensor = self.first_offset
        queries: Tensor = self.first_queries
        for turn, layer in enumerate(self.layers):
            level = turn % LEVELS
            if turn:
                vector, offset = self.masks(self.norm(tokens))
                queries = layer.look.queries(tokens)
            masks = vector @ lowered[level] + offset
            tokens = layer(tokens, queries, levels[level], placed[level], masks)
        tokens = self.norm(tokens)
        vector, offset = self.masks(tokens)
        masks = vector @ features.flatten(2) + offset
        return summed_scores(self.classes(tokens), masks, features.shape[2:], self.raised)


class DeployedMask2former(nn.Module):
    def __init__(self, plain: Mask2former) -> None:
        super().__init__()
        plain = copy.deepcopy(plain)  # so that changes here do not reach the reference
        level = plain.model.pixel_level_module
        backbone = level.encoder
        self.backbone = DeployedResnet(backbone) if isinstance(backbone, Resnet) else DeployedSwin(backbone)
        self.pixels = DeployedPixelDecoder(level.decoder)
        self.decoder = DeployedDecoder(
            plain.model.transformer_module, level.decoder.mask_projection, plain.class_predictor
        )
        self.published = plain.published
        self.output = Output(reduced(1 if plain.published else 4))
        self.requires_grad_(False)

    def scale_input(self, factors: Tensor) -> None:
        self.backbone.scale_input(factors)

    def fit(self, size: Size, options: Options) -> None:
        """Make the constants of one input size, with deformable attention in the form `options["msda"]`."""
        sides = self.backbone.fit(size.height, size.width)[:0:-1]
        self.pixels.fit(sides, str(options["msda"]))
        self.decoder.fit(sides, torch.Size((size.height, size.width)) if self.published else None)

    def forward(self, pixels: Tensor) -> Tensor:  # N×3×H×W -> scores N×C×⌈H/4⌉×⌈W/4⌉, or N×C×H×W
        levels, features = self.pixels(self.backbone(pixels))
        scores: Tensor = self.decoder(levels, features)
        return scores
