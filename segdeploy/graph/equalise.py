"""Moves large channels behind a LayerNorm into the weights that read it: exact, and better for one scale per tensor.

A channel is divided by s in the LayerNorm's own scale and bias and multiplied by s in the rows of every weight that
reads it. s balances both sides: the square root of the channel's largest activation over its largest weight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from segdeploy.graph.layers import VIEWS, attribute
from segdeploy.graph.view import View, copy_of, drop_unused


def norms_to_equalise(model: ModelProto) -> dict[str, list[tuple[str, int]]]:
    """Find the outputs of LayerNorms that only weights read, with each weight's name and its axis of input channels.

    Such a weight is changed in place, so nothing else may read it, such as the product behind another LayerNorm.
    """
    view = View(model)
    found = {}
    for node in view.nodes:
        tensor = node.output[0]
        if node.op_type == "LayerNormalization" and tensor not in view.ends:
            reading = weights_behind(tensor, len(view.shapes[tensor]) - 1, view)
            if reading and all(theirs(name, reading, view) for name, _ in reading):
                found[tensor] = reading
    return found


def theirs(weight: str, reading: Sequence[tuple[str, int]], view: View) -> bool:
    """Tell whether only the nodes of `reading` read `weight`, and all along one axis."""
    axes = [axis for name, axis in reading if name == weight]
    alone = len(view.readers[weight]) == len(axes) and weight not in view.ends
    return alone and len(set(axes)) == 1


def weights_behind(tensor: str, axis: int, view: View) -> list[tuple[str, int]]:
    """List the weights that read `tensor`, whose channels are on `axis`; empty if anything else reads it."""
    found: list[tuple[str, int]] = []
    for node in view.readers.get(tensor, ()):
        weighted = len(node.input) > 1 and node.input[1] in view.weights
        if node.op_type in VIEWS:
            moved = axis_behind(node, axis, view.shapes)
            inner = weights_behind(node.output[0], moved, view) if moved else []
        elif node.op_type == "MatMul" and weighted and axis == len(view.shapes[tensor]) - 1:
            inner = [(node.input[1], 0)]
        elif node.op_type == "Conv" and weighted and axis == 1 and attribute(node, "group") in (0, 1):
            inner = [(node.input[1], 1)]
        else:
            inner = []
        if not inner:
            return []
        found += inner
    return found


def axis_behind(node: NodeProto, axis: int, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Follow the channels through a Transpose or a Reshape; returns their axis, or 0 if they do not stay whole."""
    before, after = shapes[node.input[0]], shapes[node.output[0]]
    if node.op_type == "Transpose":
        order = next(list(item.ints) for item in node.attribute if item.name == "perm")
        return order.index(axis)
    if node.op_type != "Reshape":
        return 0
    if axis == 1 and after[1] == before[1]:
        return 1
    if axis == len(before) - 1 and after[-1] == before[-1]:
        return len(after) - 1
    return 0


def factors_for(
    model: ModelProto, largest: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Give what divides each channel of the LayerNorms in `largest` (output → largest |x| per channel)."""
    view = View(model)
    found = {}
    for tensor, reading in norms_to_equalise(model).items():
        if tensor not in largest:
            continue
        rows = [
            np.abs(array).max(axis=tuple(side for side in range(array.ndim) if side != axis))
            for array, axis in ((view.array(name), axis) for name, axis in reading)
        ]
        found[tensor] = balance(largest[tensor], np.max(rows, axis=0))
    return found


def equalised(model: ModelProto, factors: Mapping[str, NDArray[np.float32]]) -> ModelProto:
    """Copy the graph; balance the LayerNorms in `factors` with their readers."""
    copied = copy_of(model)
    graph, view = copied.graph, View(copied)
    norms = {node.output[0]: node for node in graph.node if node.op_type == "LayerNormalization"}
    for tensor, reading in norms_to_equalise(model).items():
        if tensor not in factors:
            continue
        node, by = norms[tensor], factors[tensor]
        for place in range(1, len(node.input)):
            values = view.array(node.input[place]) / by
            name = f"{tensor}.{'scale' if place == 1 else 'bias'}.equalised"
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
            node.input[place] = name
        for name, axis in reading:
            array = view.array(name)
            spread = by.reshape([-1 if side == axis else 1 for side in range(array.ndim)])
            view.weights[name].CopyFrom(numpy_helper.from_array((array * spread).astype(np.float32), name))
    drop_unused(graph)
    return copied


def with_equalised(
    model: ModelProto, factors: Mapping[str, NDArray[np.float32]]
) -> tuple[ModelProto, dict[str, str]]:
    """Copy the graph, with what `equalised` would make of each of these tensors beside it; gives their names."""
    copied, beside = copy_of(model), {}
    for tensor, by in factors.items():
        beside[tensor] = name = f"{tensor}.by.{hashlib.sha256(by.tobytes()).hexdigest()[:12]}"
        copied.graph.initializer.append(numpy_helper.from_array(by, f"{name}.factors"))
        copied.graph.node.append(helper.make_node("Div", [tensor, f"{name}.factors"], [name], name))
    return copied, beside


def balance(activations: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute factors with a geometric mean of one; dead and unread channels keep the factor 1."""
    live = (activations > 0) & (weights > 0)
    factors = np.ones(len(activations), np.float64)
    factors[live] = np.sqrt(activations[live] / weights[live].astype(np.float64))
    if live.any():
        factors[live] /= np.exp(np.log(factors[live]).mean())
    return factors.astype(np.float32)
