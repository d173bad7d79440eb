"""The backbones and heads of mmsegmentation that are known: a row each, and any head may follow any backbone.

`keys` are those of the piece's class in mmsegmentation, as its configuration names them. Of what leaves no trace in
weights, `usual` is what the published configurations say: it is taken where a file does not say it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from segdeploy.networks.backbones.basic_segnet import BasicSegNet
from segdeploy.networks.backbones.convnext import Convnext
from segdeploy.networks.backbones.resnet import Resnet, ResnetConfig
from segdeploy.networks.backbones.swin import Swin, SwinConfig
from segdeploy.networks.backbones.unet import Unet
from segdeploy.networks.config_keys import ConfigKeys
from segdeploy.networks.heads.all_mlp import NormedMlpHead
from segdeploy.networks.heads.aspp import AsppHead
from segdeploy.networks.heads.basic_decoder import BasicDecoder
from segdeploy.networks.heads.fcn import FcnHead
from segdeploy.networks.heads.psp import PspHead
from segdeploy.networks.heads.uper import UperHead


@dataclass(frozen=True)
class Piece:
    title: str
    types: tuple[str, ...]  # its classes in mmsegmentation
    keys: ConfigKeys
    usual: Mapping[str, Any]
    plain: Callable[..., nn.Module]
    norms: tuple[str, ...] = ("BN", "SyncBN", "MMSyncBN")  # types of norm_cfg
    eps: float = 1e-5  # of its norms; batch norms may have another


# How they were trained and set up; what the weights' shapes say.
_TRAINING = ("norm_cfg", "norm_eval", "with_cp", "pretrained", "init_cfg")
_DROPOUT = ("drop_rate", "attn_drop_rate", "drop_path_rate")
_HEAD_UNREAD = (
    *("in_channels", "channels", "num_classes", "out_channels", "threshold"),  # the weights say them
    *("norm_cfg", "dropout_ratio", "loss_decode", "ignore_index", "sampler", "init_cfg"),
)
_RELU = {"act_cfg": {"type": "ReLU"}, "conv_cfg": None}
_EVERY_STAGE = {"out_indices": [0, 1, 2, 3], "num_stages": 4, "in_channels": 3}


def head_keys(
    read: Mapping[str, Any], fixed: Mapping[str, Any] | None = None, unread: tuple[str, ...] = ()
) -> ConfigKeys:
    """The keys of a head: those of mmsegmentation's BaseDecodeHead and its own."""
    usual = {"align_corners": False, "in_index": None}
    return ConfigKeys(
        read={key: value for key, value in {**usual, **read}.items() if key not in (fixed or {})},
        fixed={**_RELU, "input_transform": None, **(fixed or {})},
        unread=_HEAD_UNREAD + unread,
        document="config text",
    )


BACKBONES = {
    "resnet": Piece(
        "a ResNet",
        ("ResNet", "ResNetV1c"),
        ConfigKeys(
            read={
                "strides": [1, 2, 2, 2],
                "dilations": [1, 1, 1, 1],
                "contract_dilation": False,
                "multi_grid": None,
                "style": "pytorch",
            },
            fixed=_EVERY_STAGE | {"avg_down": False, "conv_cfg": None, "dcn": None, "plugins": None},
            unread=(
                *("depth", "stem_channels", "base_channels", "deep_stem", "stage_with_dcn"),
                *("frozen_stages", "zero_init_residual", *_TRAINING),
            ),
            document="config text",
        ),
        {"strides": [1, 2, 1, 1], "dilations": [1, 1, 2, 4], "contract_dilation": True},
        lambda **facts: Resnet(ResnetConfig(**facts)),
    ),
    "unet": Piece(
        "a U-Net",
        ("UNet",),
        ConfigKeys(
            read={},
            fixed=_RELU
            | {
                "in_channels": 3,
                "strides": [1] * 5,
                "downsamples": [True] * 4,
                "enc_dilations": [1] * 5,
                "dec_dilations": [1] * 4,
                "upsample_cfg": {"type": "InterpConv"},
                "dcn": None,
                "plugins": None,
            },
            unread=("base_channels", "num_stages", "enc_num_convs", "dec_num_convs", *_TRAINING),
            document="config text",
        ),
        {},
        Unet,
    ),
    "swin": Piece(
        "a Swin Transformer",
        ("SwinTransformer",),
        ConfigKeys(
            read={},
            fixed={
                "in_channels": 3,
                "out_indices": [0, 1, 2, 3],
                "strides": [4, 2, 2, 2],
                "qk_scale": None,
                "patch_norm": True,
                "use_abs_pos_embed": False,
                "act_cfg": {"type": "GELU"},
            },
            unread=(
                *("pretrain_img_size", "embed_dims", "patch_size", "window_size", "mlp_ratio", "depths", "num_heads"),
                *("qkv_bias", *_DROPOUT, "with_cp", "pretrained", "frozen_stages", "init_cfg", "norm_cfg"),
            ),
            document="config text",
        ),
        {},
        lambda **facts: Swin(SwinConfig(**facts)),
        ("LN",),
    ),
    "convnext": Piece(
        "a ConvNeXt",
        ("ConvNeXt",),
        ConfigKeys(
            read={},
            fixed={
                "in_channels": 3,
                "act_cfg": {"type": "GELU"},
                "linear_pw_conv": True,
                "use_grn": False,
                "out_indices": [0, 1, 2, 3],
                "gap_before_final_norm": False,
            },
            unread=(
                *("arch", "stem_patch_size", "norm_cfg", "drop_path_rate", "layer_scale_init_value"),
                *("frozen_stages", "with_cp", "init_cfg"),
            ),
            document="config text",
        ),
        {},
        Convnext,
        ("LN2d",),
        1e-6,
    ),
    "basic": Piece(
        "CV-3315's BasicSegNet",
        ("BasicSegNet",),
        ConfigKeys(read={}, fixed={}, unread=("n_class",), document="config text"),
        {},
        BasicSegNet,
    ),
}  # fmt: skip

HEADS = {
    "basic": Piece(
        "CV-3315's BasicDecoder",
        ("BasicDecoder",),
        head_keys(
            {"input_size": [256, 864]},
            {"interpolate_mode": "bilinear"},
            ("n_class",),
        ),
        {},
        BasicDecoder,
    ),
    "aspp": Piece(
        "an ASPP head",
        ("ASPPHead", "DepthwiseSeparableASPPHead"),
        head_keys({"dilations": [1, 6, 12, 18]}, unread=("c1_in_channels", "c1_channels")),
        {"dilations": [1, 12, 24, 36]},
        AsppHead,
    ),
    "psp": Piece(
        "a PSP head", ("PSPHead",), head_keys({"pool_scales": [1, 2, 3, 6]}), {}, PspHead
    ),
    "uper": Piece("a UPerNet head", ("UPerHead",), head_keys({"pool_scales": [1, 2, 3, 6]}), {}, UperHead),
    "mlp": Piece(
        "a SegFormer head",
        ("SegformerHead",),
        head_keys({}, {"interpolate_mode": "bilinear", "align_corners": False}),
        {},
        NormedMlpHead,
    ),
    "fcn": Piece(
        "an FCN head",
        ("FCNHead",),
        head_keys({"dilation": 1}, unread=("num_convs", "kernel_size", "concat_input")),
        {},
        FcnHead,
    ),
}  # fmt: skip
