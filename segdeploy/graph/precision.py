"""What is written in a graph: the INT8 of its pairs and the FP16 of its types, whoever made it, and its facts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from onnx import ModelProto, TensorProto, helper

from segdeploy.graph.layers import attribute
from segdeploy.model.signature import PREFIX, Signature

PRECISION = f"{PREFIX}precision"


@dataclass(frozen=True)
class Written:
    int8: bool
    fp16: bool

    def __str__(self) -> str:
        return "+".join(name for name, there in (("int8", self.int8), ("fp16", self.fp16)) if there) or "fp32"

    def also(self, *, int8: bool, fp16: bool) -> Written:
        return Written(self.int8 or int8, self.fp16 or fp16)


def written_in(model: ModelProto) -> Written:
    graph = model.graph
    halves = any(item.data_type == TensorProto.FLOAT16 for item in graph.initializer) or any(
        node.op_type == "Cast" and attribute(node, "to") == TensorProto.FLOAT16 for node in graph.node
    )
    return Written(any(node.op_type == "QuantizeLinear" for node in graph.node), halves)


def write_facts(model: ModelProto, signature: Signature, precision: str) -> None:
    """What a session reads back, also of a graph that came from elsewhere."""
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
