"""mmsegmentation's checkpoints: the names of their weights, and what weights and configuration say of each piece.

Shapes and names give most of it. What leaves no trace in them (dilations, strides, align_corners, which map a head
reads) stands in the configuration that mmsegmentation stores as text beside the weights, where it does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch

from segdeploy.errors import CheckpointError
from segdeploy.networks.config_text import ConfigText, config_text, preprocessor_of
from segdeploy.networks.family import RawCheckpoint, ReadCheckpoint, Weights
from segdeploy.networks.mmseg.marks import BACKBONE_MARKS, HEAD_MARKS
from segdeploy.networks.mmseg.pieces import BACKBONES, HEADS, Piece
from segdeploy.networks.weight_names import Shapes, Table, listed, renamed, under

Facts = dict[str, Any]

# mmcv's ConvModule and DepthwiseSeparableConvModule.
_NORMED: Table = {
    **{
        f"{{at}}.{part}_conv.{old}": f"{{at}}.{part}.{new}"
        for part in ("depthwise", "pointwise")
        for old, new in (("conv.weight", "convolution.weight"), ("bn.*", "normalization.*"))
    },
    "{at}.conv.weight": "{at}.convolution.weight",
    "{at}.bn.*": "{at}.normalization.*",
}
_RESNET_BLOCK = "backbone.encoder.stages.{s}.layers.{b}"
_PIECES: Table = {
    **{
        f"backbone.stem.{3 * step + place}.*": f"backbone.embedder.embedder.steps.{step}.{part}.*"
        for step in range(3)
        for place, part in enumerate(("convolution", "normalization"))
    },
    "backbone.conv1.*": "backbone.embedder.embedder.convolution.*",
    "backbone.bn1.*": "backbone.embedder.embedder.normalization.*",
    **under("backbone.layer{s+1}.{b}", _RESNET_BLOCK, {
        **{f"conv{i + 1}.weight": f"layer.{i}.convolution.weight" for i in range(3)},
        **{f"bn{i + 1}.*": f"layer.{i}.normalization.*" for i in range(3)},
        "downsample.0.weight": "shortcut.convolution.weight",
        "downsample.1.*": "shortcut.normalization.*",
    }),
    "backbone.encoder.0.0.convs.*": "backbone.encoder.0.convs.*",
    "backbone.encoder.{s}.1.convs.*": "backbone.encoder.{s}.convs.*",
    "backbone.decoder.{s}.upsample.interp_upsample.1.*": "backbone.decoder.{s}.narrow.*",
    **under("backbone.patch_embed", "backbone.embeddings", {
        "projection.*": "patch_embeddings.projection.*",
        "norm.*": "norm.*",
    }),
    **under("backbone.stages.{s}", "backbone.encoder.layers.{s}", {
        "blocks.{b}.norm1.*": "blocks.{b}.layernorm_before.*",
        "blocks.{b}.norm2.*": "blocks.{b}.layernorm_after.*",
        "blocks.{b}.attn.w_msa.relative_position_bias_table": "blocks.{b}.attention.self.relative_position_bias_table",
        "blocks.{b}.attn.w_msa.qkv.*": tuple(
            f"blocks.{{b}}.attention.self.{part}.*" for part in ("query", "key", "value")
        ),
        "blocks.{b}.attn.w_msa.proj.*": "blocks.{b}.attention.output.dense.*",
        "blocks.{b}.ffn.layers.0.0.*": "blocks.{b}.intermediate.dense.*",
        "blocks.{b}.ffn.layers.1.*": "blocks.{b}.output.dense.*",
        "downsample.*": "downsample.*",
    }),
    "backbone.downsample_layers.0.0.*": "backbone.embeddings.patch_embeddings.*",
    "backbone.downsample_layers.0.1.*": "backbone.embeddings.layernorm.*",
    "backbone.downsample_layers.{s}.*": "backbone.encoder.stages.{s}.downsampling_layer.*",
    **under("backbone.stages.{s}.{b}", "backbone.encoder.stages.{s}.layers.{b}", {
        "depthwise_conv.*": "dwconv.*",
        "norm.*": "layernorm.*",
        "pointwise_conv1.*": "pwconv1.*",
        "pointwise_conv2.*": "pwconv2.*",
        "gamma": "layer_scale_parameter",
    }),
    "backbone.stages.{s}.blocks.{b}.attn.w_msa.relative_position_index": (),
    **{f"backbone.norm{s}.*": f"backbone.hidden_states_norms.stage{s + 1}.*" for s in range(4)},
    "decode_head.psp_modules.{i}.1.*": "decode_head.psp_modules.mix.{i}.*",
    "decode_head.image_pool.1.*": "decode_head.image_pool.mix.0.*",
}  # fmt: skip


def read_mmseg(found: RawCheckpoint) -> ReadCheckpoint:
    backbone = kind_among(found.weights, BACKBONE_MARKS)
    head = kind_among(found.weights, HEAD_MARKS)
    named = renamed(renamed(found.weights, _NORMED, found.source), _PIECES, found.source)
    if backbone == "swin":
        named = {name: with_hub_order(name, tensor) for name, tensor in named.items()}
    if head == "basic":  # made by its parent class, and never called
        named = {name: tensor for name, tensor in named.items() if "conv_seg" not in name}
    shapes = Shapes(named, found.source, "a network of mmsegmentation")
    text = config_text(found.meta, found.source)
    model = {} if text is None else text.dictionary("model")
    body_said = said_of(BACKBONES[backbone], model.get("backbone"), found.source)
    body = _BACKBONES[backbone](shapes, body_said)
    said = said_of(HEADS[head], model.get("decode_head"), found.source)
    with torch.device("meta"):
        given = cast("Sequence[int]", BACKBONES[backbone].plain(**body).channels)
    facts, reads = _HEADS[head](shapes, said, len(given))
    demand_fit(reads, given, f"{HEADS[head].title} on {BACKBONES[backbone].title}", found.source)
    demand_classes(facts["classes"], found.source)
    pieces = {"backbone": BACKBONES[backbone], "decode_head": HEADS[head]}
    config = {
        "backbone": {"kind": backbone, **body},
        "decode_head": {"kind": head, **facts},
        "align_corners": said["align_corners"],
        "batch_norm_eps": {
            part: norm_eps(piece, model.get(part), found.source) for part, piece in pieces.items()
        },
    }
    preprocessor = None if text is None else preprocessor_of(text)
    assumed = assumptions(text, pieces, model, preprocessor or {})
    return ReadCheckpoint(config, named, facts["classes"], preprocessor, assumed)


def kind_among(names: Weights, marks: Mapping[str, str]) -> str:
    return next(kind for kind, mark in marks.items() if any(re.match(mark, name) for name in names))


def said_of(piece: Piece, stated: Any, source: str) -> Facts:
    """A value for each key of the piece that is read: its class's default where the text leaves one out."""
    if stated is None:
        return piece.keys.complete(piece.usual, source)
    kind = str(stated.get("type") if isinstance(stated, dict) else stated).rpartition(".")[2]
    if kind not in piece.types:
        raise CheckpointError(
            f"the config text of {source} says {kind:.40}, and its weights are those of {piece.title}; expected"
            f" {' or '.join(piece.types)}"
        )
    known = {"type", *piece.keys.read, *piece.keys.fixed, *piece.keys.unread}
    if unknown := [str(key) for key in stated if key not in known]:
        raise CheckpointError(
            f"the config text of {source} gives its {kind} {listed(unknown)}, which mmsegmentation's {kind} does not"
            " take; only its own networks are supported, not those of forks"
        )
    return piece.keys.complete({key: value for key, value in stated.items() if key != "type"}, source)


