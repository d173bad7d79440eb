"""Defines the plain Mask2Former for semantic segmentation, as in the paper and the Hub's files.

A backbone gives four maps, a pixel decoder mixes three of them by deformable attention and resizes them to a quarter
of the image, and a decoder lets queries look at the maps, each within its own last mask. Each query ends as a class and
a mask. The semantic map is the sum over queries of class probability times mask probability: `forward` gives it as
logits, and `--interface logits` means it. The sum is made at a quarter of the image; `published`, it is made as in
detectron2's `semantic_inference`, after the masks' logits were resized to the image. The two differ along borders.

The axes and the order of the sums are those of Hugging Face's network, so that both give the same bits: a mask's logit
near zero decides what a query sees next, and another order of sums could change its sign. `deployed` has the same
function for devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.backbones.resnet import Resnet, ResnetConfig
from segdeploy.networks.backbones.swin import Swin, SwinConfig
from segdeploy.networks.family import Sides
from segdeploy.networks.folding import module_list, to_maps, to_tokens
from segdeploy.networks.heads.mask_classes import class_scores
from segdeploy.networks.mask2former.deformable import LEVELS, DeformableAttention

GROUPS = 32  # of every GroupNorm


@dataclass(frozen=True)
class Mask2formerConfig:
    """Holds one network's configuration under short names; `from_hub` reads it from a Hub config.json."""

    classes: int  # without "no object"
    queries: int
    size: int  # of the decoder's tokens
    pixel_size: int  # of the pixel decoder's
    mask_size: int
    heads: int
    pixel_layers: int
    pixel_inner: int
    layers: int
    inner: int
    projects: bool  # the decoder reads the pixel decoder's maps through a convolution
    backbone: SwinConfig | ResnetConfig

    @classmethod
    def from_hub(cls, config: Mapping[str, Any]) -> Mask2formerConfig:
        backbone = config["backbone_config"]
        kind: type[SwinConfig | ResnetConfig] = {"swin": SwinConfig, "resnet": ResnetConfig}[
            backbone["model_type"]
        ]
        return cls(
            classes=len(config["id2label"]),
            queries=config["num_queries"],
            size=config["hidden_dim"],
            pixel_size=config["feature_size"],
            mask_size=config["mask_feature_size"],
            heads=config["num_attention_heads"],
            pixel_layers=config["encoder_layers"],
            pixel_inner=config["encoder_feedforward_dim"],
            layers=config["decoder_layers"] - 1,  # the paper counts the prediction before the first layer
            inner=config["dim_feedforward"],
            projects=config["feature_size"] != config["hidden_dim"] or config["enforce_input_projection"],
            backbone=kind.from_hub(backbone),
        )


def sine_positions(height: int, width: int, size: int) -> Tensor:
    """Encode places as size×h×w: half of the channels hold the row, half the column, as sines and cosines."""
    half = size // 2
    rates = 10000 ** (2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half)

    def waves(count: int) -> Tensor:  # count×half
        place = torch.arange(1, count + 1) / (count + 1e-6) * 2 * pi
        angles = place[:, None] / rates
        return torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=2).flatten(1)

    rows, columns = waves(height)[:, None], waves(width)[None]
    return torch.cat((rows.expand(-1, width, -1), columns.expand(height, -1, -1)), 2).permute(2, 0, 1)


class PixelLayer(nn.Module):
    def __init__(self, config: Mask2formerConfig) -> None:
        super().__init__()
        size = config.pixel_size
        self.self_attn = DeformableAttention(size, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, config.pixel_inner)
        self.fc2 = nn.Linear(config.pixel_inner, size)
        self.final_layer_norm = nn.LayerNorm(size)

    def forward(self, tokens: Tensor, positions: Tensor, sides: Sides) -> Tensor:
        tokens = self.self_attn_layer_norm(tokens + self.self_attn(tokens, positions, sides))
        mixed: Tensor = self.final_layer_norm(tokens + self.fc2(self.fc1(tokens).relu()))
        return mixed


