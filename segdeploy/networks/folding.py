"""The pieces that networks rewritten for devices are made of: layers with given weights, tokens and maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def module_list(modules: Iterable[M]) -> Sequence[M]:
    """An nn.ModuleList whose elements keep their type."""
    return cast("Sequence[M]", nn.ModuleList(modules))


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone()[:, :, None, None])
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def reading_bare(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A projection of norm(x), rewritten to read the same norm without its affine."""
    return weight * norm.weight, bias + weight @ norm.bias


def bare(norm: nn.LayerNorm) -> nn.LayerNorm:
    return nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)


def gelu(values: Tensor) -> Tensor:
    """The exact form, in the order of steps that runtimes recognise and fuse; the exporter's own order is another."""
    return values * (1 + torch.erf(values / 2**0.5)) * 0.5


def to_maps(tokens: Tensor, height: int, width: int) -> Tensor:  # N×hw×C -> N×C×h×w
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], height, width)


def to_tokens(maps: Tensor) -> Tensor:  # N×C×h×w -> N×hw×C
    return maps.flatten(2).transpose(1, 2)
