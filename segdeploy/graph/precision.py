"""Detects a graph's precision, as a whole and product by product, and writes segdeploy's metadata into it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

from segdeploy.graph.layers import VIEWS, WITH_WEIGHTS, attribute, group_of, macs_of, root_of
from segdeploy.graph.view import View
from segdeploy.model.signature import PREFIX, Signature

PRECISION = f"{PREFIX}precision"
NAMES: dict[int, str] = {TensorProto.FLOAT: "FP32", TensorProto.FLOAT16: "FP16", TensorProto.BFLOAT16: "BF16"}
EIGHT_BITS: dict[int, str] = {
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "INT8",
    TensorProto.FLOAT8E4M3FN: "FP8",
}


@dataclass(frozen=True)
class Precision:
    """Says which narrow types are written in a graph, whoever made it; a builder may choose the others."""

    int8: bool
    fp16: bool

    def __str__(self) -> str:
        return "+".join(name for name, there in (("int8", self.int8), ("fp16", self.fp16)) if there) or "fp32"

    @property
    def narrowest(self) -> str:
        return "int8" if self.int8 else "fp16" if self.fp16 else "fp32"

    @property
    def is_typed(self) -> bool:
        """Tell whether the graph has narrow types, which a builder must then keep."""
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
    """Write the metadata that a session reads back, also into a foreign graph."""
    kept = {item.key: item.value for item in model.metadata_props}
    helper.set_model_props(model, kept | signature.metadata() | {PRECISION: precision})


def digest_of_scales(model: ModelProto) -> str:
    """Hash every pair's scale with its tensor, so that two calibrations can be compared."""
    weights = View(model).weights
    sha = hashlib.sha256()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            scale = weights.get(node.input[1], TensorProto()).SerializeToString(deterministic=True)
            sha.update(node.input[0].encode() + b"\0" + scale)
    return sha.hexdigest()


@dataclass(frozen=True)
class Placed:
    name: str
    group: str
    precision: str
    macs: int  # of one image


def precisions_of(model: ModelProto) -> list[Placed]:
    """List the products in the order of the graph; one is in eight bits if both its operands come from pairs."""
    view = View(model)
    return [
        Placed(
            node.name,
            group_of(node.name),
            precision_of_product(node, view),
            macs_of(node, view) // view.images,
        )
        for node in view.nodes
        if node.op_type in WITH_WEIGHTS
    ]


def shares_of(model: ModelProto) -> dict[str, float]:
    """Give each precision's share of all multiplications."""
    counted: dict[str, int] = {}
    for one in precisions_of(model):
        kind = one.precision.lower()
        counted[kind] = counted.get(kind, 0) + one.macs
    total = sum(counted.values())
    return {kind: macs / total for kind, macs in counted.items()}


def precision_of_product(node: NodeProto, view: View) -> str:
    stored = set()
    for operand in node.input[:2]:
        pair = view.makers.get(root_of(operand, view, (*VIEWS, "Cast")))
        stored.add(
            view.types.get(pair.input[0]) if pair is not None and pair.op_type == "DequantizeLinear" else None
        )
    if len(stored) == 1 and None not in stored:
        return EIGHT_BITS.get(stored.pop() or 0, "8 bits")
    return NAMES.get(view.types.get(node.input[0], TensorProto.FLOAT), "other")
