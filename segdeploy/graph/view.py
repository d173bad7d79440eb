"""Answers every pass's questions about a graph: makers and readers of tensors, types, shapes, the opset.

Answers are cached: ask before you change the graph, or take a new view afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    ValueInfoProto,
    numpy_helper,
)

from segdeploy.errors import GraphError
from segdeploy.model.signature import TensorFacts

STANDARD = ("", "ai.onnx")  # domains of ONNX's own operators
MOST_READ = 1024  # elements of the largest constant that shape inference reads


@dataclass(frozen=True)
class View:
    model: ModelProto

    @cached_property
    def nodes(self) -> list[NodeProto]:
        return list(self.model.graph.node)

    @cached_property
    def inputs(self) -> list[ValueInfoProto]:
        """List the inputs that are fed; older exporters list weights as inputs too."""
        return [value for value in self.model.graph.input if value.name not in self.weights]

    @cached_property
    def answers(self) -> list[TensorFacts]:
        """Describe the outputs as a runtime does, which infers the sides that the graph leaves open."""
        given = [tensor_facts(value) for value in self.model.graph.output]
        if all(tensor.shape and None not in tensor.shape[1:] for tensor in given):
            return given
        return [tensor_facts(self.values.get(value.name, value)) for value in self.model.graph.output]

    @cached_property
    def ends(self) -> set[str]:
        return {value.name for value in self.model.graph.output}

    @cached_property
    def weights(self) -> dict[str, TensorProto]:
        """Map the graph's initializers by name."""
        return {item.name: item for item in self.model.graph.initializer}

    @cached_property
    def constants(self) -> dict[str, TensorProto]:
        """Map the weights by name, and the tensors that some exporters hold in nodes."""
        held = {
            node.output[0]: item.t
            for node in self.nodes
            if node.op_type == "Constant"
            for item in node.attribute
            if item.name == "value"
        }
        return self.weights | held

    def array(self, name: str) -> NDArray[Any]:
        tensor = self.constants[name]
        try:
            return numpy_helper.to_array(tensor)
        except Exception as error:  # its own types, numpy's and protobuf's
            raise GraphError(
                f"the weights {name!r} of shape {list(tensor.dims)} cannot be read ({error}); export the graph again"
            ) from error

    @cached_property
    def makers(self) -> dict[str, NodeProto]:
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def places(self) -> dict[str, int]:
        """Give for each tensor the position of the node that makes it."""
        return {name: place for place, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def readers(self) -> dict[str, list[NodeProto]]:
        """List the nodes that read each tensor; a node that reads it twice is listed twice."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def only_maker(self, name: str, *kinds: str) -> NodeProto | None:
        """Give the node of one of `kinds` that makes `name`, if only one node or output reads `name`."""
        node = self.makers.get(name)
        alone = len(self.readers.get(name, ())) + (name in self.ends) == 1
        return node if node is not None and alone and node.op_type in kinds and not node.domain else None

    def only_reader(self, name: str, kind: str) -> NodeProto | None:
        """Give the node of `kind` that reads `name`, if nothing else reads it."""
        readers = self.readers.get(name, [])
        alone = len(readers) == 1 and name not in self.ends
        return readers[0] if alone and readers[0].op_type == kind else None

    @cached_property
    def values(self) -> dict[str, ValueInfoProto]:
        """Infer the type of every tensor, and its shape as far as it is known."""
        graph = onnx.shape_inference.infer_shapes(without_large(self.model), data_prop=True).graph
        values = (*graph.input, *graph.value_info, *graph.output)
        return {value.name: value for value in values if value.type.tensor_type.elem_type}

    @cached_property
    def types(self) -> dict[str, int]:
        found = {name: item.data_type for name, item in self.weights.items()}
        return found | {name: value.type.tensor_type.elem_type for name, value in self.values.items()}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Give each tensor's shape; 0 where a side is open."""
        found = {name: tuple(item.dims) for name, item in self.weights.items()}
        for name, value in self.values.items():
            found[name] = tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        return found

    @cached_property
    def images(self) -> int:
        """Give the batch that the graph is written for; 1 where it is open."""
        sides = self.model.graph.input[0].type.tensor_type.shape.dim
        return max(sides[0].dim_value, 1) if sides else 1

    @cached_property
    def training(self) -> list[NodeProto]:
        """List the nodes that are in training mode: a Dropout whose answers are random, a batch's own statistics."""
        return [node for node in self.nodes if self.is_training(node)]

    def is_training(self, node: NodeProto) -> bool:
        if node.op_type == "BatchNormalization":
            return bool(attributes_of(node).get("training_mode", 0))
        mode = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
        return mode in self.constants and bool(self.array(mode).any())

    @property
    def opset(self) -> int:
        return opset_of(self.model)


def opset_of(model: ModelProto, domain: str = "") -> int:
    """Give the opset of `domain`; 0 if the graph does not say it."""
    entry = opset_entry(model, domain)
    return entry.version if entry else 0


def opset_entry(model: ModelProto, domain: str = "") -> OperatorSetIdProto | None:
    """Give the entry with the graph's opset, so that it can be changed."""
    names = STANDARD if domain in STANDARD else (domain,)
    return next((entry for entry in model.opset_import if entry.domain in names), None)


def without_large(model: ModelProto) -> ModelProto:
    """Copy a graph for shape inference; of large weights it keeps only type and shape, which is all inference reads."""
    graph = model.graph
    made = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    made.graph.name = graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(made.graph, field).extend(getattr(graph, field))
    for item in graph.initializer:
        if prod(item.dims) <= MOST_READ and item.data_location != TensorProto.EXTERNAL:
            made.graph.initializer.append(item)
        else:
            value = onnx.helper.make_tensor_value_info(item.name, item.data_type, list(item.dims))
            made.graph.value_info.append(value)
    return made


def copy_of(model: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    return made


def replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Replace a graph's nodes by `nodes`, which may be its own: deleting would empty them."""
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def drop_unused(graph: GraphProto) -> None:
    """Remove the weights that nothing reads any more."""
    used = {name for node in graph.node for name in names_read(node)} | {value.name for value in graph.output}
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)


def names_read(node: NodeProto) -> set[str]:
    """Name a node's inputs, and those of the graphs inside it (the branches of an If); may name too many."""
    return {name for name in node.input if name}.union(*map(outer_names, inner_graphs(node)))


def outer_names(graph: GraphProto) -> set[str]:
    own = {name for node in graph.node for name in node.output}
    own |= {value.name for value in (*graph.input, *graph.initializer)}
    read = {name for node in graph.node for name in names_read(node)}
    return (read | {value.name for value in graph.output}) - own


def inner_graphs(node: NodeProto) -> list[GraphProto]:
    """List the branches of an If, or the body of a loop."""
    return [
        graph
        for attribute in node.attribute
        for graph in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]


def attributes_of(node: NodeProto) -> dict[str, Any]:
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def tensor_facts(value: ValueInfoProto) -> TensorFacts:
    kind = value.type.tensor_type
    if not kind.elem_type:
        return TensorFacts(value.name, value.type.WhichOneof("value") or "without a type", ())
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    sides = kind.shape.dim
    return TensorFacts(
        value.name,
        str(dtype),
        tuple(side.dim_value if side.HasField("dim_value") else None for side in sides),
    )
