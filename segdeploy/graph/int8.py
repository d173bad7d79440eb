"""Writes INT8 into a graph as QuantizeLinear/DequantizeLinear pairs, the one form that TensorRT 10, 11 and RTX take.

Quantisation is symmetric: activations have one scale per tensor, weights one per output channel, and weights are stored
as int8. Each tensor has one pair, directly before the layers that share it. Biases, residual sums, LayerNorm, softmax,
GELU and the products of attention stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from segdeploy.errors import CalibrationError, GraphError
from segdeploy.graph.layers import Layer, layers_of
from segdeploy.graph.view import View, copy_of, drop_unused, replace_nodes

LEVELS, UNSIGNED_LEVELS = 127, 255


def quantised(model: ModelProto, scales: Mapping[str, float], layers: Collection[str]) -> ModelProto:
    """Copy `model` so that `layers` (node names) read INT8; `scales` has one for the root tensor of each input."""
    refuse_quantised(model)
    every = {layer.name: layer for layer in layers_of(model)}
    unknown = sorted(set(layers) - set(every))
    if unknown:
        raise CalibrationError(f"the graph has no layer with weights called {', '.join(unknown[:5])}")
    chosen = [layer for name, layer in every.items() if name in layers]
    copied = copy_of(model)
    graph, weights = copied.graph, View(copied).weights
    before: dict[str, list[NodeProto]] = {}
    pairs: dict[str, str] = {}
    stored: dict[tuple[str, int], str] = {}  # a weight, along one axis
    nodes = {node.name: node for node in graph.node}
    for layer in chosen:
        node = nodes[layer.name]
        if layer.activation not in pairs:
            pairs[layer.activation] = f"{layer.activation}.int8"
            before[node.name] = activation_pair(graph, layer, activation_scale(layer, scales))
        node.input[0] = pairs[layer.activation]
        weight = layer.weight, layer.axis
        if weight not in stored:
            again = any(name == layer.weight for name, _ in stored)
            name = f"{layer.weight}.axis{layer.axis}" if again else layer.weight
            stored[weight] = f"{name}.int8"
            before.setdefault(node.name, []).append(
                store_weight(graph, weights[layer.weight], layer.axis, name)
            )
        node.input[1] = stored[weight]
    replace_nodes(graph, [new for node in graph.node for new in (*before.get(node.name, ()), node)])
    drop_unused(graph)
    return copied


def activation_scale(layer: Layer, scales: Mapping[str, float]) -> np.float32:
    scale = np.float32(scales.get(layer.root, 0))
    if not (np.isfinite(scale) and scale > 0):
        raise CalibrationError(
            f"{layer.name} reads {layer.root}, whose scale is {scales.get(layer.root)};"
            " it was constantly zero or was not calibrated, so leave this layer out"
        )
    return scale


def activation_pair(graph: onnx.GraphProto, layer: Layer, scale: np.float32) -> list[NodeProto]:
    tensor = layer.activation
    names = f"{tensor}.scale", f"{tensor}.zero"
    graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), names[0]))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), names[1]))
    return [
        helper.make_node("QuantizeLinear", [tensor, *names], [f"{tensor}.q"], f"{tensor}.q"),
        helper.make_node("DequantizeLinear", [f"{tensor}.q", *names], [f"{tensor}.int8"], f"{tensor}.int8"),
    ]


def store_weight(graph: onnx.GraphProto, item: TensorProto, axis: int, called: str) -> NodeProto:
    """Store the weight as int8, and return the node that restores it; `drop_unused` then removes the float form."""
    values, scale = quantise_weight(numpy_helper.to_array(item), axis)
    names = [f"{called}.{part}" for part in ("q", "scale", "zero")]
    arrays: list[NDArray[Any]] = [values, scale, np.zeros(len(scale), np.int8)]
    graph.initializer.extend(map(numpy_helper.from_array, arrays, names))
    return helper.make_node("DequantizeLinear", names, [f"{called}.int8"], f"{called}.int8", axis=axis)


def quantise_weight(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    others = tuple(side for side in range(weight.ndim) if side != axis)
    largest = np.abs(weight).max(axis=others)
    scale = np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)
    spread = scale.reshape([-1 if side == axis else 1 for side in range(weight.ndim)])
    return np.clip(np.rint(weight / spread), -LEVELS, LEVELS).astype(np.int8), scale


def refuse_quantised(model: ModelProto) -> None:
    already = next((node.name for node in model.graph.node if node.op_type == "QuantizeLinear"), None)
    if already is not None:
        raise GraphError(f"the graph is quantised already ({already}); quantise the FP32 graph it came from")
