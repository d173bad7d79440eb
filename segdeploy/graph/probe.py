"""Reductions of every float tensor as outputs of the graph itself, so that a runtime frees each tensor as it goes.

As outputs the tensors themselves would all be held until the end: 20 GB for a SegFormer-B5 at 1024×1024. A reduction
stands right behind its tensor, for a runtime that goes by the order of the nodes: put off, it would hold its tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceL1")


def probed(model: ModelProto) -> tuple[ModelProto, list[str]]:
    """`model` with the reductions of each of its FP32 tensors for outputs, and the tensors' names in graph order."""
    made = ModelProto()
    made.CopyFrom(onnx.shape_inference.infer_shapes(model))
    graph = made.graph
    values = {value.name: value for value in [*graph.input, *graph.output, *graph.value_info]}
    nodes: list[NodeProto] = []
    tensors: list[str] = []

    def reduce(name: str) -> None:
        if name in values and values[name].type.tensor_type.elem_type == TensorProto.FLOAT:
            tensors.append(name)
            outputs = [f"{name}:{reduction}" for reduction in REDUCTIONS]
            nodes.extend(
                helper.make_node(reduction, [name], [output], name=output, keepdims=0)
                for reduction, output in zip(REDUCTIONS, outputs, strict=True)
            )

    for value in graph.input:
        reduce(value.name)
    for node in made.graph.node:
        nodes.append(NodeProto.FromString(node.SerializeToString()))
        for name in node.output:
            reduce(name)
    del graph.output[:], graph.value_info[:], graph.node[:]
    graph.node.extend(nodes)
    graph.output.extend(
        helper.make_tensor_value_info(f"{name}:{reduction}", TensorProto.FLOAT, [])
        for name in tensors
        for reduction in REDUCTIONS
    )
    return made, tensors


def largest_of(answers: Mapping[str, NDArray[np.float32]], tensor: str) -> float:
    """The largest |x|; infinite where the tensor holds an infinity or a NaN, which only a sum is sure to pass on."""
    top, bottom, total = (float(answers[f"{tensor}:{reduction}"]) for reduction in REDUCTIONS)
    return max(top, -bottom) if np.isfinite(total) else float("inf")
