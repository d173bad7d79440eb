"""Mask2Former's weight names and configuration: what the Hub and the original repository write, in the Hub's words.

The original (facebookresearch/Mask2Former, on detectron2) ships .pkl and .pth files without a configuration: all that
the network needs to know leaves its trace in the weights' shapes. transformers 5 has a third spelling in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from segdeploy.errors import CheckpointError
from segdeploy.networks.mask2former.deformable import LEVELS, POINTS
from segdeploy.networks.mask2former.plain import Mask2former, Mask2formerConfig
from segdeploy.networks.segformer.key_names import Weights, listed

CLASSIFIER = "class_predictor.weight"  # its rows are the classes and one for no object

# What transformers' configurations take for a key that config.json leaves out, where other values are possible …
_DEFAULTS: dict[str, Any] = {
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
}
_BACKBONE_DEFAULTS: dict[str, dict[str, Any]] = {
    "swin": {
        "embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7, "patch_size": 4,
        "mlp_ratio": 4.0, "qkv_bias": True, "layer_norm_eps": 1e-5,
    },
    "resnet": {
        "embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3],
        "downsample_in_bottleneck": False,
    },
}  # fmt: skip
# … and what no published checkpoint has otherwise, which is not built for.
_FIXED: dict[str, Any] = {
    "feature_strides": [4, 8, 16, 32], "common_stride": 4, "activation_function": "relu", "pre_norm": False,
}  # fmt: skip
_BACKBONE_FIXED: dict[str, dict[str, Any]] = {
    "swin": {"patch_size": 4, "num_channels": 3, "hidden_act": "gelu", "use_absolute_embeddings": False},
    "resnet": {
        "num_channels": 3, "hidden_act": "relu", "layer_type": "bottleneck", "downsample_in_first_stage": False,
    },
}  # fmt: skip
_FOUR_STAGES = ["stage1", "stage2", "stage3", "stage4"]

# The weights of a criterion, transformers' index buffer, and the last norm of a Swin that classifies.
_LEFTOVERS = re.compile(r"criterion\.|.*\.relative_position_index$|.*encoder\.swin\.layernorm\.")

_ENCODER, _DECODER = "model.pixel_level_module.encoder", "model.pixel_level_module.decoder"
_TRANSFORMER = "model.transformer_module"
_LAYER = f"{_TRANSFORMER}.decoder.layers.{{b}}"

# {s} stage, {b} block or layer, {i} a place in a list, {leaf} weight, bias, …; several targets share the rows.
_TRANSFORMERS_5: tuple[tuple[str, tuple[str, ...]], ...] = (
    (f"{_ENCODER}.swin.(?P<rest>.*)", (f"{_ENCODER}.{{rest}}",)),
    ("(?P<at>.*)attention.q_proj.{leaf}", ("{at}attention.self.query.{leaf}",)),
    ("(?P<at>.*)attention.k_proj.{leaf}", ("{at}attention.self.key.{leaf}",)),
    ("(?P<at>.*)attention.v_proj.{leaf}", ("{at}attention.self.value.{leaf}",)),
    ("(?P<at>.*)attention.o_proj.{leaf}", ("{at}attention.output.dense.{leaf}",)),
    (
        "(?P<at>.*)attention.relative_position_bias.relative_position_bias_table",
        ("{at}attention.self.relative_position_bias_table",),
    ),
    ("(?P<at>.*)mlp.fc1.{leaf}", ("{at}intermediate.dense.{leaf}",)),
    ("(?P<at>.*)mlp.fc2.{leaf}", ("{at}output.dense.{leaf}",)),
)
_SWIN_BLOCK = f"{_ENCODER}.encoder.layers.{{s}}.blocks.{{b}}"
_SELF = f"{_SWIN_BLOCK}.attention.self"
_RES_BLOCK = f"{_ENCODER}.encoder.stages.{{s}}.layers.{{b}}"
_PIXEL, _PREDICTOR = "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
_PIXEL_LAYER = f"{_PIXEL}.transformer.encoder.layers.{{b}}"
_DETECTRON2: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("backbone.patch_embed.proj.{leaf}", (f"{_ENCODER}.embeddings.patch_embeddings.projection.{{leaf}}",)),
    ("backbone.patch_embed.norm.{leaf}", (f"{_ENCODER}.embeddings.norm.{{leaf}}",)),
    ("backbone.layers.{s}.blocks.{b}.norm1.{leaf}", (f"{_SWIN_BLOCK}.layernorm_before.{{leaf}}",)),
    ("backbone.layers.{s}.blocks.{b}.norm2.{leaf}", (f"{_SWIN_BLOCK}.layernorm_after.{{leaf}}",)),
    (
        "backbone.layers.{s}.blocks.{b}.attn.relative_position_bias_table",
        (f"{_SELF}.relative_position_bias_table",),
    ),
    (
        "backbone.layers.{s}.blocks.{b}.attn.qkv.{leaf}",
        tuple(f"{_SELF}.{part}.{{leaf}}" for part in ("query", "key", "value")),
    ),
    ("backbone.layers.{s}.blocks.{b}.attn.proj.{leaf}", (f"{_SWIN_BLOCK}.attention.output.dense.{{leaf}}",)),
    ("backbone.layers.{s}.blocks.{b}.mlp.fc1.{leaf}", (f"{_SWIN_BLOCK}.intermediate.dense.{{leaf}}",)),
    ("backbone.layers.{s}.blocks.{b}.mlp.fc2.{leaf}", (f"{_SWIN_BLOCK}.output.dense.{{leaf}}",)),
    (
        "backbone.layers.{s}.downsample.(?P<part>norm|reduction).{leaf}",
        (f"{_ENCODER}.encoder.layers.{{s}}.downsample.{{part}}.{{leaf}}",),
    ),
    ("backbone.norm(?P<s0>[0-3]).{leaf}", (f"{_ENCODER}.hidden_states_norms.stage{{s1}}.{{leaf}}",)),
    ("backbone.stem.conv1.weight", (f"{_ENCODER}.embedder.embedder.convolution.weight",)),
    ("backbone.stem.conv1.norm.{leaf}", (f"{_ENCODER}.embedder.embedder.normalization.{{leaf}}",)),
    ("backbone.res{s}.{b}.shortcut.weight", (f"{_RES_BLOCK}.shortcut.convolution.weight",)),
    ("backbone.res{s}.{b}.shortcut.norm.{leaf}", (f"{_RES_BLOCK}.shortcut.normalization.{{leaf}}",)),
    ("backbone.res{s}.{b}.conv{i}.weight", (f"{_RES_BLOCK}.layer.{{i}}.convolution.weight",)),
    ("backbone.res{s}.{b}.conv{i}.norm.{leaf}", (f"{_RES_BLOCK}.layer.{{i}}.normalization.{{leaf}}",)),
    (f"{_PIXEL}.(?P<part>adapter_1|layer_1).weight", (f"{_DECODER}.{{part}}.0.weight",)),
    (f"{_PIXEL}.(?P<part>adapter_1|layer_1).norm.{{leaf}}", (f"{_DECODER}.{{part}}.1.{{leaf}}",)),
    (f"{_PIXEL}.input_proj.(?P<rest>.*)", (f"{_DECODER}.input_projections.{{rest}}",)),
    (f"{_PIXEL}.transformer.level_embed", (f"{_DECODER}.level_embed",)),
    (f"{_PIXEL}.mask_features.{{leaf}}", (f"{_DECODER}.mask_projection.{{leaf}}",)),
    (f"{_PIXEL_LAYER}.self_attn.(?P<rest>.*)", (f"{_DECODER}.encoder.layers.{{b}}.self_attn.{{rest}}",)),
    (f"{_PIXEL_LAYER}.norm1.{{leaf}}", (f"{_DECODER}.encoder.layers.{{b}}.self_attn_layer_norm.{{leaf}}",)),
    (f"{_PIXEL_LAYER}.norm2.{{leaf}}", (f"{_DECODER}.encoder.layers.{{b}}.final_layer_norm.{{leaf}}",)),
    (
        f"{_PIXEL_LAYER}.linear(?P<part>[12]).{{leaf}}",
        (f"{_DECODER}.encoder.layers.{{b}}.fc{{part}}.{{leaf}}",),
    ),
    (f"{_PREDICTOR}.(query_feat|static_query).weight", (f"{_TRANSFORMER}.queries_features.weight",)),
    (f"{_PREDICTOR}.query_embed.weight", (f"{_TRANSFORMER}.queries_embedder.weight",)),
    (f"{_PREDICTOR}.level_embed.weight", (f"{_TRANSFORMER}.level_embed.weight",)),
    (f"{_PREDICTOR}.input_proj.(?P<rest>.*)", (f"{_TRANSFORMER}.input_projections.{{rest}}",)),
    (f"{_PREDICTOR}.decoder_norm.{{leaf}}", (f"{_TRANSFORMER}.decoder.layernorm.{{leaf}}",)),
    (f"{_PREDICTOR}.class_embed.{{leaf}}", ("class_predictor.{leaf}",)),
    (
        f"{_PREDICTOR}.mask_embed.layers.(?P<part>[0-2]).{{leaf}}",
        (f"{_TRANSFORMER}.decoder.mask_predictor.mask_embedder.{{part}}.0.{{leaf}}",),
    ),
    (
        f"{_PREDICTOR}.transformer_self_attention_layers.{{b}}.self_attn.in_proj_(?P<end>weight|bias)",
        tuple(f"{_LAYER}.self_attn.{part}_proj.{{end}}" for part in "qkv"),
    ),
    (
        f"{_PREDICTOR}.transformer_self_attention_layers.{{b}}.self_attn.out_proj.{{leaf}}",
        (f"{_LAYER}.self_attn.out_proj.{{leaf}}",),
    ),
    (
        f"{_PREDICTOR}.transformer_self_attention_layers.{{b}}.norm.{{leaf}}",
        (f"{_LAYER}.self_attn_layer_norm.{{leaf}}",),
    ),
    (
        f"{_PREDICTOR}.transformer_cross_attention_layers.{{b}}.multihead_attn.(?P<rest>.*)",
        (f"{_LAYER}.cross_attn.{{rest}}",),
    ),
    (
        f"{_PREDICTOR}.transformer_cross_attention_layers.{{b}}.norm.{{leaf}}",
        (f"{_LAYER}.cross_attn_layer_norm.{{leaf}}",),
    ),
    (
        f"{_PREDICTOR}.transformer_ffn_layers.{{b}}.linear(?P<part>[12]).{{leaf}}",
        (f"{_LAYER}.fc{{part}}.{{leaf}}",),
    ),
    (f"{_PREDICTOR}.transformer_ffn_layers.{{b}}.norm.{{leaf}}", (f"{_LAYER}.final_layer_norm.{{leaf}}",)),
)

# What else is built of the same parts; the first mark found names it.
_RELATIVES = (
    (
        "an OneFormer",
        re.compile(r"task_mlp\.|text_encoder\.|(model\.)?(task_encoder|text_mapper)\.|.*class_transformer\."),
    ),
    (
        "a MaskFormer (the first version, without deformable and masked attention)",
        re.compile(r"mask_embedder\.|model\.transformer_module\.queries_embedder|sem_seg_head\.predictor\."),
    ),
)
_MARKS = {
    "hub": re.compile(
        r"model\.pixel_level_module\.decoder\.encoder\.layers\.0\.self_attn\.sampling_offsets\."
    ),
    "detectron2": re.compile(
        r"sem_seg_head\.pixel_decoder\.transformer\.encoder\.layers\.0\.self_attn\.sampling_offsets\."
    ),
}
_DECODER_MARKS = re.compile(
    r"(model\.transformer_module\.decoder\.layers\.0\.cross_attn|sem_seg_head\.predictor\.transformer_cross_attention)"
)


def find_layout(names: Iterable[str], source: str) -> str | None:
    """`hub` or `detectron2`; nothing for another kind of network, a refusal for its relatives."""
    names = list(names)
    for layout, mark in _MARKS.items():
        whole = any(mark.match(name) for name in names) and any(map(_DECODER_MARKS.match, names))
        if whole and not any(map(_RELATIVES[0][1].match, names)):
            return layout
    for what, mark in _RELATIVES:
        found = dict.fromkeys(match[0] for name in names if (match := mark.match(name)))
        if found:
            raise CheckpointError(
                f"{source} is {what}: its keys start with {listed(found, 3)}; expected a Mask2Former or a SegFormer"
            )
    return None


def to_hub_names(weights: Mapping[str, torch.Tensor], layout: str) -> Weights:
    """The same network in the Hub's names; an unknown name stays as it is, for `check_weights` to refuse."""
    used = {name: tensor for name, tensor in weights.items() if not _LEFTOVERS.match(name)}
    if layout == "detectron2":
        return _rename(used, _DETECTRON2)
    # transformers' own renaming is of parts of names, one after the other
    first, *rest = _TRANSFORMERS_5
    return _rename(_rename(used, (first,)), tuple(rest))