class PixelEncoder(nn.Module):
    def __init__(self, config: Mask2formerConfig) -> None:
        super().__init__()
        self.layers = module_list(PixelLayer(config) for _ in range(config.pixel_layers))


class PixelDecoder(nn.Module):
    def __init__(self, config: Mask2formerConfig, channels: Sequence[int]) -> None:
        super().__init__()
        size = config.pixel_size
        self.level_embed = nn.Parameter(torch.zeros(LEVELS, size))
        self.input_projections = module_list(
            nn.Sequential(nn.Conv2d(channel, size, 1), nn.GroupNorm(GROUPS, size))
            for channel in channels[:0:-1]
        )
        self.encoder = PixelEncoder(config)
        self.mask_projection = nn.Conv2d(size, config.mask_size, 1)
        self.adapter_1 = nn.Sequential(
            nn.Conv2d(channels[0], size, 1, bias=False), nn.GroupNorm(GROUPS, size)
        )
        self.layer_1 = nn.Sequential(
            nn.Conv2d(size, size, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, size), nn.ReLU()
        )

    def forward(self, stages: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return three maps, the coarsest first, and the mask features at a quarter of the image."""
        finest, *coarser = stages
        maps = [project(stage) for project, stage in zip(self.input_projections, coarser[::-1], strict=True)]
        sides = [(level.shape[2], level.shape[3]) for level in maps]
        positions = [
            to_tokens(sine_positions(height, width, maps[0].shape[1])[None]) + embedding
            for (height, width), embedding in zip(sides, self.level_embed, strict=True)
        ]
        tokens = torch.cat([to_tokens(level) for level in maps], 1)
        for layer in self.encoder.layers:
            tokens = layer(tokens, torch.cat(positions, 1), sides)
        parts = tokens.split_with_sizes([height * width for height, width in sides], dim=1)
        mixed = [to_maps(part, *side) for part, side in zip(parts, sides, strict=True)]
        raised = F.interpolate(mixed[-1], finest.shape[2:], mode="bilinear", align_corners=False)
        return mixed, self.mask_projection(self.layer_1(self.adapter_1(finest) + raised))


class PixelLevel(nn.Module):
    def __init__(self, config: Mask2formerConfig) -> None:
        super().__init__()
        backbone = config.backbone
        self.encoder = Swin(backbone) if isinstance(backbone, SwinConfig) else Resnet(backbone)
        self.decoder = PixelDecoder(config, self.encoder.channels)


class QueryAttention(nn.Module):
    """Lets queries look at each other; their positions enter queries and keys, but not values."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(size, size)
        self.v_proj = nn.Linear(size, size)
        self.q_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:  # queries×N×C
        tokens, positions = tokens.transpose(0, 1), positions.transpose(0, 1)
        placed = tokens + positions
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2).contiguous()
            for part in (self.q_proj(placed), self.k_proj(placed), self.v_proj(tokens))
        )
        weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1)
        mixed: Tensor = self.out_proj((weights @ value).transpose(1, 2).flatten(2))
        return mixed.transpose(0, 1)


class DecoderLayer(nn.Module):
    def __init__(self, config: Mask2formerConfig) -> None:
        super().__init__()
        size = config.size
        self.self_attn = QueryAttention(size, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(size)
        self.cross_attn = nn.MultiheadAttention(size, config.heads)
        self.cross_attn_layer_norm = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, config.inner)
        self.fc2 = nn.Linear(config.inner, size)
        self.final_layer_norm = nn.LayerNorm(size)

    def forward(
        self, tokens: Tensor, positions: Tensor, level: Tensor, level_positions: Tensor, unseen: Tensor
    ) -> Tensor:
        """Mix queries×N×C with a level hw×N×C; `unseen`, N×queries×hw, is true at places outside a query's mask."""
        unseen = unseen & ~unseen.all(-1, keepdim=True)  # a query without a mask looks everywhere
        looked, _ = self.cross_attn(  # computes its unused weights too: without them it sums in another order
            tokens + positions,
            level + level_positions,
            level,
            attn_mask=unseen.repeat_interleave(self.cross_attn.num_heads, 0),
        )
        tokens = self.cross_attn_layer_norm(tokens + looked)
        tokens = self.self_attn_layer_norm(tokens + self.self_attn(tokens, positions))
        mixed: Tensor = self.final_layer_norm(tokens + self.fc2(self.fc1(tokens).relu()))
        return mixed


