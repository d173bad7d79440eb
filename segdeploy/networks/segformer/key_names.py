"""SegFormer's weight names: every published spelling brought to the Hub's, and the shapes a config asks for.

The Hub's names are the common tongue because most public checkpoints carry them. Three other spellings exist:
NVlabs/SegFormer (the paper's code), open-mmlab/mmsegmentation (a rewrite) and transformers 5 in memory.
mmsegmentation's head is also another network: each stage is projected by conv + BatchNorm + ReLU *before* the
upsampling (mmseg/models/decode_heads/segformer_head.py), where the paper has one linear layer. The BatchNorm
folds exactly into the projection; the ReLU stays, and `config["head_activation"] == "relu"` says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from segdeploy.errors import CheckpointError

Weights = dict[str, torch.Tensor]

# LayerNorm's epsilon by layout, as the code that trained or runs each layout builds it:
#   hub     transformers' modules never pass config.layer_norm_eps on, so every LayerNorm has PyTorch's 1e-5
#   nvlabs  mix_transformer.py: partial(LayerNorm, eps=1e-6) for blocks and stages, a bare LayerNorm elsewhere
#   mmseg   mit.py hands norm_cfg=dict(type='LN', eps=1e-6) to all four
EPS: dict[str, dict[str, float]] = {
    "hub": {"patch_embed": 1e-5, "block": 1e-5, "sr": 1e-5, "stage": 1e-5},
    "nvlabs": {"patch_embed": 1e-5, "block": 1e-6, "sr": 1e-5, "stage": 1e-6},
    "mmseg": {"patch_embed": 1e-6, "block": 1e-6, "sr": 1e-6, "stage": 1e-6},
}
_BATCH_NORM_EPS = 1e-5  # BatchNorm's default; none of the layouts changes it

# What transformers' SegformerConfig takes for a key that config.json leaves out.
_CONFIG_DEFAULTS: dict[str, Any] = {
    "num_channels": 3,
    "num_encoder_blocks": 4,
    "depths": [2, 2, 2, 2],
    "sr_ratios": [8, 4, 2, 1],
    "hidden_sizes": [32, 64, 160, 256],
    "patch_sizes": [7, 3, 3, 3],
    "strides": [4, 2, 2, 2],
    "num_attention_heads": [1, 2, 5, 8],
    "mlp_ratios": [4, 4, 4, 4],
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "decoder_hidden_size": 256,
}

_SIZES = {
    "b0": ((2, 2, 2, 2), (32, 64, 160, 256)),
    "b1": ((2, 2, 2, 2), (64, 128, 320, 512)),
    "b2": ((3, 4, 6, 3), (64, 128, 320, 512)),
    "b3": ((3, 4, 18, 3), (64, 128, 320, 512)),
    "b4": ((3, 8, 27, 3), (64, 128, 320, 512)),
    "b5": ((3, 6, 40, 3), (64, 128, 320, 512)),
}

# {s} stage, {b} block, {leaf} weight, bias, …; several targets share the rows of one tensor equally.
_PATCH, _BLOCK = "segformer.encoder.patch_embeddings.{s}", "segformer.encoder.block.{s}.{b}"
_SELF = _BLOCK + ".attention.self"
_QUERY, _KEY, _VALUE = f"{_SELF}.query", f"{_SELF}.key", f"{_SELF}.value"
_NVLABS: dict[str, tuple[str, ...]] = {
    "backbone.patch_embed{s}.proj": (f"{_PATCH}.proj",),
    "backbone.patch_embed{s}.norm": (f"{_PATCH}.layer_norm",),
    "backbone.block{s}.{b}.norm1": (f"{_BLOCK}.layer_norm_1",),
    "backbone.block{s}.{b}.attn.q": (_QUERY,),
    "backbone.block{s}.{b}.attn.kv": (_KEY, _VALUE),
    "backbone.block{s}.{b}.attn.proj": (f"{_BLOCK}.attention.output.dense",),
    "backbone.block{s}.{b}.attn.sr": (f"{_SELF}.sr",),
    "backbone.block{s}.{b}.attn.norm": (f"{_SELF}.layer_norm",),
    "backbone.block{s}.{b}.norm2": (f"{_BLOCK}.layer_norm_2",),
    "backbone.block{s}.{b}.mlp.fc1": (f"{_BLOCK}.mlp.dense1",),
    "backbone.block{s}.{b}.mlp.dwconv.dwconv": (f"{_BLOCK}.mlp.dwconv.dwconv",),
    "backbone.block{s}.{b}.mlp.fc2": (f"{_BLOCK}.mlp.dense2",),
    "backbone.norm{s}": ("segformer.encoder.layer_norm.{s}",),
    "decode_head.linear_c{s}.proj": ("decode_head.linear_c.{s}.proj",),
    "decode_head.linear_fuse.conv": ("decode_head.linear_fuse",),
    "decode_head.linear_fuse.bn": ("decode_head.batch_norm",),
    "decode_head.linear_pred": ("decode_head.classifier",),
}
_MMSEG: dict[str, tuple[str, ...]] = {
    "backbone.layers.{s}.0.projection": (f"{_PATCH}.proj",),
    "backbone.layers.{s}.0.norm": (f"{_PATCH}.layer_norm",),
    "backbone.layers.{s}.1.{b}.norm1": (f"{_BLOCK}.layer_norm_1",),
    "backbone.layers.{s}.1.{b}.attn.attn.in_proj_{leaf}": (_QUERY, _KEY, _VALUE),
    "backbone.layers.{s}.1.{b}.attn.attn.out_proj": (f"{_BLOCK}.attention.output.dense",),
    "backbone.layers.{s}.1.{b}.attn.sr": (f"{_SELF}.sr",),
    "backbone.layers.{s}.1.{b}.attn.norm": (f"{_SELF}.layer_norm",),
    "backbone.layers.{s}.1.{b}.norm2": (f"{_BLOCK}.layer_norm_2",),
    "backbone.layers.{s}.1.{b}.ffn.layers.0": (f"{_BLOCK}.mlp.dense1",),
    "backbone.layers.{s}.1.{b}.ffn.layers.1": (f"{_BLOCK}.mlp.dwconv.dwconv",),
    "backbone.layers.{s}.1.{b}.ffn.layers.4": (f"{_BLOCK}.mlp.dense2",),
    "backbone.layers.{s}.2": ("segformer.encoder.layer_norm.{s}",),
    "decode_head.fusion_conv.conv": ("decode_head.linear_fuse",),
    "decode_head.fusion_conv.bn": ("decode_head.batch_norm",),
    "decode_head.conv_seg": ("decode_head.classifier",),
}
# What `model.state_dict()` gives under transformers 5; its save_pretrained still writes the Hub's names.
_TRANSFORMERS_5: dict[str, tuple[str, ...]] = {
    "segformer.stages.{s}.patch_embeddings.proj": (f"{_PATCH}.proj",),
    "segformer.stages.{s}.patch_embeddings.layer_norm": (f"{_PATCH}.layer_norm",),
    "segformer.stages.{s}.blocks.{b}.layernorm_before": (f"{_BLOCK}.layer_norm_1",),
    "segformer.stages.{s}.blocks.{b}.attention.q_proj": (_QUERY,),
    "segformer.stages.{s}.blocks.{b}.attention.k_proj": (_KEY,),
    "segformer.stages.{s}.blocks.{b}.attention.v_proj": (_VALUE,),
    "segformer.stages.{s}.blocks.{b}.attention.o_proj": (f"{_BLOCK}.attention.output.dense",),
    "segformer.stages.{s}.blocks.{b}.attention.sequence_reduction.sequence_reduction": (f"{_SELF}.sr",),
    "segformer.stages.{s}.blocks.{b}.attention.sequence_reduction.layer_norm": (f"{_SELF}.layer_norm",),
    "segformer.stages.{s}.blocks.{b}.layernorm_after": (f"{_BLOCK}.layer_norm_2",),
    "segformer.stages.{s}.blocks.{b}.mlp.fc1": (f"{_BLOCK}.mlp.dense1",),
    "segformer.stages.{s}.blocks.{b}.mlp.dwconv.dwconv": (f"{_BLOCK}.mlp.dwconv.dwconv",),
    "segformer.stages.{s}.blocks.{b}.mlp.fc2": (f"{_BLOCK}.mlp.dense2",),
    "segformer.stages.{s}.layer_norm": ("segformer.encoder.layer_norm.{s}",),
    "decode_head.linear_projections.{s}.proj": ("decode_head.linear_c.{s}.proj",),
}

# Never used to infer: BatchNorm's step counter, mmengine's EMA counter, mmcv's shadow of every parameter (its
# EMAHook swaps the averages into the plain names before it saves), heads that only help training.
_LEFTOVERS = re.compile(r".*num_batches_tracked$|steps$|ema_|auxiliary_head\.|backbone\.head\.")
_MIT_ONLY = re.compile(
    r"(segformer\.)?(encoder\.)?(patch_embed1|patch_embeddings\.0|layers\.0\.0\.projection)\b"
)
_FOREIGN = (
    (
        "a detector",
        re.compile(
            r"(backbone\.bottom_up|roi_heads?|rpn_head|proposal_generator|bbox_head|class_labels_classifier)\b"
        ),
    ),
    ("an image classifier", re.compile(r"(fc|heads?|classifier)\.(\w+\.)?(weight|bias)$")),
)


def listed(names: Iterable[str], most: int = 5) -> str:
    """`a, b, c, d, e and 7 more`."""
    all_names = list(names)
    rest = len(all_names) - most
    return ", ".join(all_names[:most]) + (f" and {rest} more" if rest > 0 else "")


def strip_wrappers(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Drop leftovers, then the prefix that DataParallel, Lightning or torch.compile put before every name."""
    kept = {name: tensor for name, tensor in weights.items() if not _LEFTOVERS.match(name)}
    for prefix in ("module.", "model.", "_orig_mod."):
        if kept and all(name.startswith(prefix) for name in kept):
            return strip_wrappers({name[len(prefix) :]: tensor for name, tensor in kept.items()})
    return kept


