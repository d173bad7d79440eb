"""Defines the plain EoMT of the Hub's files, on DINOv2 or DINOv3: it adds up in transformers' order.

DINOv2 has an embedding for each place, so it takes one size; DINOv3 turns queries and keys by their place in the
image, so it takes any. A block whose `attn_mask_probs` is 1 lets queries look within their masks alone, as in
training; published weights have 0 there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.folding import module_list, to_maps, to_tokens
from segdeploy.networks.heads.mask_classes import class_scores

Turning = tuple[Tensor, Tensor]  # cosine and sine, hw×d


@dataclass(frozen=True)
class EomtConfig:
    """Holds one network's configuration under short names; `from_hub` reads it from a Hub config.json."""

    classes: int
    size: int
    depth: int
    heads: int
    inner: int  # of a block's two products
    side: int  # of the images
    patch: int
    registers: int
    queries: int
    blocks: int  # at the end, that hold queries too
    upscales: int
    eps: float
    biased: tuple[bool, ...] = (True,) * 5  # query, key, value, their output, the products
    theta: float | None = None  # of DINOv3's turning; None: DINOv2, with an embedding for each place

    @classmethod
    def from_hub(cls, config: Mapping[str, Any]) -> EomtConfig:
        own = config["model_type"] == "eomt_dinov3"
        inner = config["intermediate_size"] if own else config["hidden_size"] * config["mlp_ratio"]
        biases = ("query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias")
        return cls(
            classes=len(config["id2label"]),
            size=config["hidden_size"],
            depth=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            inner=inner,
            side=config["image_size"],
            patch=config["patch_size"],
            registers=config["num_register_tokens"],
            queries=config["num_queries"],
            blocks=config["num_blocks"],
            upscales=config["num_upscale_blocks"],
            eps=config["layer_norm_eps"],
            biased=tuple(config[key] for key in biases) if own else (True,) * 5,
            theta=float(config["rope_parameters"]["rope_theta"]) if own else None,
        )

    @property
    def prefix(self) -> int:
        """Count the tokens before those of the image: the class token and the registers."""
        return 1 + self.registers


# Attribute names are the Hub's parameter names; of its two sets of names for one thing, one.


