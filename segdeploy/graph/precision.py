"""Detects a graph's precision (its Q/DQ pairs, its FP16 tensors), and writes segdeploy's metadata into it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from onnx import ModelProto, TensorProto, helper

from segdeploy.graph.layers import attribute
from segdeploy.model.signature import PREFIX, Signature

PRECISION = f"{PREFIX}precision"


@dataclass(frozen=True)
class Precision:
    """What is written in a graph, whoever made it; a builder is free to choose the rest."""

    int8: bool
    fp16: bool

    def __str__(self) -> str:
        return "+".join(name for name, there in (("int8", self.int8), ("fp16", self.fp16)) if there) or "fp32"

    @property
    def narrowest(self) -> str:
        return "int8" if self.int8 else "fp16" if self.fp16 else "fp32"

    @property
    def is_typed(self) -> bool:
        """Whether any of it is written in the graph, so that a builder has to take it as it is."""
        return self.int8 or self.fp16

    def also(self, *, int8: bool, fp16: bool) -> Precision:
        return Precision(self.int8 or int8, self.fp16 or fp16)


def read_precision(model: ModelProto) -> Precision:
    graph = model.graph
    halves = any(item.data_type == TensorProto.FLOAT16 for item in graph.initializer) or any(
        node.op_type == "Cast" and attribute(node, "to") == TensorProto.FLOAT16 for node in graph.node
    )
    return Precision(any(node.op_type == "QuantizeLinear" for node in graph.node), halves)


def write_facts(model: ModelProto, signature: Signature, precision: str) -> None:
    """Writes what a session reads back, also of a graph that came from elsewhere."""
    kept = {item.key: item.value for item in model.metadata_props}
    helper.set_model_props(model, kept | signature.metadata() | {PRECISION: precision})


def digest_of_scales(model: ModelProto) -> str:
    """Of every scale that a pair has, with the tensor it is for: two calibrations are the same or they are not."""
    constants = {item.name: item.SerializeToString(deterministic=True) for item in model.graph.initializer}
    sha = hashlib.sha256()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            sha.update(node.input[0].encode() + b"\0" + constants.get(node.input[1], b""))
    return sha.hexdigest()
