"""Defines SegFormer's all-MLP head twice: one linear layer per stage, resized to the finest stage, fused, classified.

In the deployed head the per-stage projection, its slice of the fusing convolution and the batch norm are one matrix per
stage, applied at that stage's own resolution: a bilinear resize is linear and its weights sum to one, so it commutes
with them (SegFormer-B0 -39 %, B2 -53 % multiply-adds at 1024x1024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import gain_and_shift, linear, module_list, pointwise
from segdeploy.networks.normed import NormedConvolution, without_norm


class Projection(nn.Module):
    def __init__(self, size: int, head_size: int) -> None:
        super().__init__()
        self.proj = nn.Linear(size, head_size)


class AllMlpHead(nn.Module):
    """Fuses four stages into logits; with `projection_relu`, as in mmsegmentation, a ReLU follows each projection."""

    def __init__(
        self, channels: Sequence[int], size: int, classes: int, projection_relu: bool = False
    ) -> None:
        super().__init__()
        self.linear_c = module_list(Projection(channel, size) for channel in channels)
        self.linear_fuse = nn.Conv2d(size * len(channels), size, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(size)
        self.classifier = nn.Conv2d(size, classes, 1)
        self.projection_relu = projection_relu

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        fused = self.fused_before_raised(stages) if self.training else self.fused(stages)
        logits: Tensor = self.classifier(self.batch_norm(fused).relu())
        return logits

    def fused(self, stages: Sequence[Tensor]) -> Tensor:
        size = stages[0].shape[-2:]
        raised = []
        for maps, linear_c in zip(stages, self.linear_c, strict=True):
            projected = linear_c.proj(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            if self.projection_relu:
                projected = projected.relu()
            raised.append(F.interpolate(projected, size, mode="bilinear", align_corners=False))
        fused: Tensor = self.linear_fuse(torch.cat(raised[::-1], dim=1))
        return fused

    def fused_before_raised(self, stages: Sequence[Tensor]) -> Tensor:
        """Compute the same in the order of the deployed head: a step of training takes half the time and memory."""
        slices = self.linear_fuse.weight.chunk(len(self.linear_c), dim=1)[::-1]
        summed: Tensor | None = None
        for maps, linear_c, fuse in zip(stages, self.linear_c, slices, strict=True):
            weight, bias = linear_c.proj.weight[:, :, None, None], linear_c.proj.bias
            if self.projection_relu:
                part = F.conv2d(F.conv2d(maps, weight, bias).relu(), fuse)
            else:
                matrix = fuse.flatten(1)
                part = F.conv2d(maps, (matrix @ linear_c.proj.weight)[:, :, None, None], matrix @ bias)
            raised = F.interpolate(part, stages[0].shape[-2:], mode="bilinear", align_corners=False)
            summed = raised if summed is None else summed + raised
        assert summed is not None  # noqa: S101 - a head reads at least one stage
        return summed


class NormedMlpHead(nn.Module):
    """Is mmsegmentation's form: per stage a 1x1 convolution with batch norm and ReLU, the finest stage first."""

    def __init__(self, inputs: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        self.convs = module_list(NormedConvolution(size, channels, 1) for size in inputs)
        self.fusion_conv = NormedConvolution(channels * len(inputs), channels, 1)
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        size = stages[0].shape[-2:]
        raised = [
            F.interpolate(layer(maps).relu(), size, mode="bilinear", align_corners=False)
            for maps, layer in zip(stages, self.convs, strict=True)
        ]
        logits: Tensor = self.conv_seg(self.fusion_conv(torch.cat(raised, 1)).relu())
        return logits


def as_all_mlp(head: NormedMlpHead) -> AllMlpHead:
    """Convert it to the Hub's form: batch norms are folded into the projections, and the deepest stage is first."""
    channels = [layer.convolution.in_channels for layer in head.convs]
    made = AllMlpHead(channels, head.conv_seg.in_channels, head.conv_seg.out_channels, projection_relu=True)
    for layer, linear_c in zip(head.convs, made.linear_c, strict=True):
        conv = without_norm(layer)
        linear_c.proj = linear(conv.weight.flatten(1), conv.bias)
    fuse = head.fusion_conv.convolution.weight.detach()
    made.linear_fuse.weight = nn.Parameter(torch.cat(fuse.chunk(len(channels), 1)[::-1], 1))
    made.batch_norm, made.classifier = head.fusion_conv.normalization, head.conv_seg
    return made


class DeployedAllMlpHead(nn.Module):
    """Computes relu(Σ upsampled(Aᵢ·xᵢ) + b); Aᵢ = batch norm · fusing slice · projection, made in float64."""

    def __init__(self, head: AllMlpHead) -> None:
        super().__init__()
        gain, bias = gain_and_shift(head.batch_norm)
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
        # A resize does not change the constant bias, so it is added once, with the finest stage.
        biases = [bias.float(), *[None] * (len(weights) - 1)]
        self.project = module_list(
            nn.Sequential(before, pointwise(weight.float(), shift))
            for before, weight, shift in zip(inner, weights, biases, strict=True)
        )
        self.classifier = head.classifier

    def fit(self, sides: Sides) -> None:
        """Do nothing: this head does not depend on the input's size."""

    def logits_sides(self, sides: Sides) -> tuple[int, int]:
        return sides[0]

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        finest, *coarser = (project(maps) for project, maps in zip(self.project, stages, strict=True))
        size = finest.shape[-2:]
        raised = [F.interpolate(maps, size, mode="bilinear", align_corners=False) for maps in coarser]
        # Added to the convolution's own output last, so that runtimes can fuse sum and ReLU into it.
        summed = (
            finest + sum(raised[1:], raised[0]) if raised else finest
        )  # a network may have one stage alone
        logits: Tensor = self.classifier(summed.relu())
        return logits