def norm_eps(piece: Piece, stated: Mapping[str, Any] | None, source: str) -> float:
    """The eps of the piece's norms; refused are other norms than those it is built with."""
    norm = (stated or {}).get("norm_cfg") or {"type": piece.norms[0]}
    eps = norm.get("eps", piece.eps) if isinstance(norm, dict) else 0
    fits = isinstance(norm, dict) and norm.get("type") in piece.norms and isinstance(eps, float) and eps > 0
    if not fits or ("BN" not in piece.norms and eps != piece.eps):
        raise CheckpointError(
            f"the config text of {source} has norm_cfg {norm!r:.80} for {piece.title}; expected"
            f" {' or '.join(piece.norms)}{'' if 'BN' in piece.norms else f' with an eps of {piece.eps}'}"
        )
    return eps


def assumptions(
    text: ConfigText | None, pieces: Mapping[str, Piece], model: Mapping[str, Any], images: Mapping[str, Any]
) -> dict[str, str]:
    """Say what the file does not, and what was taken for it."""
    found = {
        f"{part}.{key}": f"{key} of {piece.title} is {value}"
        for part, piece in pieces.items()
        if part not in model
        for key, value in {**piece.keys.read, **piece.usual}.items()
        if value is not None
    }
    if "image_mean" not in images:
        found["normalisation"] = "mean and std are ImageNet's (--card says others)"
    if "size" not in images:
        found["size"] = "images are 512x512 (--size says another)"
    return found


