"""Tells kinds of graphs apart that reports on TensorRT speak of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import GraphProto, NodeProto, TensorProto

from segdeploy.graph.precision import Precision
from segdeploy.graph.view import STANDARD, View, attributes_of, inner_graphs

# It renamed GridSample's `bilinear` to `linear`, and a parser that knows only the old name takes the nearest pixel.
OPSET_OF_LINEAR = 20
PATCH = 8  # pixels: the least side of a vision transformer's patches
FP8 = {
    TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ,
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """Holds a graph as a builder gets it; `batch` is the largest that is asked for, None: any."""

    view: View
    precision: Precision
    batch: int | None = 1


Matcher = Callable[[Subject], bool]


def samples_of(graph: GraphProto) -> int:
    """Count the GridSample nodes, with those in branches and loops."""
    inner = sum(samples_of(part) for node in graph.node for part in inner_graphs(node))
    return sum(map(is_sampling, graph.node)) + inner


def is_sampling(node: NodeProto) -> bool:
    return node.op_type == "GridSample" and node.domain in STANDARD


def samples(seen: Subject) -> bool:
    return samples_of(seen.view.model.graph) > 0


def samples_by_new_names(seen: Subject) -> bool:
    return samples(seen) and seen.view.opset >= OPSET_OF_LINEAR


def attends(seen: Subject) -> bool:
    return bool(attentions(seen.view))


def attends_in_batches(seen: Subject) -> bool:
    return seen.batch != 1 and attends(seen)


def attends_in_windows(seen: Subject) -> bool:
    """Tell whether a constant, as a Swin's bias of places is, is added to the products before a soft-max."""
    view = seen.view
    added = (view.only_maker(softmax.input[0], "Add") for softmax in attentions(view))
    return any(set(node.input) & view.constants.keys() for node in added if node is not None)


def attends_in_int8_alone(seen: Subject) -> bool:
    return seen.precision.int8 and not seen.precision.fp16 and attends(seen)


def is_vision_transformer(seen: Subject) -> bool:
    """Tell whether the first convolution, as wide as its stride, cuts the image into patches, which are attended to."""
    first = next((node for node in seen.view.nodes if node.op_type == "Conv"), None)
    return first is not None and cuts_patches(first) and attends(seen)


def is_vision_transformer_in_fp16(seen: Subject) -> bool:
    return seen.precision.fp16 and is_vision_transformer(seen)


def norms_in_pieces_in_fp16(seen: Subject) -> bool:
    """Tell whether a root is taken of a mean, as a LayerNorm below opset 17 does, in a graph that is to be FP16."""
    view = seen.view
    roots = (node for node in view.nodes if node.op_type == "Sqrt")
    added = (view.only_maker(root.input[0], "Add") for root in roots)
    means = [
        name
        for node in added
        if node is not None
        for name in node.input
        if view.only_maker(name, "ReduceMean")
    ]
    return seen.precision.fp16 and bool(means)


def has_fp8(seen: Subject) -> bool:
    graph = seen.view.model.graph
    types = {tensor.data_type for tensor in graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in graph.value_info}
    return bool(types & FP8)


def has_int8(seen: Subject) -> bool:
    return seen.precision.int8


MATCHERS: dict[str, Matcher] = {
    "gridsample": samples,
    "gridsample-of-opset-20": samples_by_new_names,
    "attention": attends,
    "attention-in-batches": attends_in_batches,
    "window-attention": attends_in_windows,
    "int8-attention-without-fp16": attends_in_int8_alone,
    "vision-transformer": is_vision_transformer,
    "vision-transformer-fp16": is_vision_transformer_in_fp16,
    "layernorm-in-pieces-fp16": norms_in_pieces_in_fp16,
    "fp8": has_fp8,
    "int8": has_int8,
}


def attentions(view: View) -> list[NodeProto]:
    """List the soft-maxes whose answer goes into a product."""
    return [
        node
        for node in view.nodes
        if node.op_type == "Softmax"
        and any(one.op_type == "MatMul" for one in after_passing(view, node.output[0]))
    ]


def after_passing(view: View, name: str) -> list[NodeProto]:
    """List what reads `name`, looking through a pair of Q/DQ or a cast."""
    passing = ("QuantizeLinear", "DequantizeLinear", "Cast")
    found = []
    for node in view.readers.get(name, []):
        found += after_passing(view, node.output[0]) if node.op_type in passing else [node]
    return found


def cuts_patches(node: NodeProto) -> bool:
    facts = attributes_of(node)
    kernel, strides = list(facts.get("kernel_shape", [])), list(facts.get("strides", []))
    return kernel == strides and min(kernel, default=0) >= PATCH
