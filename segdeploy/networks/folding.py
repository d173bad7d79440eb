"""Makes layers with given weights, folds norms into their neighbours, and turns tokens into maps and back."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from segdeploy.size import Size

M = TypeVar("M", bound=nn.Module)


def module_list(modules: Iterable[M]) -> Sequence[M]:
    """Make an nn.ModuleList whose elements keep their type."""
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


def affine_of(
    weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, eps: float
) -> tuple[Tensor, Tensor]:
    """Give a batch norm's gain and shift per channel, in float64."""
    gain = weight.double() / (variance.double() + eps).sqrt()
    return gain, bias.double() - gain * mean.double()


def gain_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101
    return affine_of(norm.weight, norm.bias, norm.running_mean, norm.running_var, eps=norm.eps)


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Fold the batch norm behind a convolution into it, computed in float64."""
    gain, bias = gain_and_shift(norm)
    made = copy.deepcopy(conv)
    made.weight = nn.Parameter(
        (conv.weight.double() * gain[:, None, None, None]).detach().to(conv.weight.dtype)
    )
    if conv.bias is not None:
        bias = bias + gain * conv.bias.double()
    made.bias = nn.Parameter(bias.detach().to(conv.weight.dtype))
    return made


def size_after(conv: nn.Conv2d, size: Size) -> Size:
    """Give the size of a convolution's output for an input of `size`."""

    def side(length: int, axis: int) -> int:
        padding, kernel, stride = int(conv.padding[axis]), conv.kernel_size[axis], conv.stride[axis]
        return (length + 2 * padding - conv.dilation[axis] * (kernel - 1) - 1) // stride + 1

    return Size(side(size.height, 0), side(size.width, 1))


def reading_bare(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rewrite a projection of norm(x) so that it reads the same norm without its affine."""
    return weight * norm.weight, bias + weight @ norm.bias


def bare(norm: nn.LayerNorm) -> nn.LayerNorm:
    return nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)


def gelu(values: Tensor) -> Tensor:
    """Compute the exact GELU in the order of steps that runtimes recognise and fuse, unlike the exporter's own."""
    return values * (1 + torch.erf(values / 2**0.5)) * 0.5


def to_maps(tokens: Tensor, height: int, width: int) -> Tensor:  # N×hw×C -> N×C×h×w
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], height, width)


def to_tokens(maps: Tensor) -> Tensor:  # N×C×h×w -> N×hw×C
    return maps.flatten(2).transpose(1, 2)
