"""Defines convolutions with a batch norm behind them, as in most published networks, and folds the norms away."""

from __future__ import annotations

from torch import Tensor, nn

from segdeploy.networks.folding import folded


class NormedConvolution(nn.Module):
    """Is a convolution with a batch norm; its padding keeps the maps' size at stride 1."""

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
    """Is a 3x3 convolution per channel, then a 1x1 over all; a batch norm and a ReLU follow each."""

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
    """Fold the layers' batch norms, and put a ReLU behind each layer."""
    return nn.Sequential(*(part for layer in layers for part in (without_norm(layer), nn.ReLU())))


def rectified_separable(layer: SeparableConvolution) -> nn.Sequential:
    return rectified(layer.depthwise, layer.pointwise)
