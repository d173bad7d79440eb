"""Reads the Hub's UPerNets: networks of mmsegmentation under transformers' names, with a config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch

from segdeploy.errors import CheckpointError
from segdeploy.networks.backbones.hub_keys import backbone_tables, complete_backbone
from segdeploy.networks.backbones.resnet import ResnetConfig
from segdeploy.networks.backbones.swin import SwinConfig
from segdeploy.networks.config_keys import ConfigKeys
from segdeploy.networks.family import RawCheckpoint, ReadCheckpoint
from segdeploy.networks.mmseg.pieces import BACKBONES
from segdeploy.networks.weight_names import Shapes, Table, renamed

CONFIG_KEYS = ConfigKeys(
    read={"hidden_size": 512, "pool_scales": [1, 2, 3, 6]},
    fixed={},
    unread=(
        *("initializer_range", "loss_ignore_index", "use_auxiliary_head", "auxiliary_loss_weight"),
        *("auxiliary_in_channels", "auxiliary_channels", "auxiliary_num_convs", "auxiliary_concat_input"),
        "backbone_config",  # has its own keys
    ),
)
_FACTS: Mapping[str, Any] = {
    "swin": lambda stated: asdict(SwinConfig.from_hub(stated)),
    "resnet": lambda stated: asdict(ResnetConfig.from_hub(stated)),
    "convnext": lambda stated: {
        "sizes": tuple(stated["hidden_sizes"]),
        "depths": tuple(stated["depths"]),
        "patch": stated["patch_size"],
    },
}
_TABLES: tuple[Table, ...] = (
    {"{at}.relative_position_index": ()},
    *backbone_tables("backbone"),
    {"decode_head.psp_modules.{i}.1.*": "decode_head.psp_modules.mix.{i}.*"},
    {
        "{at}.conv.weight": "{at}.convolution.weight",
        "{at}.batch_norm.*": "{at}.normalization.*",
        "decode_head.classifier.*": "decode_head.conv_seg.*",
    },
)


def read_upernet(found: RawCheckpoint) -> ReadCheckpoint:
    if found.config is None:
        raise CheckpointError(
            f"{found.source} is a UPerNet of transformers without its config.json, which says what no weight does;"
            " put it beside the weights"
        )
    named = found.weights
    for table in _TABLES:
        named = renamed(named, table, found.source)
    stated = CONFIG_KEYS.complete(found.config, found.source)
    inner = complete_backbone(stated, tuple(_FACTS), found.source)
    kind = str(inner["model_type"])
    facts = _FACTS[kind](inner)
    with torch.device("meta"):
        inputs = cast("tuple[int, ...]", BACKBONES[kind].plain(**facts).channels)
    classes = Shapes(named, found.source, "a UPerNet").of("decode_head.conv_seg.weight", 4)[0]
    head = {"kind": "uper", "inputs": inputs, "channels": stated["hidden_size"], "classes": classes}
    head |= {"scales": tuple(stated["pool_scales"]), "align_corners": False}
    built = {
        "backbone": {"kind": kind, **facts},
        "decode_head": head,
        "align_corners": False,
        "batch_norm_eps": {},
    }
    return ReadCheckpoint({**stated, **built}, named, classes)