def find_layout(names: Iterable[str], source: str) -> str:
    """`hub`, `nvlabs` or `mmseg`; refuses what is not a whole SegFormer, with the keys that gave it away."""
    names = list(names)
    for layout, marks in (
        ("hub", r"segformer\.(encoder|stages)\."),
        ("nvlabs", r"backbone\.patch_embed1\."),
        ("mmseg", r"backbone\.layers\.0\.0\.projection\."),
    ):
        if any(re.match(marks, name) for name in names):
            if not any(name.startswith("decode_head.") for name in names):
                raise _backbone_only(source)
            return layout
    if any(_MIT_ONLY.match(name) for name in names):
        raise _backbone_only(source)
    for what, marks_foreign in _FOREIGN:
        found = dict.fromkeys(match[0] for name in names if (match := marks_foreign.match(name)))
        if found:
            raise CheckpointError(
                f"{source} is not a SegFormer or Mask2Former: its keys start with {listed(found, 3)}: that's {what}"
            )
    starts = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
    raise CheckpointError(
        f"{source} is not a SegFormer or Mask2Former: its keys start with {listed(starts, 3)}; expected "
        "segformer.encoder or model.pixel_level_module (Hub), backbone.patch_embed1 (NVlabs), "
        "backbone.layers.0.0.projection (mmsegmentation) or sem_seg_head.pixel_decoder (detectron2)"
    )


