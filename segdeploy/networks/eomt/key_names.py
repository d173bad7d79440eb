"""Reads EoMT's checkpoints from the Hub: the names of their weights, and their configurations, of two backbones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from segdeploy.errors import CheckpointError
from segdeploy.networks.config_keys import ConfigKeys, demand_few_layers
from segdeploy.networks.family import RawCheckpoint, ReadCheckpoint, Weights
from segdeploy.networks.universal import demand_semantic
from segdeploy.networks.weight_names import Shapes, Table, renamed

TITLE = "an EoMT"
_READ = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "layer_norm_eps": 1e-6,
    "image_size": 640,
    "patch_size": 16,
    "num_upscale_blocks": 2,
    "num_blocks": 4,
    "num_queries": 200,
    "num_register_tokens": 4,
}
_FIXED = {"hidden_act": "gelu", "num_channels": 3}
_UNREAD = (
    *("hidden_dropout_prob", "initializer_range", "layerscale_value", "drop_path_rate", "attention_dropout"),
    *("no_object_weight", "class_weight", "mask_weight", "dice_weight"),
    *("train_num_points", "oversample_ratio", "importance_sample_ratio"),
)
CONFIG_KEYS = {
    "eomt": ConfigKeys(
        read={**_READ, "mlp_ratio": 4}, fixed={**_FIXED, "use_swiglu_ffn": False}, unread=_UNREAD
    ),
    "eomt_dinov3": ConfigKeys(
        read={
            **_READ,
            "intermediate_size": 4096,
            "query_bias": True,
            "key_bias": False,
            "value_bias": True,
            "proj_bias": True,
            "mlp_bias": True,
            "rope_parameters": None,
        },
        fixed={**_FIXED, "use_gated_mlp": False},
        unread=(*_UNREAD, "pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"),
    ),
}
_MOST_UPSCALES = 4  # each doubles both sides of the masks; published networks have 2
_THETA = 100.0  # transformers' default for DINOv3

# DINOv3's layers have other names than DINOv2's.
_NAMES: Table = {
    "criterion.*": (),
    "embeddings.patch_embeddings.projection.*": "embeddings.patch_embeddings.*",
    "{at}.attention.o_proj.*": "{at}.attention.out_proj.*",
    "layers.{i}.mlp.fc1.*": "layers.{i}.mlp.up_proj.*",
    "layers.{i}.mlp.fc2.*": "layers.{i}.mlp.down_proj.*",
}


def read_eomt(found: RawCheckpoint) -> ReadCheckpoint:
    if found.config is None:
        raise CheckpointError(
            f"{found.source} is an EoMT without its config.json, which says how many attention heads and blocks with"
            " queries there are; put it beside the weights"
        )
    named = renamed(found.weights, _NAMES, found.source)
    config = complete_eomt(found.config, found.source)
    if not found.options["any_task"]:
        demand_semantic(config, found.source)
    demand_certain(named, found.source)
    assumed = {}
    if "attn_mask_probs" not in named:
        named["attn_mask_probs"] = torch.ones(config["num_blocks"])
        assumed["masks"] = (
            "in its last blocks, queries look within their masks (attn_mask_probs is 1, as transformers takes it)"
        )
    classes = Shapes(named, found.source, TITLE).of("class_predictor.weight", 2)[0] - 1
    return ReadCheckpoint(config, named, classes, assumed=assumed)


def complete_eomt(stated: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Complete a config with transformers' defaults; refuses values for which no network is built."""
    config = CONFIG_KEYS[stated["model_type"]].complete(stated, source)
    demand_few_layers(config, ("num_hidden_layers",), source)
    size, heads, depth = (config[key] for key in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    least = 4 if stated["model_type"] == "eomt_dinov3" else 1  # rows and columns turn pairs of entries
    for key, fits, wanted in (
        (
            "hidden_size",
            size % (heads * least) == 0,
            f"a multiple of its {heads} heads" + f" times {least}" * (least > 1),
        ),
        ("num_upscale_blocks", config["num_upscale_blocks"] <= _MOST_UPSCALES, f"at most {_MOST_UPSCALES}"),
        ("num_blocks", config["num_blocks"] <= depth, f"at most its {depth} layers"),
        (
            "image_size",
            config["image_size"] % config["patch_size"] == 0,
            f"a multiple of {config['patch_size']}",
        ),
    ):
        if not fits:
            raise CheckpointError(f"the config.json of {source} has {key} {config[key]}; expected {wanted}")
    if "rope_parameters" in config:
        config["rope_parameters"] = turning_facts(config, source)
    return config


def turning_facts(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Give the base of DINOv3's angles, which older files have as a key of its own."""
    stated = config["rope_parameters"] or {}
    theta = stated.get("rope_theta", config.get("rope_theta", _THETA)) if isinstance(stated, dict) else None
    plain = isinstance(theta, int | float) and not isinstance(theta, bool) and 1 < theta <= 1e9
    if not plain or stated.get("rope_type", "default") != "default":
        raise CheckpointError(
            f"the config.json of {source} has rope_parameters {stated!r:.80}; expected the rope_type 'default' and a"
            " rope_theta above 1"
        )
    return {"rope_type": "default", "rope_theta": theta}


def demand_certain(weights: Weights, source: str) -> None:
    """Refuse masks that are used by chance, as in the middle of a training."""
    found = weights.get("attn_mask_probs")
    shares = [] if found is None else found.flatten().tolist()
    if any(share not in (0, 1) for share in shares):
        raise CheckpointError(
            f"{source} has attn_mask_probs {', '.join(f'{share:.3g}' for share in shares[:8])}: in the middle of its"
            " training, queries keep to their masks by chance; expected 0 or 1, as at its end and its beginning"
        )