class EomtEmbeddings(nn.Module):
    def __init__(self, config: EomtConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.size))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, config.size))
        self.patch_embeddings = nn.Conv2d(3, config.size, config.patch, config.patch)
        places = (config.side // config.patch) ** 2
        self.position_embeddings = None if config.theta else nn.Embedding(places, config.size)

    def forward(self, pixels: Tensor) -> Tensor:  # N×3×H×W -> N×(1 + registers + hw)×C
        tokens = to_tokens(self.patch_embeddings(pixels))
        if self.position_embeddings is not None:
            tokens = tokens + self.position_embeddings.weight
        first = (part.expand(len(tokens), -1, -1) for part in (self.cls_token, self.register_tokens))
        return torch.cat([*first, tokens], 1)


class EomtAttention(nn.Module):
    def __init__(self, config: EomtConfig) -> None:
        super().__init__()
        self.heads = config.heads
        size, (query, key, value, out, _) = config.size, config.biased
        self.q_proj = nn.Linear(size, size, query)
        self.k_proj = nn.Linear(size, size, key)
        self.v_proj = nn.Linear(size, size, value)
        self.out_proj = nn.Linear(size, size, out)

    def forward(self, tokens: Tensor, mask: Tensor | None, turning: Turning | None) -> Tensor:
        query, key, value = (
            part(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        if turning is not None:
            query, key = turned(query, *turning), turned(key, *turning)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        projected: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected


def turned(tokens: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the tokens of the image, which come last: each entry with the one half of `d` further."""
    first, placed = tokens.split([tokens.shape[-2] - len(sine), len(sine)], dim=-2)
    front, back = placed.chunk(2, dim=-1)
    placed = placed * cosine + torch.cat((-back, front), -1) * sine
    return torch.cat((first, placed), -2)


def turning_of(height: int, width: int, size: int, theta: float) -> Turning:
    """Give DINOv3's angles: of each place's row, then of its column, from -1 to 1 over the image."""
    rates = 1 / theta ** torch.arange(0, 1, 4 / size, dtype=torch.float32)
    places = torch.meshgrid(
        torch.arange(0.5, height) / height, torch.arange(0.5, width) / width, indexing="ij"
    )
    centres = 2.0 * torch.stack(places, -1).flatten(0, 1) - 1.0
    angles = (2 * pi * centres[:, :, None] * rates).flatten(1, 2).tile(2)
    return angles.cos(), angles.sin()


class EomtScale(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(size))


class EomtMlp(nn.Module):
    def __init__(self, config: EomtConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.size, config.inner, config.biased[-1])
        self.down_proj = nn.Linear(config.inner, config.size, config.biased[-1])

    def forward(self, tokens: Tensor) -> Tensor:
        shrunk: Tensor = self.down_proj(F.gelu(self.up_proj(tokens)))
        return shrunk


class EomtLayer(nn.Module):
    def __init__(self, config: EomtConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.size, config.eps)
        self.attention = EomtAttention(config)
        self.layer_scale1 = EomtScale(config.size)
        self.norm2 = nn.LayerNorm(config.size, config.eps)
        self.mlp = EomtMlp(config)
        self.layer_scale2 = EomtScale(config.size)

    def forward(self, tokens: Tensor, mask: Tensor | None, turning: Turning | None) -> Tensor:
        tokens = self.attention(self.norm1(tokens), mask, turning) * self.layer_scale1.lambda1 + tokens
        mixed: Tensor = self.mlp(self.norm2(tokens)) * self.layer_scale2.lambda1 + tokens
        return mixed


class EomtUpscale(nn.Module):
    """Doubles the sides of maps."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(size, size, 2, 2)
        self.conv2 = nn.Conv2d(size, size, 3, padding=1, groups=size, bias=False)
        self.layernorm2d = nn.LayerNorm(size, 1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.conv2(F.gelu(self.conv1(maps)))
        normed: Tensor = self.layernorm2d(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return normed


class EomtUpscales(nn.Module):
    def __init__(self, config: EomtConfig) -> None:
        super().__init__()
        self.block = module_list(EomtUpscale(config.size) for _ in range(config.upscales))


class EomtMaskHead(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (nn.Linear(size, size) for _ in range(3))

    def forward(self, queries: Tensor) -> Tensor:
        vectors: Tensor = self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(queries)))))
        return vectors


class Eomt(nn.Module):
    def __init__(self, config: EomtConfig, published: bool = False) -> None:
        super().__init__()
        self.config, self.published = config, published
        self.embeddings = EomtEmbeddings(config)
        self.layers = module_list(EomtLayer(config) for _ in range(config.depth))
        self.layernorm = nn.LayerNorm(config.size, config.eps)
        self.query = nn.Embedding(config.queries, config.size)
        self.upscale_block = EomtUpscales(config)
        self.mask_head = EomtMaskHead(config.size)
        self.class_predictor = nn.Linear(config.size, config.classes + 1)  # the last is "no object"
        self.attn_mask_probs = nn.Buffer(torch.zeros(config.blocks))

    def forward(self, pixels: Tensor) -> Tensor:  # N×3×H×W -> scores N×C×h×w of the masks, or N×C×H×W
        classes, masks = self.predict(pixels)
        return class_scores(classes, masks, pixels.shape[2:] if self.published else None)

    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries' classes N×Q×(C+1) and masks N×Q×h×w, both as logits."""
        config = self.config
        height, width = (side // config.patch for side in pixels.shape[2:])
        turning = (
            turning_of(height, width, config.size // config.heads, config.theta) if config.theta else None
        )
        tokens = self.embeddings(pixels)
        mask = None  # a block without its own keeps that of the one before
        for place, layer in enumerate(self.layers, config.blocks - config.depth):
            if place == 0:
                tokens = torch.cat((self.query.weight.expand(len(tokens), -1, -1), tokens), 1)
            if place >= 0 and self.attn_mask_probs[place] > 0:
                mask = self.within_masks(self.layernorm(tokens), height, width)
            tokens = layer(tokens, mask, turning)
        return self.read(self.layernorm(tokens), height, width)

    def read(self, tokens: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        queries = tokens[:, : self.config.queries]
        classes = self.class_predictor(queries)
        maps = to_maps(tokens[:, self.config.queries + self.config.prefix :], height, width)
        vectors = self.mask_head(queries)
        for block in self.upscale_block.block:
            maps = block(maps)
        return classes, torch.einsum("nqc,nchw->nqhw", vectors, maps)

    def within_masks(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Give what is added to the scores: a query sees all queries and first tokens, and the image in its mask."""
        _, masks = self.read(tokens, height, width)
        masks = F.interpolate(masks, (height, width), mode="bilinear", align_corners=False)
        seen = tokens.new_ones(tokens.shape[0], 1, tokens.shape[1], tokens.shape[1], dtype=torch.bool)
        seen[:, 0, : self.config.queries, self.config.queries + self.config.prefix :] = masks.flatten(2) > 0
        lowest = torch.finfo(tokens.dtype).min if self.config.theta else -1e9
        return seen.to(tokens.dtype).masked_fill(~seen, lowest)