def _rename(weights: Mapping[str, torch.Tensor], table: Sequence[tuple[str, tuple[str, ...]]]) -> Weights:
    rules = [(_pattern(old), new) for old, new in table]
    renamed: Weights = {}
    for name, tensor in weights.items():
        match, targets = next(
            ((m, new) for rule, new in rules if (m := rule.fullmatch(name))), (None, (name,))
        )
        parts = match.groupdict() if match else {}
        if name.startswith("backbone.res"):  # counted from res2, conv1
            parts |= {
                key: str(int(parts[key]) - less) for key, less in (("s", 2), ("i", 1)) if parts.get(key)
            }
        if "s0" in parts:
            parts["s1"] = str(int(parts["s0"]) + 1)
        for target, rows in zip(targets, tensor.chunk(len(targets)), strict=True) if targets else ():
            # a copy, or the parts of one tensor would share storage, which safetensors will not save
            renamed[target.format(**parts) if match else name] = rows.clone() if len(targets) > 1 else tensor
    return renamed


def _pattern(name: str) -> re.Pattern[str]:
    text = re.sub(r"\.(?![*+])", r"\\.", name)
    for field, regex in (("s", r"\d"), ("b", r"\d+"), ("i", r"\d"), ("leaf", r"\w+")):
        text = text.replace("{" + field + "}", f"(?P<{field}>{regex})")
    return re.compile(text)


