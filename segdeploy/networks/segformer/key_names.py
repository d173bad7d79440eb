"""Reads SegFormer's checkpoints: brings every published set of weight names to the Hub's, and reads the configuration.

We use the Hub's names because most public checkpoints have them. Four other sets exist: NVlabs/SegFormer (the paper's
code; TAO up to version 5 has its names too), TAO 6 (the same backbone with a `decoder`), open-mmlab/mmsegmentation (a
rewrite) and transformers 5 in memory.
mmsegmentation's head is also another network: each stage is projected by conv + BatchNorm + ReLU *before* the
upsampling (mmseg/models/decode_heads/segformer_head.py), where the paper has one linear layer. The BatchNorm
folds exactly into the projection; the ReLU stays, and `config["head_activation"] == "relu"` says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from segdeploy.errors import CheckpointError
from segdeploy.networks.config_keys import ConfigKeys, demand_few_layers, demand_heads
from segdeploy.networks.family import HUB, RawCheckpoint, ReadCheckpoint, Weights
from segdeploy.networks.folding import affine_of
from segdeploy.networks.nvidia_files import NVLABS_HEAD, TAO_HEAD, with_bias_in_mean
from segdeploy.networks.segformer.config_in_text import settle_by_text
from segdeploy.networks.weight_names import Shapes, Table, listed, renamed

CLASSIFIER = "decode_head.classifier.weight"
COUNTER = "decode_head.batch_norm.num_batches_tracked"

# LayerNorm's epsilon by layout, as the code that trained or runs each layout builds it:
#   hub     transformers' modules never pass config.layer_norm_eps on, so every LayerNorm has PyTorch's 1e-5
#   nvlabs  mix_transformer.py: partial(LayerNorm, eps=1e-6) for blocks and stages, a bare LayerNorm elsewhere
#   tao     its mit.py is made of the same lines
#   mmseg   mit.py hands norm_cfg=dict(type='LN', eps=1e-6) to all four
EPS: dict[str, dict[str, float]] = {
    HUB: {"patch_embed": 1e-5, "block": 1e-5, "sr": 1e-5, "stage": 1e-5},
    "nvlabs": {"patch_embed": 1e-5, "block": 1e-6, "sr": 1e-5, "stage": 1e-6},
    "tao": {"patch_embed": 1e-5, "block": 1e-6, "sr": 1e-5, "stage": 1e-6},
    "mmseg": {"patch_embed": 1e-6, "block": 1e-6, "sr": 1e-6, "stage": 1e-6},
}
_BATCH_NORM_EPS = 1e-5  # BatchNorm's default; none of the layouts changes it

CONFIG_KEYS = ConfigKeys(
    read={
        "num_encoder_blocks": 4,
        "depths": [2, 2, 2, 2],
        "sr_ratios": [8, 4, 2, 1],
        "hidden_sizes": [32, 64, 160, 256],
        "patch_sizes": [7, 3, 3, 3],
        "strides": [4, 2, 2, 2],
        "num_attention_heads": [1, 2, 5, 8],
        "mlp_ratios": [4.0, 4.0, 4.0, 4.0],
        "decoder_hidden_size": 256,
    },
    fixed={"num_channels": 3, "hidden_act": "gelu", "reshape_last_stage": True},
    unread=(
        "layer_norm_eps",  # transformers' modules do not pass it on: see EPS
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout_prob",
        "drop_path_rate",
        "initializer_range",
        "semantic_loss_ignore_index",
    ),
    aliases={"num_hidden_layers": "num_encoder_blocks"},
)

_PATCH, _BLOCK = "segformer.encoder.patch_embeddings.{s}", "segformer.encoder.block.{s}.{b}"
_SELF = _BLOCK + ".attention.self"
_QUERY, _KEY, _VALUE = f"{_SELF}.query.*", f"{_SELF}.key.*", f"{_SELF}.value.*"
_NVLABS: Table = {
    "backbone.patch_embed{s+1}.proj.*": f"{_PATCH}.proj.*",
    "backbone.patch_embed{s+1}.norm.*": f"{_PATCH}.layer_norm.*",
    "backbone.block{s+1}.{b}.norm1.*": f"{_BLOCK}.layer_norm_1.*",
    "backbone.block{s+1}.{b}.attn.q.*": _QUERY,
    "backbone.block{s+1}.{b}.attn.kv.*": (_KEY, _VALUE),
    "backbone.block{s+1}.{b}.attn.proj.*": f"{_BLOCK}.attention.output.dense.*",
    "backbone.block{s+1}.{b}.attn.sr.*": f"{_SELF}.sr.*",
    "backbone.block{s+1}.{b}.attn.norm.*": f"{_SELF}.layer_norm.*",
    "backbone.block{s+1}.{b}.norm2.*": f"{_BLOCK}.layer_norm_2.*",
    "backbone.block{s+1}.{b}.mlp.fc1.*": f"{_BLOCK}.mlp.dense1.*",
    "backbone.block{s+1}.{b}.mlp.dwconv.dwconv.*": f"{_BLOCK}.mlp.dwconv.dwconv.*",
    "backbone.block{s+1}.{b}.mlp.fc2.*": f"{_BLOCK}.mlp.dense2.*",
    "backbone.norm{s+1}.*": "segformer.encoder.layer_norm.{s}.*",
}
_MMSEG: Table = {
    "backbone.layers.{s}.0.projection.*": f"{_PATCH}.proj.*",
    "backbone.layers.{s}.0.norm.*": f"{_PATCH}.layer_norm.*",
    "backbone.layers.{s}.1.{b}.norm1.*": f"{_BLOCK}.layer_norm_1.*",
    "backbone.layers.{s}.1.{b}.attn.attn.in_proj_*": (_QUERY, _KEY, _VALUE),
    "backbone.layers.{s}.1.{b}.attn.attn.out_proj.*": f"{_BLOCK}.attention.output.dense.*",
    "backbone.layers.{s}.1.{b}.attn.sr.*": f"{_SELF}.sr.*",
    "backbone.layers.{s}.1.{b}.attn.norm.*": f"{_SELF}.layer_norm.*",
    "backbone.layers.{s}.1.{b}.norm2.*": f"{_BLOCK}.layer_norm_2.*",
    "backbone.layers.{s}.1.{b}.ffn.layers.0.*": f"{_BLOCK}.mlp.dense1.*",
    "backbone.layers.{s}.1.{b}.ffn.layers.1.*": f"{_BLOCK}.mlp.dwconv.dwconv.*",
    "backbone.layers.{s}.1.{b}.ffn.layers.4.*": f"{_BLOCK}.mlp.dense2.*",
    "backbone.layers.{s}.2.*": "segformer.encoder.layer_norm.{s}.*",
    "decode_head.fusion_conv.conv.*": "decode_head.linear_fuse.*",
    "decode_head.fusion_conv.bn.*": "decode_head.batch_norm.*",
    "decode_head.conv_seg.*": "decode_head.classifier.*",
}
# What `model.state_dict()` gives under transformers 5; its save_pretrained still writes the Hub's names.
_TRANSFORMERS_5: Table = {
    "segformer.stages.{s}.patch_embeddings.proj.*": f"{_PATCH}.proj.*",
    "segformer.stages.{s}.patch_embeddings.layer_norm.*": f"{_PATCH}.layer_norm.*",
    "segformer.stages.{s}.blocks.{b}.layernorm_before.*": f"{_BLOCK}.layer_norm_1.*",
    "segformer.stages.{s}.blocks.{b}.attention.q_proj.*": _QUERY,
    "segformer.stages.{s}.blocks.{b}.attention.k_proj.*": _KEY,
    "segformer.stages.{s}.blocks.{b}.attention.v_proj.*": _VALUE,
    "segformer.stages.{s}.blocks.{b}.attention.o_proj.*": f"{_BLOCK}.attention.output.dense.*",
    "segformer.stages.{s}.blocks.{b}.attention.sequence_reduction.sequence_reduction.*": f"{_SELF}.sr.*",
    "segformer.stages.{s}.blocks.{b}.attention.sequence_reduction.layer_norm.*": f"{_SELF}.layer_norm.*",
    "segformer.stages.{s}.blocks.{b}.layernorm_after.*": f"{_BLOCK}.layer_norm_2.*",
    "segformer.stages.{s}.blocks.{b}.mlp.fc1.*": f"{_BLOCK}.mlp.dense1.*",
    "segformer.stages.{s}.blocks.{b}.mlp.dwconv.dwconv.*": f"{_BLOCK}.mlp.dwconv.dwconv.*",
    "segformer.stages.{s}.blocks.{b}.mlp.fc2.*": f"{_BLOCK}.mlp.dense2.*",
    "segformer.stages.{s}.layer_norm.*": "segformer.encoder.layer_norm.{s}.*",
    "decode_head.linear_projections.{s}.proj.*": "decode_head.linear_c.{s}.proj.*",
}
_HEADS = {"nvlabs": NVLABS_HEAD, "tao": TAO_HEAD}


def read_segformer(found: RawCheckpoint) -> ReadCheckpoint:
    named = rename_segformer(found.weights, found.layout, found.source)
    stated = found.config
    config = (
        infer_segformer(named, found.source) if stated is None else complete_segformer(stated, found.source)
    )
    preprocessor: Mapping[str, Any] | None = None
    assumed: dict[str, str] = {}
    if found.layout != HUB:
        settled, preprocessor, assumed = settle_by_text(found, config)
        config |= settled
    config.setdefault("eps", dict(EPS[found.layout]))
    if found.layout == "mmseg":
        config.update(head="mmseg", head_activation="relu")
    if "threshold" in config:
        named = as_two_classes(named, config["threshold"])
    classes = Shapes(named, found.source, "a SegFormer with its decode_head").of(CLASSIFIER, 4)[0]
    # some files have BatchNorm's training counter and some do not; one set of weights has one digest
    return ReadCheckpoint(config, named | {COUNTER: torch.tensor(0)}, classes, preprocessor, assumed)


def as_two_classes(weights: Weights, threshold: float) -> Weights:
    """Turn a head of one channel into one of two, whose arg-max is the sigmoid's comparison with `threshold`.

    sigmoid(x) > t is x - log(t / (1 - t)) > 0, the logit of the second class beside 0 for the first; a resize changes
    neither 0 nor a constant, and of two equal logits the first is taken, as by a comparison that is not strict.
    """
    bias = CLASSIFIER.replace("weight", "bias")
    if weights[CLASSIFIER].shape[0] != 1 or bias not in weights:
        return weights  # whose shapes are refused with what the configuration asks for
    cut = weights[bias].double() - math.log(threshold / (1 - threshold))
    return weights | {
        CLASSIFIER: torch.cat([torch.zeros_like(weights[CLASSIFIER]), weights[CLASSIFIER]]),
        bias: torch.cat([torch.zeros_like(weights[bias]), cut.to(weights[bias].dtype)]),
    }


def rename_segformer(weights: Weights, layout: str, source: str) -> Weights:
    """Give the weights under the Hub's names."""
    if layout == HUB:
        return renamed(weights, _TRANSFORMERS_5, source)
    if layout in _HEADS:
        return with_bias_in_mean(renamed(weights, {**_NVLABS, **_HEADS[layout]}, source))
    named = renamed(_fold_projections(weights, source), _MMSEG, source)
    for name, tensor in named.items():
        if name.endswith((".dense1.weight", ".dense2.weight")) and tuple(tensor.shape[2:]) == (1, 1):
            named[name] = tensor.flatten(1)  # a 1x1 convolution over pixels is a linear layer over tokens
        elif name == "decode_head.linear_fuse.weight":
            # mmseg concatenates stages 1, 2, 3, 4; the Hub (and NVlabs) 4, 3, 2, 1
            named[name] = torch.cat(tensor.chunk(4, dim=1)[::-1], dim=1)
    return named


