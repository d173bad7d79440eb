"""The backbones inside the Hub's files of other networks: the keys of their configurations, and transformers' names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from segdeploy.errors import CheckpointError
from segdeploy.networks.config_keys import ConfigKeys, demand_few_layers, demand_heads
from segdeploy.networks.weight_names import Table

_STAGES = ["stem", "stage1", "stage2", "stage3", "stage4"]
_STAGES_FIXED = {
    "num_channels": 3,
    "stage_names": _STAGES,
    "out_features": _STAGES[1:],
    "out_indices": [1, 2, 3, 4],
}
BACKBONE_KEYS = {
    "swin": ConfigKeys(
        read={
            "embed_dim": 96,
            "depths": [2, 2, 6, 2],
            "num_heads": [3, 6, 12, 24],
            "window_size": 7,
            "mlp_ratio": 4.0,
            "qkv_bias": True,
            "layer_norm_eps": 1e-5,
        },
        fixed=_STAGES_FIXED
        | {"patch_size": 4, "hidden_act": "gelu", "use_absolute_embeddings": False, "num_layers": 4},
        unread=(
            *("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "initializer_range"),
            *("image_size", "encoder_stride"),  # for absolute positions and masked image modelling only
            "hidden_size",  # transformers computes it from embed_dim
        ),
        aliases={"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"},
    ),
    "resnet": ConfigKeys(
        read={
            "embedding_size": 64,
            "hidden_sizes": [256, 512, 1024, 2048],
            "depths": [3, 4, 6, 3],
            "downsample_in_bottleneck": False,
        },
        fixed=_STAGES_FIXED
        | {"hidden_act": "relu", "layer_type": "bottleneck", "downsample_in_first_stage": False},
        unread=(),
    ),
    "convnext": ConfigKeys(
        read={
            "hidden_sizes": [96, 192, 384, 768],
            "depths": [3, 3, 9, 3],
            "patch_size": 4,
        },
        fixed=_STAGES_FIXED | {"hidden_act": "gelu", "num_stages": 4},
        unread=(
            *("initializer_range", "drop_path_rate", "image_size"),
            "layer_norm_eps",  # of the last norm of a classifier
            "layer_scale_init_value",  # whether there is a scale, the weights say
        ),
        aliases={"num_hidden_layers": "num_stages"},
    ),
}


def complete_backbone(stated: Mapping[str, Any], kinds: Collection[str], source: str) -> dict[str, Any]:
    """Complete a config's `backbone_config` with transformers' defaults; refuses other backbones than `kinds`."""
    backbone = stated.get("backbone_config")
    kind = backbone.get("model_type") if isinstance(backbone, dict) else None
    if not isinstance(backbone, dict) or kind not in kinds:
        raise CheckpointError(
            f"the config.json of {source} has backbone {kind!r:.60}; expected a backbone_config of model_type "
            f"{' or '.join(map(repr, kinds))}"
        )
    keys = BACKBONE_KEYS[str(kind)]
    inner = keys.complete(backbone, source)
    demand_few_layers(inner, ("depths",), source)
    for key, default in keys.read.items():
        if isinstance(default, list) and len(inner[key]) != len(default):
            raise CheckpointError(
                f"the config.json of {source} has {key} {inner[key]!r}; expected {len(default)} whole numbers"
            )
    if kind == "swin":
        sizes = [inner["embed_dim"] << stage for stage in range(4)]
        demand_heads("embed_dim", sizes, inner["num_heads"], source)
    return inner


def backbone_tables(at: str) -> tuple[Table, ...]:
    """Tables to the names of the Hub's files from those that transformers 5 has in memory, for the backbone `at`."""
    return (
        {f"{at}.swin.layernorm.*": (), f"{at}.swin.*": f"{at}.*"},  # the norm is of a classifying Swin
        {
            "{at}attention.q_proj.*": "{at}attention.self.query.*",
            "{at}attention.k_proj.*": "{at}attention.self.key.*",
            "{at}attention.v_proj.*": "{at}attention.self.value.*",
            "{at}attention.o_proj.*": "{at}attention.output.dense.*",
            "{at}attention.relative_position_bias.*": "{at}attention.self.*",
            "{at}mlp.fc1.*": "{at}intermediate.dense.*",
            "{at}mlp.fc2.*": "{at}output.dense.*",
        },
    )