def infer_config(weights: Mapping[str, torch.Tensor], source: str = "the checkpoint") -> dict[str, Any]:
    """The Hub-style config that the shapes of `weights` (in the Hub's names) speak of."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights:
            raise CheckpointError(f"{source} lacks {name}; expected every weight of a Mask2Former")
        return tuple(weights[name].shape)

    def count(prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})

    pixel = f"{_DECODER}.encoder.layers."
    layers = f"{_TRANSFORMER}.decoder.layers."
    queries, hidden = shape(f"{_TRANSFORMER}.queries_features.weight")
    feature = shape(f"{_DECODER}.level_embed")[1]
    return {
        "model_type": "mask2former",
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "num_queries": queries,
        "hidden_dim": hidden,
        "feature_size": feature,
        "mask_feature_size": shape(f"{_DECODER}.mask_projection.weight")[0],
        "num_attention_heads": shape(f"{pixel}0.self_attn.sampling_offsets.bias")[0] // (LEVELS * POINTS * 2),
        "encoder_layers": count(pixel),
        "encoder_feedforward_dim": shape(f"{pixel}0.fc1.bias")[0],
        "decoder_layers": count(layers) + 1,
        "dim_feedforward": shape(f"{layers}0.fc1.bias")[0],
        "enforce_input_projection": feature == hidden
        and f"{_TRANSFORMER}.input_projections.0.weight" in weights,
        "backbone_config": _infer_backbone(shape, count, weights),
    }


def _infer_backbone(shape: Any, count: Any, weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    if f"{_ENCODER}.embedder.embedder.convolution.weight" in weights:
        stages = f"{_ENCODER}.encoder.stages."
        last = "layers.0.layer.2.convolution.weight"
        return {
            "model_type": "resnet",
            "embedding_size": shape(f"{_ENCODER}.embedder.embedder.convolution.weight")[0],
            "hidden_sizes": [shape(f"{stages}{s}.{last}")[0] for s in range(count(stages))],
            "depths": [count(f"{stages}{s}.layers.") for s in range(count(stages))],
        }
    layers = f"{_ENCODER}.encoder.layers."
    block = f"{layers}{{}}.blocks.0"
    tables = [
        shape(f"{block.format(s)}.attention.self.relative_position_bias_table") for s in range(count(layers))
    ]
    size = shape(f"{_ENCODER}.embeddings.norm.weight")[0]
    return {
        "model_type": "swin",
        "embed_dim": size,
        "depths": [count(f"{layers}{s}.blocks.") for s in range(count(layers))],
        "num_heads": [table[1] for table in tables],
        "window_size": (round(tables[0][0] ** 0.5) + 1) // 2,
        "mlp_ratio": shape(f"{block.format(0)}.intermediate.dense.bias")[0] / size,
        "qkv_bias": f"{block.format(0)}.attention.self.query.bias" in weights,
    }


def complete_config(stated: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A config with transformers' defaults for what it leaves out; refused if it asks for what is not built."""
    backbone = stated.get("backbone_config")
    kind = backbone.get("model_type") if isinstance(backbone, dict) else None
    if not isinstance(backbone, dict) or kind not in _BACKBONE_DEFAULTS:
        raise CheckpointError(
            f"the config.json of {source} has backbone {kind!r}; expected a backbone_config of model_type "
            f"{' or '.join(map(repr, _BACKBONE_DEFAULTS))}"
        )
    backbone = _checked(_BACKBONE_DEFAULTS[kind], _BACKBONE_FIXED[kind], backbone, source)
    if backbone.get("out_features", _FOUR_STAGES) != _FOUR_STAGES or len(backbone["depths"]) != 4:
        raise CheckpointError(
            f"the backbone of {source} gives {backbone.get('out_features')} of {len(backbone['depths'])} stages; "
            f"expected {', '.join(_FOUR_STAGES)}"
        )
    config = _checked(_DEFAULTS, _FIXED, stated, source) | {"backbone_config": backbone}
    if config["num_queries"] < 1:
        raise CheckpointError(
            f"{source} has {config['num_queries']} queries; expected at least 1, usually 100"
        )
    for key in ("hidden_dim", "feature_size"):
        if config[key] % 4 or config[key] % config["num_attention_heads"]:
            raise CheckpointError(
                f"the config.json of {source} has {key} {config[key]}; expected a multiple of 4 and of its "
                f"{config['num_attention_heads']} heads"
            )
    if config["decoder_layers"] < 2:
        raise CheckpointError(f"{source} has decoder_layers {config['decoder_layers']}; expected 2 or more")
    return config


