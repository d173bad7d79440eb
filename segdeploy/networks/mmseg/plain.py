"""A network of mmsegmentation as published: its backbone's maps through its head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from segdeploy.networks.mmseg.pieces import BACKBONES, HEADS


class EncoderDecoder(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        backbone, head = dict(config["backbone"]), dict(config["decode_head"])
        for facts in (backbone, head):
            if "classes" in facts:
                facts["classes"] = config.get("num_labels", facts["classes"])
        self.align_corners: bool = config["align_corners"]
        self.backbone = BACKBONES[backbone.pop("kind")].plain(**backbone)
        self.decode_head = HEADS[head.pop("kind")].plain(**head)
        for part, eps in config["batch_norm_eps"].items():
            for module in self.get_submodule(part).modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = eps

    def forward(
        self, pixels: Tensor
    ) -> Tensor:  # normalised N×3×H×W -> logits N×C×h×w, where the head has them
        logits: Tensor = self.decode_head(self.backbone(pixels))
        return logits
