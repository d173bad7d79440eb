"""Defines the whole network twice: a FAN's four maps through SegFormer's head, as published and for devices."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from segdeploy.networks.backbones.fan import DeployedFan, Fan
from segdeploy.networks.family import Options, Output
from segdeploy.networks.heads.all_mlp import AllMlpHead, DeployedAllMlpHead
from segdeploy.size import Size


class FanSegmenter(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.backbone = Fan(**config["backbone"])
        self.decode_head = AllMlpHead(self.backbone.channels, config["head_size"], config["num_labels"])

    def forward(self, pixels: Tensor) -> Tensor:  # normalised N×3×H×W -> logits N×C×h×w of the first map
        logits: Tensor = self.decode_head(self.backbone(pixels))
        return logits


class DeployedFanSegmenter(nn.Module):
    def __init__(self, plain: FanSegmenter) -> None:
        super().__init__()
        plain = copy.deepcopy(plain)  # so that changes here do not reach the reference
        self.backbone = DeployedFan(plain.backbone)
        self.head = DeployedAllMlpHead(plain.decode_head)
        self.output = Output(lambda size: Size(*self.backbone.sides(size.height, size.width)[0]))
        self.requires_grad_(False)

    def scale_input(self, factors: Tensor) -> None:
        self.backbone.scale_input(factors)

    def fit(self, size: Size, options: Options) -> None:
        self.backbone.fit(size.height, size.width)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(pixels))
        return logits