def _checked(
    defaults: Mapping[str, Any], fixed: Mapping[str, Any], stated: Mapping[str, Any], source: str
) -> dict[str, Any]:
    for key, wanted in fixed.items():
        found = stated.get(key, wanted)
        if found != wanted and not (isinstance(wanted, list) and list(found) == wanted):
            raise CheckpointError(
                f"the config.json of {source} has {key} {found!r}; only {wanted!r}, which every published "
                "Mask2Former has, is supported"
            )
    config = {**defaults, **stated}
    for key, default in defaults.items():
        value = config[key]
        if isinstance(default, bool):
            fits, words = isinstance(value, bool), "true or false"
        elif isinstance(default, list):
            fits = isinstance(value, list) and len(value) == len(default) and all(map(_is_whole, value))
            words = f"{len(default)} whole numbers"
        else:
            whole = isinstance(default, int)
            fits = _is_whole(value) if whole else isinstance(value, int | float) and value > 0
            words = "a whole number" if whole else "a number above 0"
        if not fits:
            raise CheckpointError(f"the config.json of {source} has {key} {value!r}; expected {words}")
    return config


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every weight, in the Hub's names, of the network that `config` describes."""
    labels = config.get("id2label") or dict.fromkeys(range(config["num_labels"]))
    with torch.device("meta"):
        network = Mask2former(Mask2formerConfig.from_hub({**config, "id2label": labels}))
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


# ---- what it was trained for -----------------------------------------------------------------------------------

_CITYSCAPES_THINGS = {"person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"}
_ONLY_COCO = {"toothbrush", "teddy bear", "hair drier"}


def task_of(source: str, config: Mapping[str, Any]) -> str:
    """`semantic`, `panoptic` or `instance`: no file says it, but published names and label sets do."""
    known_as = f"{source} {config.get('_name_or_path', '')}".lower()
    for task in ("panoptic", "instance"):
        if re.search(rf"(?<![a-z]){task}(?![a-z])", known_as):
            return task
    labels = {str(label).strip().lower() for label in (config.get("id2label") or {}).values()}
    if labels == _CITYSCAPES_THINGS:
        return "instance"
    if labels >= _ONLY_COCO:
        return "instance" if len(labels) <= 80 else "panoptic" if len(labels) <= 133 else "semantic"
    return "semantic"