def _backbone_only(source: str) -> CheckpointError:
    return CheckpointError(
        f"{source} holds only a MiT backbone, as pretrained on ImageNet, and no decode_head; "
        "expected a SegFormer that was trained for segmentation, head included"
    )


def to_hub_names(weights: Mapping[str, torch.Tensor], layout: str, source: str) -> Weights:
    """The same network in the Hub's names; an unknown name stays as it is, for `check_weights` to refuse."""
    if layout == "hub":
        return _rename(weights, _TRANSFORMERS_5, first_stage=0)
    if layout == "nvlabs":
        # BaseDecodeHead always makes a conv_seg; the paper's head classifies with linear_pred instead.
        used = {
            name: tensor for name, tensor in weights.items() if not name.startswith("decode_head.conv_seg.")
        }
        return _rename(used, _NVLABS, first_stage=1)
    renamed = _rename(_fold_projections(weights, source), _MMSEG, first_stage=0)
    for name, tensor in renamed.items():
        if name.endswith((".dense1.weight", ".dense2.weight")) and tuple(tensor.shape[2:]) == (1, 1):
            renamed[name] = tensor.flatten(1)  # a 1x1 convolution over pixels is a linear layer over tokens
        elif name == "decode_head.linear_fuse.weight":
            # mmseg concatenates stages 1, 2, 3, 4; the Hub (and NVlabs) 4, 3, 2, 1
            renamed[name] = torch.cat(tensor.chunk(4, dim=1)[::-1], dim=1)
    return renamed


