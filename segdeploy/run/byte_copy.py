"""Rewrites a session's copy of a quantised graph so that OpenVINO computes it in bytes from end to end.

Three things are in its way, and each is the same arithmetic written otherwise, but for the last:
- A pair behind a Transpose: values would be turned as floats. The pair moves before it, since its one scale fits all.
- N×C×H×W → N×C×HW → N×HW×C: OpenVINO turns such a tensor twice. As N×H×W×C it lies in memory as a convolution left it.
- Products of attention, which `quantize` leaves to TensorRT: they get pairs here, with the scales that it measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from segdeploy.graph.attention import (
    ALL,
    operands_of_attention,
    outputs_of_softmax,
    scales_of_products,
    stored_scales,
)
from segdeploy.graph.view import View, attributes_of, drop_unused, replace_nodes

MOVERS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
TO_TOKENS, FROM_TOKENS = [0, 2, 3, 1], [0, 3, 1, 2]


def in_bytes_throughout(model: ModelProto, name: str, attention: str = ALL) -> bool:
    """Rewrite the graph, of the file `name`, with these products of attention; tells whether any are in bytes now."""
    scales = scales_of_products(stored_scales(model, name), attention, View(model))
    quantise_attention(model, scales)
    quantise_before_turning(model)
    turn_by_channels_last(model)
    drop_unused(model.graph)
    del model.graph.value_info[:]  # of tensors that have other shapes now
    return bool(scales)


def quantise_attention(model: ModelProto, scales: Mapping[str, float]) -> None:
    """Put a pair before each operand of a product of attention whose operands both have a scale."""
    view = View(model)
    shares = outputs_of_softmax(view)
    operands = operands_of_attention(view)
    known = {
        name
        for name, scale in scales.items()
        if scale > 0 and view.types.get(name) == TensorProto.FLOAT and name not in view.weights
    }
    nodes: list[NodeProto] = []
    restored: dict[str, str] = {}
    for node in view.nodes:
        if node.name in operands and known.issuperset(node.input):
            for place, tensor in enumerate(node.input):
                if tensor not in restored:
                    restored[tensor] = f"{tensor}.attention"
                    zero = np.array(0, np.uint8 if tensor in shares else np.int8)
                    nodes += pair_for(model, tensor, scales[tensor], zero)
                node.input[place] = restored[tensor]
        nodes.append(node)
    replace_nodes(model.graph, nodes)


def pair_for(model: ModelProto, tensor: str, scale: float, zero: NDArray[np.integer]) -> list[NodeProto]:
    names = [f"{tensor}.attention.scale", f"{tensor}.attention.zero"]
    for name, value in zip(names, (np.array(scale, np.float32), zero), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    stored, restored = f"{tensor}.attention.q", f"{tensor}.attention"
    return [
        helper.make_node("QuantizeLinear", [tensor, *names], [stored], stored),
        helper.make_node("DequantizeLinear", [stored, *names], [restored], restored),
    ]


def quantise_before_turning(model: ModelProto) -> None:
    """Move each pair with one scale before the nodes that only move its values, where nobody else reads those."""
    view = View(model)
    before: dict[int, list[NodeProto]] = {}
    moved: set[int] = set()
    for quantise in view.nodes:
        restore = restored_by(quantise, view)
        chain = movers_to(quantise.input[0], view) if restore is not None else []
        if restore is None or not chain:
            continue
        first, last = chain[0], chain[-1]
        result = restore.output[0]
        quantise.input[0], restore.output[0] = first.input[0], f"{result}.still"
        first.input[0] = restore.output[0]
        last.output[0] = result
        before[id(first)] = [quantise, restore]
        moved |= {id(quantise), id(restore)}
    kept = (node for node in view.nodes if id(node) not in moved)
    replace_nodes(model.graph, [one for node in kept for one in (*before.get(id(node), ()), node)])


def restored_by(node: NodeProto, view: View) -> NodeProto | None:
    """Give the other half of a pair that has one scale, a stored one, for all values."""
    if node.op_type != "QuantizeLinear" or not view.weights.keys() >= set(node.input[1:]):
        return None
    restore = view.only_reader(node.output[0], "DequantizeLinear")
    if restore is None or restore.input[1:] != node.input[1:]:
        return None
    return restore if view.array(node.input[1]).size == 1 else None


def movers_to(name: str, view: View) -> list[NodeProto]:
    """List the nodes that only move the values of `name`, the first one first; each is read by the next alone."""
    chain: list[NodeProto] = []
    while (mover := view.only_maker(name, *MOVERS)) is not None:
        chain.insert(0, mover)
        name = mover.input[0]
    return chain


def turn_by_channels_last(model: ModelProto) -> None:
    """Write N×C×H×W → N×C×HW → N×HW×C, and the way back, with N×H×W×C between."""
    view = View(model)
    for node in view.nodes:
        if node.op_type != "Reshape":
            continue
        before, after = (view.shapes.get(name, ()) for name in (node.input[0], node.output[0]))
        if (len(before), len(after)) == (4, 3) and before[:2] == after[:2]:
            turn = view.only_reader(node.output[0], "Transpose")
            if (
                turn is not None
                and list(attributes_of(turn).get("perm", ())) == [0, 2, 1]
                and 0 not in before[1:]
            ):
                channels, height, width = before[1:]
                become_transpose(node, TO_TOKENS)
                become_reshape(model, turn, (0, height * width, channels))
        elif (len(before), len(after)) == (3, 4) and before[:2] == after[:2]:
            turn = view.only_maker(node.input[0], "Transpose")
            if (
                turn is not None
                and list(attributes_of(turn).get("perm", ())) == [0, 2, 1]
                and 0 not in after[1:]
            ):
                channels, height, width = after[1:]
                become_reshape(model, turn, (0, height, width, channels))
                become_transpose(node, FROM_TOKENS)


def become_transpose(node: NodeProto, turn: list[int]) -> None:
    node.op_type, node.input[:] = "Transpose", node.input[:1]
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("perm", turn))


def become_reshape(model: ModelProto, node: NodeProto, sides: tuple[int, ...]) -> None:
    """Make it a Reshape; 0 stands for the input's own side, the batch."""
    name = f"{node.output[0]}.sides"
    model.graph.initializer.append(numpy_helper.from_array(np.array(sides, np.int64), name))
    node.op_type, node.input[:] = "Reshape", [node.input[0], name]
    del node.attribute[:]
