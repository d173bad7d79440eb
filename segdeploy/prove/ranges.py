"""Measures a graph as it runs: how large each tensor gets, and where a value stops being finite.

The graph gets reductions of every float tensor as its outputs, so a runtime can free each tensor early. The tensors
themselves as outputs would all be held until the end: 20 GB for a SegFormer-B5 at 1024×1024. Each reduction directly
follows its producer, so a runtime that executes in node order can free the tensor at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from segdeploy.graph.view import View, copy_of, replace_nodes
from segdeploy.run.ort import run_each

REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceL1")


def measure_ranges(model: ModelProto, inputs: Iterable[NDArray[Any]]) -> dict[str, float]:
    """Measure the largest |x| of each FP32 tensor over all `inputs`, in graph order; infinite if it is not finite."""
    graph, tensors = probed(model)
    found = dict.fromkeys(tensors, 0.0)
    for answers in run_each(graph.SerializeToString(), inputs):
        found = {name: max(known, largest_of(answers, name)) for name, known in found.items()}
    return found


def first_not_finite(model: ModelProto, inputs: Iterable[NDArray[Any]]) -> str | None:
    """Name the first node, in graph order, that gives a NaN or an infinity for one of `inputs`; None if none does."""
    ranges = measure_ranges(model, inputs)
    for node in model.graph.node:
        if any(np.isinf(ranges.get(name, 0.0)) for name in node.output):
            return str(node.name)
    return None


def probed(model: ModelProto) -> tuple[ModelProto, list[str]]:
    """Copy `model` with reductions of its FP32 tensors as outputs; returns it and the tensors' names in graph order."""
    made, view = copy_of(model), View(model)
    graph = made.graph
    nodes: list[NodeProto] = []
    tensors: list[str] = []

    def reduce(name: str) -> None:
        if view.types.get(name) == TensorProto.FLOAT:
            tensors.append(name)
            outputs = [f"{name}:{reduction}" for reduction in REDUCTIONS]
            nodes.extend(
                helper.make_node(reduction, [name], [output], name=output, keepdims=0)
                for reduction, output in zip(REDUCTIONS, outputs, strict=True)
            )

    for value in graph.input:
        reduce(value.name)
    for node in view.nodes:
        nodes.append(node)
        for name in node.output:
            reduce(name)
    replace_nodes(graph, nodes)
    del graph.output[:], graph.value_info[:]
    graph.output.extend(
        helper.make_tensor_value_info(f"{name}:{reduction}", TensorProto.FLOAT, [])
        for name in tensors
        for reduction in REDUCTIONS
    )
    return made, tensors


def largest_of(answers: Mapping[str, NDArray[np.float32]], tensor: str) -> float:
    """Give the largest |x|; infinite for an infinity or a NaN, which only a sum is sure to pass on."""
    top, bottom, total = (float(answers[f"{tensor}:{reduction}"]) for reduction in REDUCTIONS)
    return max(top, -bottom) if np.isfinite(total) else float("inf")
