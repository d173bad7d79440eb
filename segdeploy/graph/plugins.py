"""Finds TensorRT's plugins in a graph, and writes it without them, so that it can be proven without TensorRT.

One is known: MultiscaleDeformableAttnPlugin_TRT, which full TensorRT ships. Its inputs are values N×S×M×D of L maps one
after the other, the maps' sides L×2, their first rows L, sampling points N×Q×M×L×P×2 from 0 to 1 and their weights
N×Q×M×L×P; it gives N×Q×M×D (the plugin's README in NVIDIA/TensorRT).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from segdeploy.graph.view import View, copy_of, replace_nodes

DEFORMABLE = "MultiscaleDeformableAttnPlugin_TRT"


def plugins_of(model: ModelProto) -> list[str]:
    """Name the nodes that are plugins of TensorRT."""
    return [node.name for node in model.graph.node if node.op_type == DEFORMABLE]


@contextmanager
def runnable(path: Path, model: ModelProto) -> Iterator[Path]:
    """Give a file from which ONNX Runtime can read `model`: `path`, or a temporary copy without plugins."""
    if not plugins_of(model):
        yield path
        return
    with TemporaryDirectory() as folder:
        stand_in = Path(folder) / path.name
        stand_in.write_bytes(without_plugins(model).SerializeToString())
        yield stand_in


def without_plugins(model: ModelProto) -> ModelProto:
    """Copy the graph with each plugin replaced by GridSample; a graph without plugins is returned as it is."""
    if not plugins_of(model):
        return model
    made, view = copy_of(model), View(model)
    nodes: list[NodeProto] = []
    for node in view.nodes:
        if node.op_type == DEFORMABLE:
            stand_in = StandIn(node, made, view.shapes[node.output[0]], view.shapes[node.input[3]])
            nodes += stand_in.written(view.array(node.input[1]).tolist())
        else:
            nodes.append(node)
    replace_nodes(made.graph, nodes)
    del made.graph.value_info[:]
    for item in [item for item in made.opset_import if item.domain]:
        made.opset_import.remove(item)
    return made


class StandIn:
    """Writes the nodes that stand in for one plugin node."""

    def __init__(
        self, node: NodeProto, model: ModelProto, answer: tuple[int, ...], points: tuple[int, ...]
    ) -> None:
        self.node, self.graph = node, model.graph
        _, self.queries, self.heads, self.size = answer
        self.points = points[4]
        self.nodes: list[NodeProto] = []

    def written(self, sides: list[list[int]]) -> list[NodeProto]:
        values, _, _, points, weights = self.node.input
        start, total = 0, ""
        for level, (height, width) in enumerate(sides):
            maps = self.slice(values, 1, start, start + height * width)
            maps = self.add("Transpose", [maps], perm=[0, 2, 3, 1])
            maps = self.add("Reshape", [maps, self.constant([-1, self.size, height, width])])
            start += height * width
            grid = self.add("Transpose", [self.slice(points, 3, level, level + 1)], perm=[0, 2, 1, 3, 4, 5])
            grid = self.add("Reshape", [grid, self.constant([-1, self.queries, self.points, 2])])
            grid = self.add("Mul", [grid, self.constant(2.0)])
            grid = self.add("Sub", [grid, self.constant(1.0)])
            part = self.add("Transpose", [self.slice(weights, 3, level, level + 1)], perm=[0, 2, 3, 1, 4])
            part = self.add("Reshape", [part, self.constant([-1, 1, self.queries, self.points])])
            sampled = self.add("GridSample", [maps, grid], mode="bilinear", align_corners=0)
            mixed = self.add("Mul", [sampled, part])
            mixed = self.add("ReduceSum", [mixed, self.constant([-1])], keepdims=0)
            total = self.add("Add", [total, mixed]) if total else mixed
        apart = self.add("Reshape", [total, self.constant([-1, self.heads, self.size, self.queries])])
        last = helper.make_node(
            "Transpose", [apart], [self.node.output[0]], name=f"{self.node.name}.stand-in", perm=[0, 3, 1, 2]
        )
        return [*self.nodes, last]

    def slice(self, tensor: str, axis: int, start: int, end: int) -> str:
        return self.add("Slice", [tensor, *(self.constant([value]) for value in (start, end, axis))])

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{self.node.name}.stand-in.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: float | list[int]) -> str:
        array = np.array(value, np.int64 if isinstance(value, list) else np.float32)
        name = f"{self.node.name}.stand-in.{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(array, f"{name}.constant"))
        return f"{name}.constant"