def _fold_projections(weights: Weights, source: str) -> Weights:
    """Fold mmseg's `convs.i` (1x1 conv without bias, BatchNorm) into the Hub's `linear_c.i.proj`, in float64."""
    folded = dict(weights)
    stages = sorted({int(m[1]) for name in weights if (m := re.match(r"decode_head\.convs\.(\d+)\.", name))})
    for stage in stages:
        old, new = f"decode_head.convs.{stage}", f"decode_head.linear_c.{stage}.proj"
        names = [
            f"{old}.conv.weight",
            *(f"{old}.bn.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")),
        ]
        missing = [name for name in names if name not in folded]
        if missing:
            raise CheckpointError(
                f"{source} lacks {listed(missing)}; expected a whole mmsegmentation SegformerHead"
            )
        conv, *norm = (folded.pop(name) for name in names)
        if any(leaf.shape != conv.shape[:1] for leaf in norm):
            raise CheckpointError(
                f"{source} has a {old} whose batch norm has {listed(str(list(leaf.shape)) for leaf in norm)}, and its"
                f" convolution is {list(conv.shape)}; expected {list(conv.shape[:1])} of each"
            )
        gain, shift = affine_of(*norm, eps=_BATCH_NORM_EPS)
        folded[f"{new}.weight"] = (conv.double().flatten(1) * gain[:, None]).to(conv.dtype)
        folded[f"{new}.bias"] = shift.to(conv.dtype)
    return folded


