"""Reads FAN's checkpoints: the names in NVlabs' and TAO's files, and what shapes, names and configuration say.

Two facts are in no weight. The wavelengths of the positions are told by who trained the network: TAO's code and NVlabs'
classifiers pair them (`floored`), NVlabs' segmentation code, made from the same lines, does not. The third map is taken
before the last blocks in the largest network alone, which is known by its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segdeploy.errors import CheckpointError
from segdeploy.networks.config_keys import ConfigKeys
from segdeploy.networks.config_text import config_text, preprocessor_of
from segdeploy.networks.family import RawCheckpoint, ReadCheckpoint
from segdeploy.networks.nvidia_files import (
    NVLABS_HEAD,
    TAO_HEAD,
    TAO_NORMALISATION,
    TAO_PIXELS,
    with_bias_in_mean,
)
from segdeploy.networks.segformer.config_in_text import (
    IMAGENET,
    NVLABS_HEAD_KEYS,
    demand_batch_norm,
    demand_class,
    demand_encoder_decoder,
    demand_keys,
    part_of,
)
from segdeploy.networks.weight_names import Shapes, Table, renamed, under

_ATTENTION = "attention.self"
_BACKBONE: Table = {
    **under("backbone.patch_embed", "backbone", {
        "backbone.stem.0.*": "embeddings.patch_embeddings.*",
        "backbone.stem.1.*": "embeddings.layernorm.*",
        "backbone.stages.{s}.downsample.*": "stages.{s}.downsampling_layer.*",
        "backbone.stages.{s}.blocks.{b}.conv_dw.*": "stages.{s}.layers.{b}.dwconv.*",
        "backbone.stages.{s}.blocks.{b}.norm.*": "stages.{s}.layers.{b}.layernorm.*",
        "backbone.stages.{s}.blocks.{b}.mlp.fc1.*": "stages.{s}.layers.{b}.pwconv1.*",
        "backbone.stages.{s}.blocks.{b}.mlp.fc2.*": "stages.{s}.layers.{b}.pwconv2.*",
        "backbone.stages.{s}.blocks.{b}.gamma": "stages.{s}.layers.{b}.layer_scale_parameter",
        "proj.*": "embed.*",
    }),
    "backbone.pos_embed.*": "backbone.positions.*",
    "backbone.blocks.{b}.attn.q.*": f"backbone.blocks.{{b}}.{_ATTENTION}.query.*",
    "backbone.blocks.{b}.attn.kv.*": tuple(
        f"backbone.blocks.{{b}}.{_ATTENTION}.{part}.*" for part in ("key", "value")
    ),
    "backbone.blocks.{b}.attn.proj.*": "backbone.blocks.{b}.attention.output.dense.*",
    # of class attention, what the tokens of the image never read
    "backbone.cls_token": (),
    "backbone.cls_attn_blocks.{b}.attn.*": (),
    "backbone.cls_attn_blocks.{b}.mlp.*": (),
    "backbone.cls_attn_blocks.{b}.gamma2": (),
    "backbone.cls_attn_blocks.{b}.*": "backbone.class_norms.{b}.*",
}  # fmt: skip
# Channels and number of the blocks: the class that makes them, and how many come before the third map.
KNOWN = {
    (192, 8): ("fan_tiny_8_p4_hybrid", 8),
    (384, 10): ("fan_small_12_p4_hybrid", 10),
    (448, 16): ("fan_base_16_p4_hybrid", 16),
    (480, 22): ("fan_large_16_p4_hybrid", 19),
}
# The classes take any key and look at none; in other code this one adds a layer.
BACKBONE_KEYS = ConfigKeys(read={}, fixed={"feat_downsample": False}, unread=(), document="config text")
HEADS = ("SegFormerHead", "TAOSegFormerHead")  # the second is TAO's up to version 5


def read_fan(found: RawCheckpoint) -> ReadCheckpoint:
    head = TAO_HEAD if found.layout == "tao" else NVLABS_HEAD
    named = with_bias_in_mean(renamed(found.weights, {**_BACKBONE, **head}, found.source))
    for name, tensor in named.items():
        if ".pwconv" in name and tuple(tensor.shape[2:]) == (1, 1):
            named[name] = tensor.flatten(1)  # a 1x1 convolution over pixels is a linear layer over tokens
    shapes = Shapes(named, found.source, "a FAN with its head")
    backbone = facts_of(shapes)
    floored, preprocessor, assumed = settled(found, backbone)
    backbone["floored"] = floored
    config = {"backbone": backbone, "head_size": shapes.of("decode_head.linear_fuse.weight", 4)[0]}
    classes = shapes.of("decode_head.classifier.weight", 4)[0]
    return ReadCheckpoint(config, named, classes, preprocessor, assumed)


def facts_of(shapes: Shapes) -> dict[str, Any]:
    size, depth = shapes.of("backbone.embed.weight", 4)[0], shapes.count("backbone.blocks.")
    block = "backbone.blocks.0.mlp"
    heads, inner = shapes.of(f"{block}.temperature", 3)[0], shapes.of(f"{block}.mlp_v.fc1.weight", 2)[0]
    stages = [
        (
            shapes.of(f"backbone.stages.{s}.layers.0.dwconv.weight", 4)[0],
            shapes.count(f"backbone.stages.{s}.layers."),
        )
        for s in range(shapes.count("backbone.stages."))
    ]
    if not stages or not all((size, heads, inner, *(width for width, _ in stages))) or size % heads:
        raise CheckpointError(
            f"{shapes.source} has stages of {[width for width, _ in stages]} channels and blocks of {size}, with"
            f" {heads} heads and {inner} channels inside; expected two stages, and blocks of a multiple of their heads"
        )
    taken = KNOWN.get((size, depth), ("", depth))[1]
    return {
        "stages": stages, "size": size, "inner": inner, "heads": heads, "depth": depth, "taken": taken,
    }  # fmt: skip


def settled(
    found: RawCheckpoint, backbone: Mapping[str, Any]
) -> tuple[bool, Mapping[str, Any] | None, dict[str, str]]:
    """Tell whether the positions are floored, how images are prepared, and what of both is assumed."""
    asked, by_tao = found.options["fan_positions"], found.layout == "tao"
    text = config_text(found.meta, found.source)
    kind = "" if text is None else class_of_head(text.dictionary("model"), backbone, found.source)
    preprocessor = preprocessor_of(text) if text is not None else TAO_PIXELS if by_tao else {}
    floored = asked == "floored" or (asked == "by-source" and (by_tao or kind == HEADS[1]))
    assumed = {
        "variance": "norms of its ConvNeXt divide variances by C - 1, as PyTorch does for channels-last memory"
    }
    if asked == "by-source" and not by_tao and not kind:
        assumed["positions"] = (
            "positions are spread, as in NVlabs' segmentation code (--fan-positions floored: as in TAO's)"
        )
    if (backbone["size"], backbone["depth"]) not in KNOWN:
        assumed["taken"] = "its third map is taken behind the last block"
    if text is None or "image_mean" not in preprocessor:
        assumed["normalisation"] = TAO_NORMALISATION if by_tao else IMAGENET
    if "size" not in preprocessor:
        assumed["size"] = "images are 512x512 (--size says another)"
    return floored, preprocessor or None, assumed


def class_of_head(model: Mapping[str, Any], backbone: Mapping[str, Any], source: str) -> str:
    """Name the class of the head that the text says; refuses a text of another network."""
    demand_encoder_decoder(model, source)
    body, head = (part_of(model, name, source) for name in ("backbone", "decode_head"))
    known = KNOWN.get((backbone["size"], backbone["depth"]), (str(body.get("type")),))[0]
    demand_class(body, known, source)
    BACKBONE_KEYS.complete(body, source)
    if not head:
        return ""
    kind = str(head.get("type")).rpartition(".")[2]
    demand_class(head, HEADS[kind == HEADS[1]], source)
    NVLABS_HEAD_KEYS.complete(demand_keys(head, NVLABS_HEAD_KEYS, source), source)
    demand_batch_norm(head, source)
    return kind
