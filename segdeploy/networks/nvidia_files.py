"""Knows what NVIDIA's checkpoints have in common, of a MiT or a FAN: the names of SegFormer's head, and TAO's images.

The names are brought to those of `AllMlpHead`. TAO up to version 5 has NVlabs' names.
"""

from __future__ import annotations

from typing import Any

from segdeploy.networks.family import Weights
from segdeploy.networks.weight_names import Table

NVLABS_HEAD: Table = {
    "decode_head.linear_c{s+1}.proj.*": "decode_head.linear_c.{s}.proj.*",
    "decode_head.linear_fuse.conv.*": "decode_head.linear_fuse.*",
    "decode_head.linear_fuse.bn.*": "decode_head.batch_norm.*",
    "decode_head.linear_pred.*": "decode_head.classifier.*",
    # BaseDecodeHead always makes a conv_seg; the paper's head classifies with linear_pred instead.
    "decode_head.conv_seg.*": (),
}
# TAO 6 calls the head `decoder`, and its fusing convolution has a bias before the batch norm.
TAO_HEAD: Table = {
    "decoder.linear_c{s+1}.proj.*": "decode_head.linear_c.{s}.proj.*",
    "decoder.linear_fuse.0.*": "decode_head.linear_fuse.*",
    "decoder.linear_fuse.1.*": "decode_head.batch_norm.*",
    "decoder.linear_pred.*": "decode_head.classifier.*",
}
# How TAO 6 prepares images where its specification is left as it is.
TAO_PIXELS: dict[str, Any] = {
    "image_mean": [127.5] * 3,
    "image_std": [127.5] * 3,
    "do_rescale": False,
    "resize": "linear",
}
TAO_NORMALISATION = "mean and std are 127.5, TAO 6's own (--card says others)"
_BIAS, _MEAN = "decode_head.linear_fuse.bias", "decode_head.batch_norm.running_mean"


def with_bias_in_mean(weights: Weights) -> Weights:
    """Take the bias before the batch norm off the norm's mean, which is the same function."""
    if weights.get(_BIAS) is None or _MEAN not in weights or weights[_BIAS].shape != weights[_MEAN].shape:
        return weights
    mean = (weights[_MEAN].double() - weights[_BIAS].double()).to(weights[_MEAN].dtype)
    return {name: tensor for name, tensor in weights.items() if name != _BIAS} | {_MEAN: mean}