class Step(nn.Sequential):
    """Wraps a linear layer in a list of one, as in the Hub's names."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, outputs))

    @property
    def linear(self) -> nn.Linear:
        return cast("nn.Linear", self[0])


class MaskPredictor(nn.Module):
    def __init__(self, config: Mask2formerConfig) -> None:
        super().__init__()
        sizes = (config.size, config.size, config.size, config.mask_size)
        self.mask_embedder = module_list(Step(sizes[step], sizes[step + 1]) for step in range(3))

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:  # queries×N×C -> N×queries×h×w
        first, second, third = self.mask_embedder
        embedded = third(second(first(tokens.transpose(0, 1)).relu()).relu())
        return torch.einsum("nqc,nchw->nqhw", embedded, features)


class Decoder(nn.Module):
    def __init__(self, config: Mask2formerConfig) -> None:
        super().__init__()
        self.layers = module_list(DecoderLayer(config) for _ in range(config.layers))
        self.layernorm = nn.LayerNorm(config.size)
        self.mask_predictor = MaskPredictor(config)


class TransformerModule(nn.Module):
    def __init__(self, config: Mask2formerConfig) -> None:
        super().__init__()
        self.projects = config.projects
        self.queries_embedder = nn.Embedding(config.queries, config.size)
        self.queries_features = nn.Embedding(config.queries, config.size)
        self.level_embed = nn.Embedding(LEVELS, config.size)
        self.input_projections = module_list(
            nn.Conv2d(config.pixel_size, config.size, 1) if config.projects else nn.Sequential()
            for _ in range(LEVELS)
        )
        self.decoder = Decoder(config)

    def forward(self, maps: Sequence[Tensor], features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries after the last layer, N×queries×C, and their masks' logits, N×queries×h×w."""
        levels, places = [], []
        for project, level, embedding in zip(
            self.input_projections, maps, self.level_embed.weight, strict=True
        ):
            height, width = level.shape[2:]
            levels.append((project(level).flatten(2) + embedding[:, None]).permute(2, 0, 1))
            places.append(sine_positions(height, width, len(embedding)).flatten(1).T[:, None])
        positions = self.queries_embedder.weight[:, None]
        tokens = self.queries_features.weight[:, None].repeat(1, len(features), 1)
        decoder = self.decoder
        for turn, layer in enumerate(decoder.layers):
            place = turn % LEVELS
            masks = decoder.mask_predictor(decoder.layernorm(tokens), features)
            lowered = F.interpolate(masks, maps[place].shape[2:], mode="bilinear", align_corners=False)
            tokens = layer(
                tokens, positions, levels[place], places[place], lowered.sigmoid().flatten(2) < 0.5
            )
        tokens = decoder.layernorm(tokens)
        return tokens.transpose(0, 1), decoder.mask_predictor(tokens, features)


class Body(nn.Module):
    def __init__(self, config: Mask2formerConfig) -> None:
        super().__init__()
        self.pixel_level_module = PixelLevel(config)
        self.transformer_module = TransformerModule(config)


class Mask2former(nn.Module):
    def __init__(self, config: Mask2formerConfig, published: bool = False) -> None:
        super().__init__()
        self.config, self.published = config, published
        self.model = Body(config)
        self.class_predictor = nn.Linear(config.size, config.classes + 1)

    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of each query's class, N×queries×(classes + 1), and mask, N×queries×h×w."""
        level = self.model.pixel_level_module
        maps, features = level.decoder(level.encoder(pixels))
        tokens, masks = self.model.transformer_module(maps, features)
        return self.class_predictor(tokens), masks

    def forward(self, pixels: Tensor) -> Tensor:  # normalised N×3×H×W -> scores N×C×⌈H/4⌉×⌈W/4⌉, or N×C×H×W
        classes, masks = self.predict(pixels)
        return class_scores(classes, masks, pixels.shape[2:] if self.published else None)