def infer_segformer(weights: Weights, source: str = "the checkpoint") -> dict[str, Any]:
    """Infer a Hub-style config from the shapes of `weights`, which have the Hub's names.

    Two facts are in no shape and follow MiT's rule: the strides, and the heads, whose width is the first stage's in
    every stage.
    """
    shapes = Shapes(weights, source, "a SegFormer with its decode_head")
    encoder = "segformer.encoder"
    stages = range(max(1, shapes.count(f"{encoder}.patch_embeddings.")))
    patches = [shapes.of(f"{encoder}.patch_embeddings.{s}.proj.weight", 4) for s in stages]
    hidden = [patch[0] for patch in patches]
    inner = [shapes.of(f"{encoder}.block.{s}.0.mlp.dense1.weight", 2)[0] for s in stages]
    reductions = [f"{encoder}.block.{s}.0.attention.self.sr.weight" for s in stages]
    if not all(inner):
        raise CheckpointError(
            f"{source} has stages whose feed-forward layers have {listed(map(str, inner))} channels; expected some in"
            " each"
        )
    if not hidden[0] or any(width % hidden[0] for width in hidden):
        raise CheckpointError(
            f"{source} has stages of {listed(map(str, hidden))} channels, from which its attention heads "
            "cannot be told; put the model's config.json beside it"
        )
    return {
        "model_type": "segformer",
        "architectures": ["SegformerForSemanticSegmentation"],
        "num_channels": 3,
        "num_encoder_blocks": len(stages),
        "depths": [shapes.count(f"{encoder}.block.{s}.") for s in stages],
        "sr_ratios": [shapes.of(name, 4)[-1] if name in weights else 1 for name in reductions],
        "hidden_sizes": hidden,
        "patch_sizes": [patch[-1] for patch in patches],
        "strides": [4, 2, 2, 2][: len(stages)],
        "num_attention_heads": [width // hidden[0] for width in hidden],
        "mlp_ratios": [i // w if i % w == 0 else i / w for i, w in zip(inner, hidden, strict=True)],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "decoder_hidden_size": shapes.of("decode_head.linear_fuse.weight", 4)[0],
        "num_labels": shapes.of(CLASSIFIER, 4)[0],
    }


def complete_segformer(stated: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Complete a Hub config.json with transformers' defaults; refuses parts that do not fit together."""
    config = CONFIG_KEYS.complete(stated, source)
    demand_few_layers(config, ("num_encoder_blocks", "depths"), source)
    stages = config["num_encoder_blocks"]
    for key, default in CONFIG_KEYS.read.items():
        if isinstance(default, list) and len(config[key]) != stages:
            raise CheckpointError(
                f"the config.json of {source} has {key} {config[key]!r}; expected {stages} numbers, one per stage"
            )
    demand_heads("hidden_sizes", config["hidden_sizes"], config["num_attention_heads"], source)
    return config
