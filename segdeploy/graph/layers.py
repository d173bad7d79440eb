"""Finds the layers that have weights, for which INT8 is decided, and counts their multiplications."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

from onnx import ModelProto, NodeProto, TensorProto

from segdeploy.errors import GraphError
from segdeploy.graph.view import View

VIEWS = (
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
)  # the same values in another order
WITH_WEIGHTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Layer:
    name: str  # of the node
    group: str  # its part of a block; all blocks of a stage share it
    activation: str  # the tensor it reads
    root: str  # the tensor that holds the same values before transposes and reshapes
    weight: str
    axis: int  # of the weight's output channels
    macs: int  # per image


def layers_of(model: ModelProto) -> list[Layer]:
    view = View(model)
    found = []
    for node in view.nodes:
        if node.op_type not in WITH_WEIGHTS or node.input[1] not in view.weights:
            continue
        found.append(
            Layer(
                node.name,
                group_of(node.name),
                node.input[0],
                root_of(node.input[0], view),
                node.input[1],
                output_axis(node, view.shapes[node.input[1]]),
                macs_of(node, view) // view.images,
            )
        )
    return found


def results_of_layers(model: ModelProto) -> dict[str, list[str]]:
    """List for each layer the tensors that hold its result: its output and, where a bias is added, the sum."""
    view = View(model)
    found = {}
    for node in view.nodes:
        if node.op_type in WITH_WEIGHTS and node.input[1] in view.weights:
            output = node.output[0]
            readers = view.readers.get(output, [])
            biased = len(readers) == 1 and readers[0].op_type == "Add"
            biased = biased and not view.weights.keys().isdisjoint(readers[0].input)
            found[node.name] = [output, readers[0].output[0]] if biased else [output]
    return found


def output_axis(node: NodeProto, weight: tuple[int, ...]) -> int:
    if node.op_type == "MatMul":
        return len(weight) - 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB") else 1
    return 1 if node.op_type == "ConvTranspose" else 0


def tell_nodes_apart(model: ModelProto) -> None:
    """Give every node its own name: foreign graphs may have nodes without a name, or several of one name."""
    taken: set[str] = set()
    for place, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}.{place}"
        taken.add(node.name)


def group_of(name: str) -> str:
    """Name a node's part of a block: `stages.1.ffn.expand` for `network.stages.1.blocks.0.ffn.expand/Conv`."""
    scope = name.rpartition("/")[0] or name
    return re.sub(r"\.blocks\.\d+", "", scope).removeprefix("network.")


def root_of(tensor: str, view: View, through: Collection[str] = VIEWS) -> str:
    while tensor in view.makers and view.makers[tensor].op_type in through:
        tensor = view.makers[tensor].input[0]
    return tensor


def pixel_tensors(model: ModelProto) -> set[str]:
    """Find the tensors that still hold the image: the graph's input, moved, cast and scaled by constants only."""
    constants = View(model).constants
    found = {value.name for value in model.graph.input}
    for node in model.graph.node:
        moving = [name for name in node.input if name and name not in constants]
        if node.op_type in (*VIEWS, "Cast", "Sub", "Add", "Mul", "Div") and found.issuperset(moving):
            found.update(node.output)
    return found


def macs_of(node: NodeProto, view: View) -> int:
    """Count a node's multiply-adds for the whole batch: rows of a Gemm or of a batched product may mix images."""
    known = view.shapes
    for name in (node.input[0], node.input[1], node.output[0]):
        shape = known.get(name)
        if not shape or 0 in shape[1:]:
            raise GraphError(
                f"the shape of {name}, at {node.name or node.op_type}, cannot be inferred from the graph; export it at"
                " a fixed height and width"
            )
    outputs, weight = known[node.output[0]], known[node.input[1]]
    if node.op_type == "Conv":
        per_output = prod(weight[1:])
    elif node.op_type == "ConvTranspose":
        outputs, per_output = known[node.input[0]], prod(weight[1:])
    elif node.op_type == "Gemm" and attribute(node, "transA"):
        per_output = known[node.input[0]][0]
    else:
        per_output = known[node.input[0]][-1]
    return elements(outputs) * per_output


def all_macs(model: ModelProto) -> int:
    """Count the multiply-adds of one image, in layers with weights and in products of two activations."""
    view = View(model)
    return sum(macs_of(node, view) for node in view.nodes if node.op_type in WITH_WEIGHTS) // view.images


def elements(shape: tuple[int, ...]) -> int:
    """Count a shape's elements; an open batch, which is a side of 0 here, counts as one image."""
    return prod(max(side, 1) for side in shape)


LABEL_STEPS = (
    "Cast",
    "Squeeze",
    "Unsqueeze",
    "Reshape",
    "Transpose",
    "Identity",
    "Resize",
)  # behind an arg-max


def logits_of(model: ModelProto, sides: Sequence[int] = ()) -> str:
    """Find the tensor of class scores: the output itself, or the tensor that is resized before the arg-max.

    `sides` are those of a network's logits, where they are known: a resize to them is the network's own.
    """
    view = View(model)
    tensor, scores = str(model.graph.output[0].name), ""
    while tensor in view.makers and not scores:
        node = view.makers[tensor]
        if node.op_type == "ArgMax":
            scores = str(node.input[0])
        elif node.op_type not in LABEL_STEPS:
            break
        tensor = str(node.input[0])
    while scores in view.makers and view.makers[scores].op_type in ("Softmax", "Identity", "Cast", "Resize"):
        node = view.makers[scores]
        if node.op_type == "Resize" and list(sides) == list(view.shapes.get(scores, ()))[2:]:
            break
        scores = str(node.input[0])
        if node.op_type == "Resize":
            break
    scores = scores or str(model.graph.output[0].name)
    shape = list(view.shapes.get(scores, ()))
    if view.types.get(scores) not in FLOATS or len(shape) != 4 or shape[1] < 2:
        raise GraphError(
            f"no class scores were found in the graph: {scores} is {shape or 'of unknown shape'}; expected float"
            " N×C×h×w, before an arg-max over C"
        )
    return scores


def argmax_is_over_last(model: ModelProto) -> bool:
    """Tell whether the arg-max is over the last of four axes, as in graphs of N×H×W×3 images."""
    return any(node.op_type == "ArgMax" and attribute(node, "axis") in (-1, 3) for node in model.graph.node)


def attribute(node: NodeProto, name: str) -> int:
    return next((item.i for item in node.attribute if item.name == name), 0)