def _rename(
    weights: Mapping[str, torch.Tensor], table: Mapping[str, tuple[str, ...]], first_stage: int
) -> Weights:
    rules = [(_pattern(old), new) for old, new in table.items()]
    renamed: Weights = {}
    for name, tensor in weights.items():
        match, targets = next(((m, new) for rule, new in rules if (m := rule.fullmatch(name))), (None, ()))
        if match is None or tensor.ndim == 0 or tensor.shape[0] % len(targets):
            renamed[name] = tensor
            continue
        parts = match.groupdict()
        stage = int(parts.get("s", first_stage)) - first_stage
        for target, rows in zip(targets, tensor.chunk(len(targets)), strict=True):
            # a copy, or the parts of one tensor would share storage, which safetensors will not save
            whole = rows if len(targets) == 1 else rows.clone()
            renamed[f"{target.format(s=stage, b=parts.get('b'))}.{parts['leaf']}"] = whole
    return renamed


def _pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name if "{leaf}" in name else name + ".{leaf}")
    for field, regex in (("s", r"\d"), ("b", r"\d+"), ("leaf", r"\w+")):
        text = text.replace(re.escape("{" + field + "}"), f"(?P<{field}>{regex})")
    return re.compile(text)


def _fold_projections(weights: Mapping[str, torch.Tensor], source: str) -> Weights:
    """mmseg's `convs.i` (1x1 conv without bias, BatchNorm) as the Hub's `linear_c.i.proj`, in float64."""
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
        conv, gain, shift, mean, variance = (folded.pop(name) for name in names)
        scale = gain.double() / torch.sqrt(variance.double() + _BATCH_NORM_EPS)
        folded[f"{new}.weight"] = (conv.double().flatten(1) * scale[:, None]).to(conv.dtype)
        folded[f"{new}.bias"] = (shift.double() - mean.double() * scale).to(conv.dtype)
    return folded


