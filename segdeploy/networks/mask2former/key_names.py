"""Reads Mask2Former's checkpoints from the Hub and the original repository, under the Hub's names.

The original (facebookresearch/Mask2Former, on detectron2) ships .pkl and .pth files without a configuration, which is
inferred from the weights' shapes. transformers 5 uses a third set of names in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segdeploy.errors import CheckpointError
from segdeploy.networks.backbones.hub_keys import backbone_tables, complete_backbone
from segdeploy.networks.config_keys import ConfigKeys, demand_few_layers
from segdeploy.networks.family import HUB, RawCheckpoint, ReadCheckpoint, Weights
from segdeploy.networks.mask2former.deformable import LEVELS, POINTS
from segdeploy.networks.mask2former.plain import GROUPS
from segdeploy.networks.universal import demand_semantic
from segdeploy.networks.weight_names import Shapes, Table, renamed, under

CLASSIFIER = "class_predictor.weight"  # its rows are the classes, and one for "no object"
TITLE = "a Mask2Former"

CONFIG_KEYS = ConfigKeys(
    read={
        "num_queries": 100,
        "hidden_dim": 256,
        "feature_size": 256,
        "mask_feature_size": 256,
        "num_attention_heads": 8,
        "encoder_layers": 6,
        "encoder_feedforward_dim": 1024,
        "decoder_layers": 10,
        "dim_feedforward": 2048,
        "enforce_input_projection": False,
    },
    fixed={
        "feature_strides": [4, 8, 16, 32],
        "common_stride": 4,
        "activation_function": "relu",
        "pre_norm": False,
    },
    unread=(
        *("dropout", "ignore_value", "no_object_weight", "class_weight", "mask_weight", "dice_weight"),
        *("train_num_points", "oversample_ratio", "importance_sample_ratio", "init_std", "init_xavier_std"),
        *("use_auxiliary_loss", "output_auxiliary_logits"),
        "backbone_config",  # has its own keys, below
    ),
    aliases={"hidden_size": "hidden_dim", "num_hidden_layers": "decoder_layers"},
)
_ENCODER, _DECODER = "model.pixel_level_module.encoder", "model.pixel_level_module.decoder"
_TRANSFORMER = "model.transformer_module"
_SWIN_LAYER, _RESNET_LAYER = (
    f"{_ENCODER}.encoder.layers.{{s}}",
    f"{_ENCODER}.encoder.stages.{{s}}.layers.{{b}}",
)

# A criterion's weights, and an index buffer.
_LEFTOVERS: Table = {"criterion.*": (), "{at}.relative_position_index": ()}
_DETECTRON2: Table = {
    **under("backbone.patch_embed", f"{_ENCODER}.embeddings", {
        "proj.*": "patch_embeddings.projection.*",
        "norm.*": "norm.*",
    }),
    **under("backbone.layers.{s}", _SWIN_LAYER, {
        "blocks.{b}.norm1.*": "blocks.{b}.layernorm_before.*",
        "blocks.{b}.norm2.*": "blocks.{b}.layernorm_after.*",
        "blocks.{b}.attn.relative_position_bias_table": "blocks.{b}.attention.self.relative_position_bias_table",
        "blocks.{b}.attn.qkv.*": tuple(f"blocks.{{b}}.attention.self.{part}.*" for part in ("query", "key", "value")),
        "blocks.{b}.attn.proj.*": "blocks.{b}.attention.output.dense.*",
        "blocks.{b}.mlp.fc1.*": "blocks.{b}.intermediate.dense.*",
        "blocks.{b}.mlp.fc2.*": "blocks.{b}.output.dense.*",
        "downsample.*": "downsample.*",
    }),
    "backbone.norm{s-1}.*": f"{_ENCODER}.hidden_states_norms.stage{{s}}.*",
    **under("backbone.stem.conv1", f"{_ENCODER}.embedder.embedder", {
        "weight": "convolution.weight",
        "norm.*": "normalization.*",
    }),
    **under("backbone.res{s+2}.{b}", _RESNET_LAYER, {
        "shortcut.weight": "shortcut.convolution.weight",
        "shortcut.norm.*": "shortcut.normalization.*",
        "conv{i+1}.weight": "layer.{i}.convolution.weight",
        "conv{i+1}.norm.*": "layer.{i}.normalization.*",
    }),
    **under("sem_seg_head.pixel_decoder", _DECODER, {
        "adapter_1.weight": "adapter_1.0.weight",
        "adapter_1.norm.*": "adapter_1.1.*",
        "layer_1.weight": "layer_1.0.weight",
        "layer_1.norm.*": "layer_1.1.*",
        "input_proj.*": "input_projections.*",
        "transformer.level_embed": "level_embed",
        "mask_features.*": "mask_projection.*",
        "transformer.encoder.layers.{b}.self_attn.*": "encoder.layers.{b}.self_attn.*",
        "transformer.encoder.layers.{b}.norm1.*": "encoder.layers.{b}.self_attn_layer_norm.*",
        "transformer.encoder.layers.{b}.norm2.*": "encoder.layers.{b}.final_layer_norm.*",
        "transformer.encoder.layers.{b}.linear{i}.*": "encoder.layers.{b}.fc{i}.*",
    }),
    **under("sem_seg_head.predictor", _TRANSFORMER, {
        "query_feat.weight": "queries_features.weight",
        "static_query.weight": "queries_features.weight",
        "query_embed.weight": "queries_embedder.weight",
        "level_embed.weight": "level_embed.weight",
        "input_proj.*": "input_projections.*",
        "decoder_norm.*": "decoder.layernorm.*",
        "mask_embed.layers.{i}.*": "decoder.mask_predictor.mask_embedder.{i}.0.*",
    }),
    **under("sem_seg_head.predictor", f"{_TRANSFORMER}.decoder.layers.{{b}}", {
        "transformer_self_attention_layers.{b}.self_attn.in_proj_*": tuple(f"self_attn.{q}_proj.*" for q in "qkv"),
        "transformer_self_attention_layers.{b}.self_attn.out_proj.*": "self_attn.out_proj.*",
        "transformer_self_attention_layers.{b}.norm.*": "self_attn_layer_norm.*",
        "transformer_cross_attention_layers.{b}.multihead_attn.*": "cross_attn.*",
        "transformer_cross_attention_layers.{b}.norm.*": "cross_attn_layer_norm.*",
        "transformer_ffn_layers.{b}.linear{i}.*": "fc{i}.*",
        "transformer_ffn_layers.{b}.norm.*": "final_layer_norm.*",
    }),
    "sem_seg_head.predictor.class_embed.*": "class_predictor.*",
}  # fmt: skip


def read_mask2former(found: RawCheckpoint) -> ReadCheckpoint:
    named = rename_mask2former(found.weights, found.layout, found.source)
    stated = infer_mask2former(named, found.source) if found.config is None else found.config
    config = complete_mask2former(stated, found.source)
    if not found.options["any_task"]:
        demand_semantic(config, found.source)
    return ReadCheckpoint(config, named, Shapes(named, found.source, TITLE).of(CLASSIFIER, 2)[0] - 1)


def rename_mask2former(weights: Weights, layout: str, source: str) -> Weights:
    """Give the weights under the Hub's names."""
    for table in (_LEFTOVERS, *(backbone_tables(_ENCODER) if layout == HUB else (_DETECTRON2,))):
        weights = renamed(weights, table, source)
    return weights


