"""Describes the family SegFormer (arXiv:2105.15203), a Mix Transformer with an all-MLP head, in four layouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segdeploy.networks.family import (
    HUB,
    DeployedNetwork,
    Family,
    Marks,
    Options,
    RawCheckpoint,
    ReadCheckpoint,
)

if TYPE_CHECKING:
    from segdeploy.networks.segformer.plain import Segformer


def read(found: RawCheckpoint) -> ReadCheckpoint:
    from segdeploy.networks.segformer.key_names import read_segformer

    return read_segformer(found)


def build(config: Mapping[str, Any], options: Options) -> Segformer:
    from segdeploy.networks.segformer.plain import Segformer, SegformerConfig

    return Segformer(SegformerConfig.from_hub(config))


def deploy(plain: Segformer) -> DeployedNetwork:
    from segdeploy.networks.segformer.deployed import DeployedSegformer

    return DeployedSegformer(plain).eval()


_HEAD = r"decode_head\."
SEGFORMER = Family(
    name="segformer",
    title="a SegFormer",
    layouts=(
        Marks(HUB, (r"segformer\.(encoder|stages)\.", _HEAD)),
        Marks("nvlabs", (r"backbone\.patch_embed1\.", _HEAD)),
        Marks("tao", (r"backbone\.patch_embed1\.", r"decoder\.linear_c1\.")),
        Marks("mmseg", (r"backbone\.layers\.0\.0\.projection\.", r"decode_head\.fusion_conv\.")),
    ),
    read=read,
    build=build,
    deploy=deploy,
    trunk="segformer.encoder",
    relatives=(
        Marks(
            "only a MiT backbone, as pretrained on ImageNet, and no decode_head",
            (
                r"(backbone\.|segformer\.)?(encoder\.)?"
                r"(patch_embed1|patch_embeddings\.0|stages\.0\.patch_embeddings|layers\.0\.0\.projection)\b",
            ),
            absent=r"(decode_head|decoder)\.",
        ),
        Marks(
            "a MiT of mmsegmentation with another head than SegFormer's (adopt its .onnx)",
            (r"backbone\.layers\.0\.0\.projection\.", r"decode_head\.\w+"),
        ),
    ),
)
