"""Convolutions with the batch norm behind them, as most published networks have them, and the same without."""

from __future__ import annotations

from torch import Tensor, nn

from segdeploy.networks.folding import folded


class NormedConvolution(nn.Module):
    """Keeps the maps' size at stride 1: its padding is half of what its kernel spans."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        padding = kernel // 2 * dilation
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        normed: Tensor = self.normalization(self.convolution(maps))
        return normed


class SeparableConvolution(nn.Module):
    """A 3x3 convolution of each channel alone, then a 1x1 of all; a batch norm and a ReLU follow each."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = NormedConvolution(inputs, inputs, 3, dilation=dilation, groups=inputs)
        self.pointwise = NormedConvolution(inputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        mixed: Tensor = self.pointwise(self.depthwise(maps).relu()).relu()
        return mixed


# ---- without batch norms ---------------------------------------------------------------------------------------


def without_norm(layer: NormedConvolution) -> nn.Conv2d:
    return folded(layer.convolution, layer.normalization)


def rectified(*layers: NormedConvolution) -> nn.Sequential:
    """The layers without their batch norms, a ReLU behind each."""
    return nn.Sequential(*(part for layer in layers for part in (without_norm(layer), nn.ReLU())))


def rectified_separable(layer: SeparableConvolution) -> nn.Sequential:
    return rectified(layer.depthwise, layer.pointwise)
