"""The starts of names that tell mmsegmentation's pieces; the first that fits is taken."""

from __future__ import annotations

BACKBONE_MARKS = {
    "resnet": r"backbone\.(stem\.0|conv1|layer1\.0\.conv1)\.",
    "unet": r"backbone\.encoder\.0\.0\.convs\.",
    "swin": r"backbone\.stages\.0\.blocks\.0\.attn\.w_msa\.",
    "convnext": r"backbone\.stages\.0\.0\.depthwise_conv\.",
    "basic": r"backbone\.conv1_1\.",
}
HEAD_MARKS = {
    "basic": r"decode_head\.upsample_cov1\.",
    "aspp": r"decode_head\.aspp_modules\.",
    "uper": r"decode_head\.fpn_bottleneck\.",
    "psp": r"decode_head\.psp_modules\.",
    "mlp": r"decode_head\.fusion_conv\.",
    "fcn": r"decode_head\.(convs|conv_seg)\.",
}
ANY_BACKBONE = rf"({'|'.join(BACKBONE_MARKS.values())})"
ANY_HEAD = rf"({'|'.join(HEAD_MARKS.values())})"
# Any part of a head that none of these heads has: many other heads are one of these and something more.
OTHER_HEADS = (
    r"decode_head\.(?!(conv_seg|convs|conv_cat|psp_modules|aspp_modules|image_pool|bottleneck|c1_bottleneck"
    r"|sep_bottleneck|fusion_conv|lateral_convs|fpn_convs|fpn_bottleneck|upsample_cov\d)\.)\w+"
)
# Layers that are not built, of a ResNet (V1d) and of a U-Net (DeconvModule).
POOLED_SHORTCUTS = r"backbone\.layer\d\.0\.downsample\.2\."
RAISED_BY_CONVOLUTIONS = r"backbone\.decoder\.\d\.upsample\.deconv_upsamping\."
NOT_BUILT = rf"({OTHER_HEADS}|{POOLED_SHORTCUTS}|{RAISED_BY_CONVOLUTIONS})"