def infer_config(weights: Mapping[str, torch.Tensor], source: str = "the checkpoint") -> dict[str, Any]:
    """The Hub-style config that the shapes of `weights` (in the Hub's names) speak of.

    Two things leave no trace in a shape and follow MiT's rule: the strides, and the heads, whose width is the
    first stage's in every stage.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights:
            raise CheckpointError(
                f"{source} lacks {name}; expected every weight of a SegFormer with its decode_head"
            )
        return tuple(weights[name].shape)

    def count(prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})

    encoder = "segformer.encoder"
    stages = range(count(f"{encoder}.patch_embeddings."))
    patches = [shape(f"{encoder}.patch_embeddings.{s}.proj.weight") for s in stages]
    hidden = [patch[0] for patch in patches]
    inner = [shape(f"{encoder}.block.{s}.0.mlp.dense1.weight")[0] for s in stages]
    reductions = [f"{encoder}.block.{s}.0.attention.self.sr.weight" for s in stages]
    if any(width % hidden[0] for width in hidden):
        raise CheckpointError(
            f"{source} has stages of {listed(map(str, hidden))} channels, from which its attention heads "
            "cannot be told; put the model's config.json beside it"
        )
    return {
        "model_type": "segformer",
        "architectures": ["SegformerForSemanticSegmentation"],
        "num_channels": patches[0][1],
        "num_encoder_blocks": len(stages),
        "depths": [count(f"{encoder}.block.{s}.") for s in stages],
        "sr_ratios": [shape(name)[-1] if name in weights else 1 for name in reductions],
        "hidden_sizes": hidden,
        "patch_sizes": [patch[-1] for patch in patches],
        "strides": [4, 2, 2, 2][: len(stages)],
        "num_attention_heads": [width // hidden[0] for width in hidden],
        "mlp_ratios": [i // w if i % w == 0 else i / w for i, w in zip(inner, hidden, strict=True)],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "decoder_hidden_size": shape("decode_head.linear_fuse.weight")[0],
        "num_labels": shape("decode_head.classifier.weight")[0],
    }


def complete_config(stated: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A Hub config.json with transformers' defaults for what it leaves out; refused if parts cannot fit."""
    config = {**_CONFIG_DEFAULTS, **stated}
    stages = len(config["hidden_sizes"]) if isinstance(config["hidden_sizes"], list) else 0
    for key, default in _CONFIG_DEFAULTS.items():
        value, wanted = config[key], "a number"
        if isinstance(default, list):
            wanted = f"{stages or 4} numbers, one per stage"
            fits = isinstance(value, list) and len(value) == stages and all(_is_number(v) for v in value)
        else:
            fits = isinstance(value, str) if isinstance(default, str) else _is_number(value)
        if not fits:
            raise CheckpointError(f"the config.json of {source} has {key} {value!r}; expected {wanted}")
    return config


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def size_name(config: Mapping[str, Any]) -> str | None:
    """`b0` … `b5`, by depths and widths alone: mmsegmentation gives every size a 256-channel head."""
    found = tuple(config["depths"]), tuple(config["hidden_sizes"])
    return next((name for name, size in _SIZES.items() if size == found), None)


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every weight, in the Hub's names, of the SegFormer that `config` describes, but BatchNorm's counter."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    widths, decoder = config["hidden_sizes"], config["decoder_hidden_size"]
    inputs = [config["num_channels"], *widths]
    for s, width in enumerate(widths):
        patch, sr = config["patch_sizes"][s], config["sr_ratios"][s]
        add(f"segformer.encoder.patch_embeddings.{s}.proj", width, inputs[s], patch, patch)
        add(f"segformer.encoder.patch_embeddings.{s}.layer_norm", width)
        for b in range(config["depths"][s]):
            block = f"segformer.encoder.block.{s}.{b}"
            for norm in ("layer_norm_1", "layer_norm_2"):
                add(f"{block}.{norm}", width)
            for linear in ("self.query", "self.key", "self.value", "output.dense"):
                add(f"{block}.attention.{linear}", width, width)
            if sr > 1:
                add(f"{block}.attention.self.sr", width, width, sr, sr)
                add(f"{block}.attention.self.layer_norm", width)
            inner = int(width * config["mlp_ratios"][s])
            add(f"{block}.mlp.dense1", inner, width)
            add(f"{block}.mlp.dwconv.dwconv", inner, 1, 3, 3)
            add(f"{block}.mlp.dense2", width, inner)
        add(f"segformer.encoder.layer_norm.{s}", width)
        add(f"decode_head.linear_c.{s}.proj", decoder, width)
    shapes["decode_head.linear_fuse.weight"] = (decoder, decoder * len(widths), 1, 1)
    add("decode_head.batch_norm", decoder)
    shapes["decode_head.batch_norm.running_mean"] = shapes["decode_head.batch_norm.running_var"] = (decoder,)
    add("decode_head.classifier", config["num_labels"], decoder, 1, 1)
    return shapes


def check_weights(
    expected: Mapping[str, Sequence[int]], weights: Mapping[str, torch.Tensor], source: str
) -> None:
    """Refuse `weights` unless names and shapes are exactly those `expected`, BatchNorm's counters aside."""
    wanted = {
        name: tuple(shape) for name, shape in expected.items() if not name.endswith("num_batches_tracked")
    }
    given = {name: tuple(t.shape) for name, t in weights.items() if not name.endswith("num_batches_tracked")}
    shared = [name for name in wanted if name in given]
    differences = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "misshapen": [
            f"{name} {list(given[name])} instead of {list(wanted[name])}"
            for name in shared
            if given[name] != wanted[name]
        ],
    }
    found = [f"{what}: {listed(names)}" for what, names in differences.items() if names]
    if found:
        raise CheckpointError(
            f"{source} does not hold the {len(wanted)} weights that its config asks for; {'; '.join(found)}. "
            "Check that config and weights belong to the same model"
        )
