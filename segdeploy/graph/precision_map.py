"""Which precision each product of a graph is written in, to be seen at a glance."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from segdeploy.graph.layers import (
    VIEWS,
    WITH_WEIGHTS,
    group_of,
    images_of,
    inferred_shapes,
    macs_of,
    root_of,
    types_of,
)

NAMES: dict[int, str] = {TensorProto.FLOAT: "FP32", TensorProto.FLOAT16: "FP16", TensorProto.BFLOAT16: "BF16"}
EIGHT_BITS: dict[int, str] = {
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "INT8",
    TensorProto.FLOAT8E4M3FN: "FP8",
}


@dataclass(frozen=True)
class Placed:
    name: str
    group: str
    precision: str
    macs: int  # of one image


def precisions_of(model: ModelProto) -> list[Placed]:
    """In the order of the graph; a layer is in eight bits where both its operands come out of a pair."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes, types = inferred_shapes(graph), types_of(graph)
    made_by = {name: node for node in graph.node for name in node.output}
    images = images_of(model)
    return [
        Placed(
            node.name,
            group_of(node.name),
            precision_of(node, made_by, types),
            macs_of(node, shapes) // images,
        )
        for node in graph.node
        if node.op_type in WITH_WEIGHTS
    ]


def shares_of(model: ModelProto) -> dict[str, float]:
    """Of all multiplications, those in each precision."""
    counted: dict[str, int] = {}
    for one in precisions_of(model):
        kind = one.precision.lower()
        counted[kind] = counted.get(kind, 0) + one.macs
    total = sum(counted.values())
    return {kind: macs / total for kind, macs in counted.items()}


def precision_of(node: NodeProto, made_by: dict[str, NodeProto], types: dict[str, int]) -> str:
    stored = set()
    for operand in node.input[:2]:
        pair = made_by.get(root_of(operand, made_by, (*VIEWS, "Cast")))
        stored.add(
            types.get(pair.input[0]) if pair is not None and pair.op_type == "DequantizeLinear" else None
        )
    if len(stored) == 1 and None not in stored:
        return EIGHT_BITS.get(stored.pop() or 0, "8 bits")
    return NAMES.get(types.get(node.input[0], TensorProto.FLOAT), "other")
