"""The layers of a graph that have weights: what INT8 is decided for, and what their multiplications amount to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

import onnx
from onnx import ModelProto, NodeProto

from segdeploy.errors import GraphError

VIEWS = (
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
)  # the same values in another order
WEIGHT_AXES = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 0}


@dataclass(frozen=True)
class Layer:
    name: str  # of the node
    group: str  # the same part of all blocks of one stage
    activation: str  # the tensor it reads
    root: str  # the tensor that holds the same values before transposes and reshapes
    weight: str
    axis: int  # of the weight's output channels
    macs: int  # of one image


def layers_of(model: ModelProto) -> list[Layer]:
    known = shapes_of(model)
    weights = {item.name for item in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type not in WEIGHT_AXES or node.input[1] not in weights:
            continue
        if node.op_type == "Gemm" and not attribute(node, "transB"):
            raise GraphError(
                f"{node.name} is a Gemm with a weight that is not transposed; it cannot be quantised"
            )
        found.append(
            Layer(
                node.name,
                group_of(node.name),
                node.input[0],
                root_of(node.input[0], made_by),
                node.input[1],
                WEIGHT_AXES[node.op_type],
                macs_of(node, known),
            )
        )
    return found


def group_of(name: str) -> str:
    """`network.stages.1.blocks.0.ffn.expand/Conv` belongs with the other blocks': `stages.1.ffn.expand`."""
    scope = name.rpartition("/")[0] or name
    return re.sub(r"\.blocks\.\d+", "", scope).removeprefix("network.")


def root_of(tensor: str, made_by: dict[str, NodeProto]) -> str:
    while tensor in made_by and made_by[tensor].op_type in VIEWS:
        tensor = made_by[tensor].input[0]
    return tensor


def pixel_tensors(model: ModelProto) -> set[str]:
    """What is still the image: the graph's input, moved, cast and scaled by constants only."""
    constants = {item.name for item in model.graph.initializer}
    found = {value.name for value in model.graph.input}
    for node in model.graph.node:
        moving = [name for name in node.input if name and name not in constants]
        if node.op_type in (*VIEWS, "Cast", "Sub", "Add", "Mul", "Div") and found.issuperset(moving):
            found.update(node.output)
    return found


def macs_of(node: NodeProto, known: dict[str, tuple[int, ...]]) -> int:
    outputs, weight = known[node.output[0]], known[node.input[1]]
    if node.op_type == "Conv":
        per_output = prod(weight[1:])
    elif node.op_type == "ConvTranspose":
        outputs, per_output = known[node.input[0]], prod(weight[1:])
    else:
        per_output = known[node.input[0]][-1]
    return prod(outputs[1:]) * per_output


def all_macs(model: ModelProto) -> int:
    """Of one image: those of the layers with weights, and of products of two activations."""
    known = shapes_of(model)
    return sum(macs_of(node, known) for node in model.graph.node if node.op_type in WEIGHT_AXES)


def logits_of(model: ModelProto) -> str:
    """The tensor of class scores: the output itself, or what is raised to the input's size before the arg-max."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    tensor = str(model.graph.output[0].name)
    chain = tensor
    while chain in made_by and made_by[chain].op_type in ("ArgMax", "Cast", "Squeeze", "Reshape", "Resize"):
        node = made_by[chain]
        chain = str(node.input[0])
        if node.op_type == "Resize":
            return chain
        if node.op_type == "ArgMax":
            tensor = chain
    return tensor


def attribute(node: NodeProto, name: str) -> int:
    return next((item.i for item in node.attribute if item.name == name), 0)


def shapes_of(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """0 where a side is open; it is the batch, which no use of these shapes counts."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {item.name: tuple(item.dims) for item in graph.initializer}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        known[value.name] = tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
    return known
