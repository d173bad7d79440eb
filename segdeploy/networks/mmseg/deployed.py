"""A network of mmsegmentation for devices: its backbone's and its head's exact rewrites, one behind the other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from segdeploy.networks.backbones.basic_segnet import BasicSegNet
from segdeploy.networks.backbones.convnext import Convnext, DeployedConvnext
from segdeploy.networks.backbones.resnet import DeployedResnet, Resnet
from segdeploy.networks.backbones.swin import DeployedSwin, Swin
from segdeploy.networks.backbones.unet import DeployedUnet, Unet
from segdeploy.networks.family import Options, Output
from segdeploy.networks.heads.all_mlp import DeployedAllMlpHead, NormedMlpHead, as_all_mlp
from segdeploy.networks.heads.aspp import AsppHead, DeployedAsppHead
from segdeploy.networks.heads.basic_decoder import BasicDecoder
from segdeploy.networks.heads.fcn import DeployedFcnHead, FcnHead
from segdeploy.networks.heads.psp import DeployedPspHead, PspHead
from segdeploy.networks.heads.uper import DeployedUperHead, UperHead
from segdeploy.networks.mmseg.plain import EncoderDecoder
from segdeploy.size import Size

# Two pieces have nothing to rewrite.
FOR_DEVICES: dict[type[nn.Module], Callable[[Any], Any]] = {
    BasicSegNet: lambda plain: plain,
    Convnext: DeployedConvnext,
    Resnet: DeployedResnet,
    Swin: DeployedSwin,
    Unet: DeployedUnet,
    AsppHead: DeployedAsppHead,
    BasicDecoder: lambda plain: plain,
    FcnHead: DeployedFcnHead,
    NormedMlpHead: lambda plain: DeployedAllMlpHead(as_all_mlp(plain)),
    PspHead: DeployedPspHead,
    UperHead: DeployedUperHead,
}


class DeployedEncoderDecoder(nn.Module):
    def __init__(self, plain: EncoderDecoder) -> None:
        super().__init__()
        plain = copy.deepcopy(plain)  # nothing done to this network reaches the one it is compared with
        self.backbone = FOR_DEVICES[type(plain.backbone)](plain.backbone)
        self.head = FOR_DEVICES[type(plain.decode_head)](plain.decode_head)
        self.output = Output(self.logits_size, plain.align_corners, self.backbone.multiple)
        self.requires_grad_(False)

    def logits_size(self, size: Size) -> Size:
        return Size(*self.head.logits_sides(self.backbone.sides(size.height, size.width)))

    def scale_input(self, factors: Tensor) -> None:
        self.backbone.scale_input(factors)

    def fit(self, size: Size, options: Options) -> None:
        self.head.fit(self.backbone.fit(size.height, size.width))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(pixels))
        return logits
