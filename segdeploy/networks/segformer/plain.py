"""Defines the plain SegFormer of the paper and the Hub's files, with which every exported graph is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from segdeploy.networks.backbones.mit import Mit, MitConfig
from segdeploy.networks.heads.all_mlp import AllMlpHead


@dataclass(frozen=True)
class SegformerConfig:
    """Holds one network's configuration under short names; `from_hub` reads it from a Hub config.json."""

    classes: int
    backbone: MitConfig
    head_size: int = 256
    projection_relu: bool = False

    @classmethod
    def from_hub(cls, config: Mapping[str, Any]) -> SegformerConfig:
        return cls(
            classes=len(config["id2label"]),
            backbone=MitConfig.from_hub(config),
            head_size=config["decoder_hidden_size"],
            projection_relu=config.get("head_activation") == "relu",
        )


# Attribute names are the Hub's parameter names.


class SegformerEncoder(nn.Module):
    def __init__(self, config: MitConfig) -> None:
        super().__init__()
        self.encoder = Mit(config)


class Segformer(nn.Module):
    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        self.config = config
        self.segformer = SegformerEncoder(config.backbone)
        self.decode_head = AllMlpHead(
            config.backbone.sizes, config.head_size, config.classes, config.projection_relu
        )

    def forward(self, pixels: Tensor) -> Tensor:  # normalised N×3×H×W -> logits N×C×h×w of the first stage
        logits: Tensor = self.decode_head(self.segformer.encoder(pixels))
        return logits
