"""Rewrites `plain.Eomt` for devices; it computes exactly the same function.

* The class token, the registers, and each place's embedding with the first convolution's bias are one constant.
* The attention scale is in the query projection; DINOv2's key bias is dropped (a constant per query does not change
  softmax); the value bias and the layer scales are in the projections behind them, since the attention's rows sum to
  one. DINOv3's angles are constants in which the first tokens and the queries are not turned.
* A transposed convolution whose stride is its kernel is a product of tokens, followed by a regrouping.
* A mask that an attention needs is predicted at that attention's resolution: the bilinear resize of maps commutes with
  the product that makes masks of them.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.eomt.plain import (
    Eomt,
    EomtAttention,
    EomtLayer,
    EomtMaskHead,
    EomtUpscale,
    Turning,
    turning_of,
)
from segdeploy.networks.family import Options, Output
from segdeploy.networks.folding import gelu, linear, module_list, to_maps, to_tokens
from segdeploy.networks.heads.mask_classes import BLOCKED, summed_scores
from segdeploy.size import Size


def with_factor(layer: nn.Linear, scale: Tensor | float, passed: Tensor | None = None) -> nn.Linear:
    """Fold a factor behind `layer` into it; `passed` is a constant in what it reads."""
    bias: Tensor = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
    if passed is not None:
        bias = bias + layer.weight @ passed
    factor = torch.as_tensor(scale).expand(layer.out_features)
    return linear(layer.weight * factor[:, None], bias * factor)


class DeployedEomtAttention(nn.Module):
    """Takes queries, keys and values N×L×C apart before it splits them into heads, as runtimes fuse them."""

    def __init__(self, plain: EomtAttention, behind: Tensor, turns: bool) -> None:
        super().__init__()
        self.heads, self.turns = plain.heads, turns
        self.width = plain.q_proj.in_features // plain.heads
        query = with_factor(plain.q_proj, self.width**-0.5)
        if turns:
            key = with_factor(plain.k_proj, 1)
            self.pair = linear(torch.cat((query.weight, key.weight)), torch.cat((query.bias, key.bias)))
        else:
            self.query, self.key = query, linear(plain.k_proj.weight, None)
        self.value = linear(plain.v_proj.weight, None)
        self.project = with_factor(plain.out_proj, behind, plain.v_proj.bias)

    def forward(self, tokens: Tensor, added: Tensor | None, turning: Turning | None) -> Tensor:
        batch, length, size = tokens.shape
        if turning is None:
            query, key = self.query(tokens), self.key(tokens)
        else:
            cosine, sine = turning
            halves = self.pair(tokens).reshape(batch, length, 2 * self.heads, 2, self.width // 2)
            halves = halves * cosine + halves.flip(3) * sine
            query, key = halves.reshape(batch, length, 2 * size).split_with_sizes([size, size], dim=2)
        query, key, value = (
            part.reshape(batch, length, self.heads, self.width).transpose(1, 2)
            for part in (query, key, self.value(tokens))
        )
        scores = query @ key.transpose(-1, -2)
        if added is not None:
            scores = scores + added
        mixed = (scores.softmax(-1) @ value).transpose(1, 2)
        projected: Tensor = self.project(mixed.reshape(batch, length, size))
        return projected


class DeployedEomtLayer(nn.Module):
    def __init__(self, plain: EomtLayer, turns: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = plain.norm1, plain.norm2
        self.attention = DeployedEomtAttention(plain.attention, plain.layer_scale1.lambda1, turns)
        self.expand = plain.mlp.up_proj
        self.shrink = with_factor(plain.mlp.down_proj, plain.layer_scale2.lambda1)

    def forward(self, tokens: Tensor, added: Tensor | None, turning: Turning | None) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens), added, turning)
        mixed: Tensor = tokens + self.shrink(gelu(self.expand(self.norm2(tokens))))
        return mixed


class DeployedUpscale(nn.Module):
    """Doubles the sides of the maps that tokens are."""

    def __init__(self, plain: EomtUpscale) -> None:
        super().__init__()
        weight = plain.conv1.weight.permute(2, 3, 1, 0)  # row×column×outputs×inputs
        assert plain.conv1.bias is not None  # noqa: S101 - it always has one
        self.spread = linear(weight.reshape(-1, weight.shape[-1]), plain.conv1.bias.repeat(4))
        self.mix, self.norm = plain.conv2, plain.layernorm2d

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:  # N×hw×C -> N×4hw×C
        batch, _, size = tokens.shape
        spread = gelu(self.spread(tokens)).reshape(batch, height, width, 2, 2 * size)
        rows = spread.transpose(2, 3).reshape(
            batch, 4 * height * width, size
        )  # whole tokens move: that is fast
        normed: Tensor = self.norm(to_tokens(self.mix(to_maps(rows, 2 * height, 2 * width))))
        return normed


class DeployedMaskHead(nn.Module):
    def __init__(self, plain: EomtMaskHead) -> None:
        super().__init__()
        self.first, self.second, self.third = plain.fc1, plain.fc2, plain.fc3

    def forward(self, queries: Tensor) -> Tensor:
        vectors: Tensor = self.third(gelu(self.second(gelu(self.first(queries)))))
        return vectors


class DeployedEomt(nn.Module):
    def __init__(self, plain: Eomt) -> None:
        super().__init__()
        plain = copy.deepcopy(plain)  # so that changes here do not reach the reference
        self.config, self.published = plain.config, plain.published
        embeddings = plain.embeddings
        conv = embeddings.patch_embeddings
        assert conv.bias is not None  # noqa: S101 - it always has one
        self.first = torch.cat((embeddings.cls_token, embeddings.register_tokens), 1).detach()
        self.placed = conv.bias.detach().expand(1, 1, -1)
        if embeddings.position_embeddings is not None:
            self.placed = self.placed + embeddings.position_embeddings.weight.detach()
        self.embed, conv.bias = conv, None
        self.queries = plain.query.weight.detach()[None]
        self.layers = module_list(
            DeployedEomtLayer(layer, bool(plain.config.theta)) for layer in plain.layers
        )
        self.norm, self.classes, self.masks = (
            plain.layernorm,
            plain.class_predictor,
            DeployedMaskHead(plain.mask_head),
        )
        self.upscales = module_list(DeployedUpscale(block) for block in plain.upscale_block.block)
        self.masked = [share > 0 for share in plain.attn_mask_probs.tolist()]
        one_size = None if plain.config.theta else Size(plain.config.side, plain.config.side)
        self.output = Output(self.logits_size, multiple=plain.config.patch, only=one_size)
        self.requires_grad_(False)

    def grid(self, size: Size) -> tuple[int, int]:
        return size.height // self.config.patch, size.width // self.config.patch

    def logits_size(self, size: Size) -> Size:
        height, width = self.grid(size)
        return size if self.published else Size(height << self.config.upscales, width << self.config.upscales)

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution, which has no padding."""
        self.embed.weight *= factors[:, None, None]

    def fit(self, size: Size, options: Options) -> None:
        """Make the constants of one input size."""
        self.height, self.width = self.grid(size)
        count = self.height * self.width
        self.raised = torch.Size((size.height, size.width)) if self.published else None
        self.start = nn.Buffer(torch.cat((self.first, self.placed.expand(1, count, -1)), 1))
        self.joined = nn.Buffer(F.pad(self.queries, (0, 0, 0, self.config.prefix + count)))
        if self.config.theta:
            self.cosine, self.sine = map(nn.Buffer, self.turning(self.config.prefix))
            later = self.turning(self.config.queries + self.config.prefix)
            self.cosine_later, self.sine_later = map(nn.Buffer, later)

    def turning(self, before: int) -> Turning:
        """Give 1×L×1×2×d/2 for all tokens, in which the `before` first ones stay as they are."""
        config = self.config
        assert config.theta is not None  # noqa: S101 - asked for by networks that turn
        width = config.size // config.heads
        cosine, sine = turning_of(self.height, self.width, width, config.theta)
        cosine = torch.cat((torch.ones(before, width), cosine)).reshape(1, -1, 1, 2, width // 2)
        sine = F.pad(sine, (0, 0, before, 0)).reshape(1, -1, 1, 2, width // 2)
        return cosine, sine * torch.tensor([-1.0, 1.0])[:, None]

    def forward(self, pixels: Tensor) -> Tensor:  # N×3×H×W -> scores N×C×h×w of the masks, or N×C×H×W
        config = self.config
        tokens = F.pad(to_tokens(self.embed(pixels)), (0, 0, config.prefix, 0)) + self.start
        turning = (self.cosine, self.sine) if config.theta else None
        added = None
        for place, layer in enumerate(self.layers, config.blocks - config.depth):
            if place == 0:
                tokens = F.pad(tokens, (0, 0, config.queries, 0)) + self.joined
                turning = (self.cosine_later, self.sine_later) if config.theta else None
            if place >= 0 and self.masked[place]:
                added = self.outside_masks(self.norm(tokens))
            tokens = layer(tokens, added, turning)
        tokens = self.norm(tokens)
        queries, maps = tokens[:, : config.queries], self.maps_of(tokens)
        masks = self.masks(queries) @ maps.transpose(1, 2)
        size = torch.Size((self.height << config.upscales, self.width << config.upscales))
        return summed_scores(self.classes(queries), masks, size, self.raised)

    def maps_of(self, tokens: Tensor) -> Tensor:  # N×L×C -> N×hw×C at the masks' size
        maps = tokens[:, self.config.queries + self.config.prefix :]
        for step, upscale in enumerate(self.upscales):
            maps = upscale(maps, self.height << step, self.width << step)
        return maps

    def outside_masks(self, tokens: Tensor) -> Tensor:
        """Give N×1×L×L: what is added to the scores of a query and a place outside its mask."""
        config = self.config
        fine = self.height << config.upscales, self.width << config.upscales
        maps = to_maps(self.maps_of(tokens), *fine)
        maps = F.interpolate(maps, (self.height, self.width), mode="bilinear", align_corners=False)
        masks = self.masks(tokens[:, : config.queries]) @ maps.flatten(2)
        blocked = (masks <= 0).to(tokens.dtype) * BLOCKED
        before, behind = config.queries + config.prefix, config.prefix + self.height * self.width
        return F.pad(blocked, (before, 0, 0, behind)).unsqueeze(1)