def infer_mask2former(weights: Weights, source: str = "the checkpoint") -> dict[str, Any]:
    """Infer a Hub-style config from the shapes of `weights`, which have the Hub's names."""
    shapes = Shapes(weights, source, TITLE)
    pixel, layers = f"{_DECODER}.encoder.layers.", f"{_TRANSFORMER}.decoder.layers."
    queries, hidden = shapes.of(f"{_TRANSFORMER}.queries_features.weight", 2)
    feature = shapes.of(f"{_DECODER}.level_embed", 2)[1]
    offsets = shapes.of(f"{pixel}0.self_attn.sampling_offsets.bias", 1)[0]
    is_resnet = f"{_ENCODER}.embedder.embedder.convolution.weight" in weights
    return {
        "model_type": "mask2former",
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "num_queries": queries,
        "hidden_dim": hidden,
        "feature_size": feature,
        "mask_feature_size": shapes.of(f"{_DECODER}.mask_projection.weight", 4)[0],
        "num_attention_heads": offsets // (LEVELS * POINTS * 2),
        "encoder_layers": shapes.count(pixel),
        "encoder_feedforward_dim": shapes.of(f"{pixel}0.fc1.bias", 1)[0],
        "decoder_layers": shapes.count(layers) + 1,
        "dim_feedforward": shapes.of(f"{layers}0.fc1.bias", 1)[0],
        "enforce_input_projection": feature == hidden
        and f"{_TRANSFORMER}.input_projections.0.weight" in weights,
        "backbone_config": infer_resnet(shapes) if is_resnet else infer_swin(shapes),
    }


def infer_resnet(shapes: Shapes) -> dict[str, Any]:
    stages = f"{_ENCODER}.encoder.stages."
    counted = range(shapes.count(stages))
    last = "layers.0.layer.2.convolution.weight"
    return {
        "model_type": "resnet",
        "embedding_size": shapes.of(f"{_ENCODER}.embedder.embedder.convolution.weight", 4)[0],
        "hidden_sizes": [shapes.of(f"{stages}{s}.{last}", 4)[0] for s in counted],
        "depths": [shapes.count(f"{stages}{s}.layers.") for s in counted],
    }


def infer_swin(shapes: Shapes) -> dict[str, Any]:
    layers = f"{_ENCODER}.encoder.layers."
    counted = range(max(1, shapes.count(layers)))
    bias = "blocks.0.attention.self.relative_position_bias_table"
    tables = [shapes.of(f"{layers}{s}.{bias}", 2) for s in counted]
    size = shapes.of(f"{_ENCODER}.embeddings.norm.weight", 1)[0]
    return {
        "model_type": "swin",
        "embed_dim": size,
        "depths": [shapes.count(f"{layers}{s}.blocks.") for s in counted],
        "num_heads": [table[1] for table in tables],
        "window_size": (round(tables[0][0] ** 0.5) + 1) // 2,
        "mlp_ratio": shapes.of(f"{layers}0.blocks.0.intermediate.dense.bias", 1)[0] / max(size, 1),
        "qkv_bias": f"{layers}0.blocks.0.attention.self.query.bias" in shapes.weights,
    }


def complete_mask2former(stated: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Complete a config with transformers' defaults; refuses values for which no network is built."""
    inner = complete_backbone(stated, ("swin", "resnet"), source)
    config = CONFIG_KEYS.complete(stated, source) | {"backbone_config": inner}
    for key, least in (("hidden_dim", 4), ("feature_size", GROUPS)):
        if config[key] % least or config[key] % config["num_attention_heads"]:
            raise CheckpointError(
                f"the config.json of {source} has {key} {config[key]}; expected a multiple of {least} and of its "
                f"{config['num_attention_heads']} heads"
            )
    demand_few_layers(config, ("encoder_layers", "decoder_layers"), source)
    if config["decoder_layers"] < 2:
        raise CheckpointError(f"{source} has decoder_layers {config['decoder_layers']}; expected 2 or more")
    return config
