"""mmsegmentation's own networks (0.x and 1.x): a backbone and a head, each a row of a table in `pieces`.

The Hub's UPerNets are some of them, under other names. mmsegmentation's SegFormers are the family `segformer`, whose
names stand for the same network in three other projects' files.
"""

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
from segdeploy.networks.mmseg.marks import (
    ANY_BACKBONE,
    ANY_HEAD,
    NOT_BUILT,
    OTHER_HEADS,
    POOLED_SHORTCUTS,
    RAISED_BY_CONVOLUTIONS,
)

if TYPE_CHECKING:
    from segdeploy.networks.mmseg.plain import EncoderDecoder


def read(found: RawCheckpoint) -> ReadCheckpoint:
    from segdeploy.networks.mmseg.hub import read_upernet
    from segdeploy.networks.mmseg.key_names import read_mmseg

    return read_upernet(found) if found.layout == HUB else read_mmseg(found)


def build(config: Mapping[str, Any], options: Options) -> EncoderDecoder:
    from segdeploy.networks.mmseg.plain import EncoderDecoder

    return EncoderDecoder(config)


def deploy(plain: EncoderDecoder) -> DeployedNetwork:
    from segdeploy.networks.mmseg.deployed import DeployedEncoderDecoder

    return DeployedEncoderDecoder(plain).eval()


MMSEG = Family(
    name="mmseg",
    title="a network of mmsegmentation",
    layouts=(
        Marks(
            HUB, (r"backbone\.(swin\.)?(embeddings|embedder)\.", r"decode_head\.fpn_bottleneck\.batch_norm\.")
        ),
        Marks("mmseg", (ANY_BACKBONE, ANY_HEAD), NOT_BUILT),
    ),
    model_types=("upernet",),
    read=read,
    build=build,
    deploy=deploy,
    relatives=(
        Marks(
            "a network on a ResNetV1d, whose shortcuts pool their maps first (V1 and V1c are read; adopt its .onnx)",
            (POOLED_SHORTCUTS,),
        ),
        Marks(
            "a U-Net that raises its maps by DeconvModule (InterpConv is read; adopt its .onnx)",
            (RAISED_BY_CONVOLUTIONS,),
        ),
        Marks(
            "a network of mmsegmentation whose head is not one of FCN, PSP, DeepLabV3, V3+, UPerNet and SegFormer's",
            (ANY_BACKBONE, OTHER_HEADS),
        ),
        Marks(
            "a network of mmsegmentation whose backbone is not one of ResNet (V1, V1c), U-Net, Swin and ConvNeXt",
            (r"backbone\.", ANY_HEAD),
        ),
        Marks(
            "a panoptic or instance network of mmdetection",
            (r"backbone\.", r"(panoptic_head|mask_head|semantic_head)\b"),
        ),
        Marks(
            "a backbone of mmsegmentation with nothing behind it",
            (ANY_BACKBONE,),
            absent=r"(?!backbone\.)",
        ),
    ),
)
