"""Builds a chain of nodes, to be put in front of a graph or behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from segdeploy.graph.view import copy_of

FOREIGN = ".theirs"


@dataclass
class Chain:
    model: ModelProto
    tensor: str  # the last node's output
    name: str  # prefix of the nodes' names
    nodes: list[NodeProto] = field(default_factory=list)

    def then(self, kind: str, *more: str, output: str = "", **attributes: Any) -> None:
        name = f"{self.name}/{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.tensor, *more], [output or name], name, **attributes))
        self.tensor = output or name

    def hold(self, key: str, values: Any, kind: Any = np.float32) -> str:
        """Add a constant to the graph and return its name."""
        name = f"{self.name}.{key}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name


def without_names(model: ModelProto, taken: tuple[str, ...]) -> ModelProto:
    """Copy a graph, renaming its tensors that have one of the `taken` names, which the interface needs."""
    made = copy_of(model)
    graph = made.graph

    def free(name: str) -> str:
        return name + FOREIGN if name in taken else name

    for node in graph.node:
        node.input[:], node.output[:] = map(free, node.input), map(free, node.output)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = free(value.name)
    return made
