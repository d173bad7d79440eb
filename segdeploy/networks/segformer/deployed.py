"""Defines SegFormer for devices: the published function, with the exact rewrites of its backbone and its head."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from segdeploy.networks.backbones.mit import deployed_stages
from segdeploy.networks.family import Options, Output
from segdeploy.networks.folding import size_after
from segdeploy.networks.heads.all_mlp import DeployedAllMlpHead
from segdeploy.networks.segformer.plain import Segformer
from segdeploy.size import Size


class DeployedSegformer(nn.Module):
    def __init__(self, plain: Segformer) -> None:
        super().__init__()
        plain = copy.deepcopy(plain)  # so that changes here do not reach the reference
        self.stages = deployed_stages(plain.segformer.encoder)
        self.head = DeployedAllMlpHead(plain.decode_head)
        first = self.stages[0].embed
        self.output = Output(lambda size: size_after(first, size))
        self.requires_grad_(False)

    def scale_input(self, factors: Tensor) -> None:
        """Fold factors per colour channel into the first convolution; zero padding stays zero, so it is exact."""
        self.stages[0].embed.weight *= factors[:, None, None]

    def fit(self, size: Size, options: Options) -> None:
        """Do nothing: this network does not depend on the input's size."""

    def forward(self, pixels: Tensor) -> Tensor:  # N×3×H×W -> logits N×C×h×w of the first stage
        stages = []
        for stage in self.stages:
            pixels = stage(pixels)
            stages.append(pixels)
        logits: Tensor = self.head(stages)
        return logits