def with_hub_order(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A Swin's merging reads four neighbours: mmsegmentation channel by channel, the Hub's neighbour by neighbour."""
    if ".downsample." not in name:
        return tensor
    apart = tensor.unflatten(-1, (-1, 2, 2))  # …×C×row×column
    ordered: torch.Tensor = apart.movedim((-1, -2), (-3, -2)).flatten(-3).contiguous()
    return ordered


def demand_classes(rows: int, source: str) -> None:
    if rows < 2:
        raise CheckpointError(
            f"{source} has a head of one channel, whose sigmoid is cut at a threshold; expected a head with a channel"
            " for each of two classes or more"
        )


def demand_fit(reads: Sequence[tuple[int, int]], given: Sequence[int], what: str, source: str) -> None:
    """Refuse a head that reads maps, by their index, which the backbone does not give with so many channels."""
    for index, channels in reads:
        if not 0 <= index < len(given) or given[index] != channels:
            has = f"{given[index]} channels there" if 0 <= index < len(given) else f"{len(given)} maps"
            raise CheckpointError(
                f"{source} has {what}, and the head reads {channels} channels of map {index}, where the backbone has"
                f" {has}; expected a backbone and a head of one training"
            )


# ---- backbones -------------------------------------------------------------------------------------------------


def resnet_facts(shapes: Shapes, said: Facts) -> Facts:
    at = "backbone.encoder.stages"
    depths = [shapes.count(f"{at}.{s}.layers.") for s in range(4)]
    last = shapes.count(f"{at}.0.layers.0.layer.") - 1
    deep = shapes.count("backbone.embedder.embedder.steps.") > 0
    stem = f"backbone.embedder.embedder.{'steps.2.' if deep else ''}convolution.weight"
    return {
        "stem": shapes.of(stem, 4)[0],
        "sizes": tuple(shapes.of(f"{at}.{s}.layers.0.layer.{last}.convolution.weight", 4)[0] for s in range(4)),
        "depths": tuple(depths),
        "stride_first": said["style"] == "caffe",
        "strides": whole_numbers(said, "strides", 4, shapes),
        "dilations": tuple(block_dilations(said, stage, depth, shapes) for stage, depth in enumerate(depths)),
        "basic": last == 1,
        "deep_stem": deep,
    }  # fmt: skip


def block_dilations(said: Facts, stage: int, depth: int, shapes: Shapes) -> tuple[int, ...]:
    """Each block's, of one stage; `multi_grid` replaces the last stage's."""
    if stage == 3 and said["multi_grid"] is not None:
        return whole_numbers(said, "multi_grid", depth, shapes)
    dilation = whole_numbers(said, "dilations", 4, shapes)[stage]
    first = dilation // 2 if said["contract_dilation"] and dilation > 1 else dilation
    return (first, *[dilation] * (depth - 1))


def whole_numbers(said: Facts, key: str, count: int, shapes: Shapes) -> tuple[int, ...]:
    """So many whole numbers as the weights need."""
    value = said[key]
    whole = isinstance(value, list | tuple) and all(type(item) is int and item > 0 for item in value)
    if not whole or len(value) != count:
        raise CheckpointError(
            f"{shapes.source} has {key} {value!r:.60}, and its weights are for {count} of them; expected as many whole"
            " numbers above 0"
        )
    return tuple(value)


def unet_facts(shapes: Shapes, said: Facts) -> Facts:
    stages = shapes.count("backbone.encoder.")
    return {
        "width": shapes.of("backbone.encoder.0.convs.0.convolution.weight", 4)[0],
        "down": tuple(shapes.count(f"backbone.encoder.{s}.convs.") for s in range(stages)),
        "up": tuple(shapes.count(f"backbone.decoder.{s}.conv_block.convs.") for s in range(stages - 1)),
    }


def swin_facts(shapes: Shapes, said: Facts) -> Facts:
    at = "backbone.encoder.layers"
    stages = range(shapes.count(f"{at}."))
    tables = [shapes.of(f"{at}.{s}.blocks.0.attention.self.relative_position_bias_table", 2) for s in stages]
    size, _, patch, _ = shapes.of("backbone.embeddings.patch_embeddings.projection.weight", 4)
    return {
        "size": size,
        "depths": tuple(shapes.count(f"{at}.{s}.blocks.") for s in stages),
        "heads": tuple(heads for _, heads in tables),
        "window": (round(tables[0][0] ** 0.5) + 1) // 2,
        "patch": patch,
        "mlp_ratio": shapes.of(f"{at}.0.blocks.0.intermediate.dense.weight", 2)[0] / size,
        "biased": f"{at}.0.blocks.0.attention.self.query.bias" in shapes.weights,
    }


def convnext_facts(shapes: Shapes, said: Facts) -> Facts:
    at = "backbone.encoder.stages"
    stages = range(shapes.count(f"{at}."))
    return {
        "sizes": tuple(shapes.of(f"{at}.{s}.layers.0.dwconv.weight", 4)[0] for s in stages),
        "depths": tuple(shapes.count(f"{at}.{s}.layers.") for s in stages),
        "patch": shapes.of("backbone.embeddings.patch_embeddings.weight", 4)[-1],
    }


def basic_facts(shapes: Shapes, said: Facts) -> Facts:
    def outputs(name: str) -> int:
        return shapes.of(f"backbone.{name}.weight", 4)[0]

    return {
        "widths": tuple(outputs(f"conv{step}_1") for step in range(1, 5)),
        "inner": outputs("conv5_1"),
        "classes": outputs("conv5_3"),
    }


_BACKBONES: dict[str, Callable[[Shapes, Facts], Facts]] = {
    "resnet": resnet_facts,
    "unet": unet_facts,
    "swin": swin_facts,
    "convnext": convnext_facts,
    "basic": basic_facts,
}

# ---- heads: their facts, and the maps they read with the channels of each --------------------------------------

HeadFacts = tuple[Facts, list[tuple[int, int]]]


def one_map(shapes: Shapes, said: Facts, maps: int, layer: str) -> Facts:
    """The facts of a head that reads one map, first in `layer`; -1 is the last."""
    index = -1 if said["in_index"] is None else said["in_index"]
    if type(index) is not int:
        raise CheckpointError(
            f"{shapes.source} has in_index {index!r:.60}; expected a whole number, that of one map"
        )
    classes, channels, *_ = shapes.of("decode_head.conv_seg.weight", 4)
    return {
        "inputs": shapes.of(f"decode_head.{layer}.convolution.weight", 4)[1],
        "channels": channels,
        "classes": classes,
        "index": index % maps if -maps <= index < maps else index,
    }


def fcn_facts(shapes: Shapes, said: Facts, maps: int) -> HeadFacts:
    convolutions = shapes.count("decode_head.convs.")
    joins = "decode_head.conv_cat.convolution.weight" in shapes.weights
    facts = one_map(shapes, said, maps, "convs.0")
    kernel = shapes.of("decode_head.convs.0.convolution.weight", 4)[-1]
    facts |= {"convolutions": convolutions, "kernel": kernel, "dilation": said["dilation"], "joins": joins}
    return facts, [(facts["index"], facts["inputs"])]


def psp_facts(shapes: Shapes, said: Facts, maps: int) -> HeadFacts:
    facts = one_map(shapes, said, maps, "psp_modules.mix.0")
    facts |= {
        "scales": whole_numbers(said, "pool_scales", shapes.count("decode_head.psp_modules.mix."), shapes),
        "align_corners": said["align_corners"],
    }
    return facts, [(facts["index"], facts["inputs"])]


def aspp_facts(shapes: Shapes, said: Facts, maps: int) -> HeadFacts:
    facts = one_map(shapes, said, maps, "image_pool.mix.0")
    facts |= {
        "dilations": whole_numbers(said, "dilations", shapes.count("decode_head.aspp_modules."), shapes),
        "align_corners": said["align_corners"],
        "separable": shapes.count("decode_head.sep_bottleneck.") > 0,
    }
    reads = [(facts["index"], facts["inputs"])]
    fine = "decode_head.c1_bottleneck.convolution.weight"
    if fine in shapes.weights:
        facts["fine_channels"], facts["fine_inputs"], *_ = shapes.of(fine, 4)
        reads.append((0, facts["fine_inputs"]))
    return facts, reads


def mlp_facts(shapes: Shapes, said: Facts, maps: int) -> HeadFacts:
    stages = range(shapes.count("decode_head.convs."))
    demand_every_map(said, stages, shapes)
    inputs = tuple(shapes.of(f"decode_head.convs.{s}.convolution.weight", 4)[1] for s in stages)
    classes, channels, *_ = shapes.of("decode_head.conv_seg.weight", 4)
    return {"inputs": inputs, "channels": channels, "classes": classes}, list(enumerate(inputs))


def uper_facts(shapes: Shapes, said: Facts, maps: int) -> HeadFacts:
    fine = range(shapes.count("decode_head.lateral_convs."))
    demand_every_map(said, range(len(fine) + 1), shapes)
    layers = [*(f"lateral_convs.{s}" for s in fine), "psp_modules.mix.0"]
    inputs = tuple(shapes.of(f"decode_head.{layer}.convolution.weight", 4)[1] for layer in layers)
    classes, channels, *_ = shapes.of("decode_head.conv_seg.weight", 4)
    scales = whole_numbers(said, "pool_scales", shapes.count("decode_head.psp_modules.mix."), shapes)
    facts = {"inputs": inputs, "channels": channels, "classes": classes, "scales": scales}
    return facts | {"align_corners": said["align_corners"]}, list(enumerate(inputs))


def demand_every_map(said: Facts, stages: range, shapes: Shapes) -> None:
    if said["in_index"] not in (None, list(stages), tuple(stages)):
        raise CheckpointError(
            f"{shapes.source} has in_index {said['in_index']!r:.60}; expected {list(stages)}, every map"
        )


def basic_decoder_facts(shapes: Shapes, said: Facts, maps: int) -> HeadFacts:
    classes = shapes.of("decode_head.upsample_cov1.weight", 4)[0]
    height, width = whole_numbers(said, "input_size", 2, shapes)
    return {"classes": classes, "height": height, "width": width}, [(0, classes)]


_HEADS: dict[str, Callable[[Shapes, Facts, int], HeadFacts]] = {
    "basic": basic_decoder_facts,
    "aspp": aspp_facts,
    "psp": psp_facts,
    "uper": uper_facts,
    "mlp": mlp_facts,
    "fcn": fcn_facts,
}
