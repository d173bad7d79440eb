"""Describes the family FAN (arXiv:2204.12451), a hybrid FAN backbone with SegFormer's head, in NVIDIA's two layouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segdeploy.networks.family import (
    DeployedNetwork,
    Family,
    Marks,
    Option,
    Options,
    RawCheckpoint,
    ReadCheckpoint,
)

if TYPE_CHECKING:
    from segdeploy.networks.fan.network import FanSegmenter


def read(found: RawCheckpoint) -> ReadCheckpoint:
    from segdeploy.networks.fan.key_names import read_fan

    return read_fan(found)


def build(config: Mapping[str, Any], options: Options) -> FanSegmenter:
    from segdeploy.networks.fan.network import FanSegmenter

    return FanSegmenter(config)


def deploy(plain: FanSegmenter) -> DeployedNetwork:
    from segdeploy.networks.fan.network import DeployedFanSegmenter

    return DeployedFanSegmenter(plain).eval()


POSITIONS = Option(
    "fan_positions",
    "wavelengths of a FAN's positions: by-source (default), as the code that its file names; floored, in pairs, as TAO"
    " computes them; spread, each its own, as NVlabs' segmentation code does",
    ("by-source", "floored", "spread"),
    "FORM",
)
_BACKBONE = r"backbone\.patch_embed\.backbone\.stem\."
FAN = Family(
    name="fan",
    title="a FAN",
    layouts=(
        Marks("nvlabs", (_BACKBONE, r"decode_head\.linear_c1\.")),
        Marks("tao", (_BACKBONE, r"decoder\.linear_c1\.")),
    ),
    read=read,
    build=build,
    deploy=deploy,
    options=(POSITIONS,),
    relatives=(
        Marks(
            "only a FAN backbone, as pretrained on ImageNet, and no segmentation head",
            (r"(backbone\.)?patch_embed\.(backbone\.stem|proj)\.", r"(backbone\.)?cls_attn_blocks\."),
            absent=r"(decode_head|decoder)\.",
        ),
        Marks(
            "a FAN of another kind than the hybrids with SegFormer's head",
            (r"backbone\.cls_attn_blocks\.",),
        ),
        Marks(
            "a network of TAO whose backbone is neither a MiT nor a hybrid FAN",
            (r"backbone\.", r"decoder\.linear_c1\."),
        ),
    ),
)
