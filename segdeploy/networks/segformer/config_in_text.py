"""Reads what mmsegmentation's configuration says of a SegFormer, where it stands as text beside the weights.

Heads, strides and epsilons leave no trace in shapes, and neither does another activation: what is built otherwise is
read, and what is not built is refused. Where a file says none of it, the published values are taken, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segdeploy.errors import CheckpointError
from segdeploy.networks.config_keys import ConfigKeys
from segdeploy.networks.config_text import ConfigText, config_text, preprocessor_of
from segdeploy.networks.family import RawCheckpoint
from segdeploy.networks.nvidia_files import TAO_NORMALISATION, TAO_PIXELS
from segdeploy.networks.weight_names import listed

_SETUP = ("type", "norm_cfg", "init_cfg", "pretrained", "with_cp")
_BACKBONE = ConfigKeys(
    read={
        "embed_dims": 64,
        "num_heads": [1, 2, 4, 8],
        "num_layers": [3, 4, 6, 3],
        "strides": [4, 2, 2, 2],
        "patch_sizes": [7, 3, 3, 3],
        "sr_ratios": [8, 4, 2, 1],
    },
    fixed={
        "in_channels": 3,
        "num_stages": 4,
        "out_indices": [0, 1, 2, 3],
        "qkv_bias": True,
        "act_cfg": {"type": "GELU"},
    },
    unread=(*_SETUP, "mlp_ratio", "drop_rate", "attn_drop_rate", "drop_path_rate", "pretrain_img_size"),
    document="config text",
)
_HEAD = ConfigKeys(
    read={},
    fixed={
        "in_index": [0, 1, 2, 3],
        "act_cfg": {"type": "ReLU"},
        "conv_cfg": None,
        "interpolate_mode": "bilinear",
        "input_transform": "multiple_select",
        "align_corners": False,
    },
    unread=(
        *_SETUP,
        *("in_channels", "channels", "num_classes", "out_channels", "threshold"),  # the weights say them
        *("dropout_ratio", "loss_decode", "ignore_index", "sampler"),
    ),
    document="config text",
)
# NVlabs' code gives the rest no names: its MiT is called by its size, and its head has `decoder_params`.
NVLABS_HEAD_KEYS = ConfigKeys(
    read={},
    fixed={"in_index": [0, 1, 2, 3], "align_corners": False},
    unread=(*_HEAD.unread, "feature_strides", "decoder_params", "conv_cfg", "act_cfg", "input_transform"),
    document="config text",
)
IMAGENET = "mean and std are ImageNet's (--card says others)"
_BATCH_NORMS = ("BN", "SyncBN", "MMSyncBN")
_SAID_BY_WEIGHTS = {"num_layers": "depths", "patch_sizes": "patch_sizes", "sr_ratios": "sr_ratios"}

Facts = dict[str, Any]


def settle_by_text(
    found: RawCheckpoint, inferred: Facts
) -> tuple[Facts, Mapping[str, Any] | None, dict[str, str]]:
    """Give the configuration of the weights' shapes with what the text adds, the preprocessor's facts, and a list of
    what neither says."""
    text = config_text(found.meta, found.source)
    if text is None:
        return without_text(found.layout, inferred)
    model = text.dictionary("model")
    demand_encoder_decoder(model, found.source)
    backbone, head = (part_of(model, name, found.source) for name in ("backbone", "decode_head"))
    preprocessor = preprocessor_of(text)
    if found.layout == "nvlabs":
        if head:
            NVLABS_HEAD_KEYS.complete(demand_keys(head, NVLABS_HEAD_KEYS, found.source), found.source)
        return {}, preprocessor, assumed_for(inferred, preprocessor)
    settled = read_backbone(backbone, inferred, text) if backbone else {}
    if head:
        demand_class(head, "SegformerHead", found.source)
        _HEAD.complete(demand_keys(head, _HEAD, found.source), found.source)
        demand_batch_norm(head, found.source)
        if head.get("out_channels") == 1:
            settled["threshold"] = threshold_of(head, found.source)
    return settled, preprocessor, assumed_for({} if backbone else inferred, preprocessor)


def without_text(layout: str, inferred: Facts) -> tuple[Facts, Mapping[str, Any] | None, dict[str, str]]:
    assumed = assumed_for(inferred, None)
    if layout != "tao":
        return {}, None, assumed
    return {}, TAO_PIXELS, {**assumed, "normalisation": TAO_NORMALISATION}


def demand_encoder_decoder(model: Mapping[str, Any], source: str) -> None:
    kind = str(model.get("type", "EncoderDecoder"))
    if not kind.endswith("EncoderDecoder") or kind.endswith("CascadeEncoderDecoder") or model.get("neck"):
        raise CheckpointError(
            f"the config text of {source} has a model of type {kind:.60}{', with a neck' if model.get('neck') else ''};"
            " expected an EncoderDecoder of a backbone and a head"
        )


def part_of(model: Mapping[str, Any], name: str, source: str) -> Facts:
    part = model.get(name) or {}
    if not isinstance(part, dict):
        raise CheckpointError(
            f"the config text of {source} has {name} = {part!r:.60}; expected a dictionary: a SegFormer has one"
        )
    return part


def demand_class(stated: Facts, kind: str, source: str) -> None:
    found = str(stated.get("type", kind)).rpartition(".")[2]
    if found != kind:
        raise CheckpointError(
            f"the config text of {source} says {found:.60}, and its weights are those of a {kind}; expected both of one"
            " training"
        )


def demand_keys(stated: Facts, keys: ConfigKeys, source: str) -> Facts:
    """Refuse a key that the class does not take: it belongs to a fork, whose function is not known."""
    known = {*keys.read, *keys.fixed, *keys.unread}
    if unknown := [str(key) for key in stated if key not in known]:
        raise CheckpointError(
            f"the config text of {source} gives its {stated.get('type')!s:.60} {listed(unknown)}, which"
            " mmsegmentation's does not take; only its own networks are supported, not those of forks"
        )
    return stated


def read_backbone(stated: Facts, inferred: Facts, text: ConfigText) -> Facts:
    source = text.source
    demand_class(stated, "MixVisionTransformer", source)
    said = _BACKBONE.complete(demand_keys(stated, _BACKBONE, source), source)
    heads, strides = said["num_heads"], said["strides"]
    if len(heads) != len(strides) or len(heads) != len(inferred["hidden_sizes"]):
        raise CheckpointError(
            f"the config text of {source} has num_heads {heads} and strides {strides}, and its weights are of"
            f" {len(inferred['hidden_sizes'])} stages; expected a number for each"
        )
    widths = [said["embed_dims"] * count for count in heads]
    pairs = [("embed_dims × num_heads", widths, inferred["hidden_sizes"])]
    pairs += [(key, said[key], inferred[own]) for key, own in _SAID_BY_WEIGHTS.items()]
    for key, stated_value, there in pairs:
        if stated_value != there:
            raise CheckpointError(
                f"the config text of {source} says {key} {stated_value}, and its weights have {there}; expected both of"
                " one training"
            )
    eps = layer_norm_eps(stated, source)
    return {
        "num_attention_heads": heads,
        "strides": strides,
        "eps": dict.fromkeys(("patch_embed", "block", "sr", "stage"), eps),
    }


def layer_norm_eps(stated: Facts, source: str) -> float:
    norm = stated.get("norm_cfg") or {"type": "LN", "eps": 1e-6}  # the class's own default
    eps = norm.get("eps", 1e-5) if isinstance(norm, dict) else None
    if (
        not isinstance(norm, dict)
        or norm.get("type") != "LN"
        or not isinstance(eps, float)
        or not 0 < eps < 1
    ):
        raise CheckpointError(
            f"the config text of {source} has norm_cfg {norm!r:.80} for its backbone; expected LN with an eps between 0"
            " and 1"
        )
    return eps


def demand_batch_norm(stated: Facts, source: str) -> None:
    norm = stated.get("norm_cfg") or {"type": "BN"}
    if not isinstance(norm, dict) or norm.get("type") not in _BATCH_NORMS or norm.get("eps", 1e-5) != 1e-5:
        raise CheckpointError(
            f"the config text of {source} has norm_cfg {norm!r:.80} for its head; expected"
            f" {' or '.join(_BATCH_NORMS)} with an eps of 1e-05"
        )


def threshold_of(stated: Facts, source: str) -> float:
    """Give the sigmoid above which the one channel of a head for two classes means the second."""
    threshold = stated.get("threshold") or 0.3  # the class's own default
    if stated.get("num_classes") != 2 or not isinstance(threshold, float) or not 0 < threshold < 1:
        raise CheckpointError(
            f"the config text of {source} has a head of one channel with num_classes {stated.get('num_classes')!r:.20}"
            f" and threshold {threshold!r:.20}; expected two classes and a threshold between 0 and 1"
        )
    return threshold


def assumed_for(inferred: Facts, images: Mapping[str, Any] | None) -> dict[str, str]:
    """Say what the file does not, and what was taken for it."""
    found = {}
    if inferred:
        found = {
            "backbone.num_heads": f"num_heads of a MiT is {inferred['num_attention_heads']}",
            "backbone.strides": f"strides of a MiT is {inferred['strides']}",
            "decode_head.align_corners": "align_corners of a SegFormer's head is False",
        }
    if not images or "image_mean" not in images:
        found["normalisation"] = IMAGENET
    if not images or "size" not in images:
        found["size"] = "images are 512x512 (--size says another)"
    return found
