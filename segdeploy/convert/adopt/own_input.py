"""Puts an interface's input in front of a foreign graph: its layout, its type and its normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from segdeploy.convert.adopt.chain import Chain
from segdeploy.graph.layers import attribute
from segdeploy.graph.view import View, attributes_of, replace_nodes
from segdeploy.model.card import Triple
from segdeploy.model.signature import ONE_SCALE, Signature

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
MOVING = ("Identity", "Cast", "Transpose")
ONES: Triple = (1.0, 1.0, 1.0)
ZEROS: Triple = (0.0, 0.0, 0.0)
BRIGHTEST_OF_ONE = 1.5  # a mean below it was written for pixels of 0 to 1, one above it for 0 to 255


@dataclass(frozen=True)
class OwnNormalisation:
    """Describes how a graph normalises its images itself, and which pixels it expects."""

    std: Triple  # 1 where it takes 0 to 255, 255 where it takes 0 to 1
    words: str
    brightest_mean: float  # the largest of what it subtracts


def own_normalisation(view: View, name: str) -> OwnNormalisation | None:
    """Find the constants by which a graph shifts and scales its image before its first layer; None without any."""
    gain, shift, counted = np.ones(3), np.zeros(3), []
    while len(view.readers.get(name, [])) == 1:
        node = view.readers[name][0]
        if node.op_type not in MOVING:
            value = channel_constant(node, name, view)
            if value is None or (node.op_type in ("Sub", "Div") and node.input[1] == name):
                break
            match node.op_type:
                case "Add":
                    shift = shift + value
                case "Sub":
                    shift = shift - value
                case "Mul":
                    gain, shift = gain * value, shift * value
                case "Div":
                    gain, shift = gain / value, shift / value
            counted.append(node.op_type)
        name = node.output[0]
    if not counted:
        return None
    mean = -shift / np.where(gain == 0, 1, gain)
    eats_one = bool(np.abs(mean).max() > 0 and np.abs(mean).max() < BRIGHTEST_OF_ONE and gain.max() > 1 / 64)
    shown = (
        ", ".join(f"{value:.4g}" for value in mean),
        ", ".join(f"{1 / value:.4g}" for value in gain if value),
    )
    words = f"subtracts {shown[0]} and divides by {shown[1]} itself"
    return OwnNormalisation((255.0,) * 3 if eats_one else ONES, words, float(mean.max()))


def channel_constant(node: NodeProto, name: str, view: View) -> NDArray[np.float64] | None:
    """Give the constant that an arithmetic node applies to `name`, as three elements; None for any other node."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    others = [other for other in node.input if other != name]
    if len(others) != 1 or others[0] not in view.constants:
        return None
    value = view.array(others[0]).astype(np.float64).ravel()
    return np.broadcast_to(value, 3) if value.size in (1, 3) else None


def scale_for(std: Triple) -> float:
    """Choose the input's one scale: exactly the network's own where its three channels share one."""
    return 1 / std[0] if len(set(std)) == 1 else ONE_SCALE


def put_input(model: ModelProto, signature: Signature, factors: Sequence[float]) -> None:
    """Give `model` the interface's input, multiplied by one factor per channel before the network reads it."""
    view, given = View(model), model.graph.input[0]
    dtype, last = given.type.tensor_type.elem_type, is_last(given)
    start = Chain(model, signature.input.name, "image")
    as_bytes = signature.interface == "frames"
    if as_bytes:
        start.then("Cast", to=TensorProto.FLOAT)
        start.then("Transpose", perm=TO_FIRST)
        if any(signature.mean):
            start.then("Sub", start.hold("mean", by_channel(signature.mean)))
    if any(factor != 1 for factor in factors) and not folded_into_conv(view, given.name, factors):
        start.then("Mul", start.hold("scale", by_channel(factors)))
    read, nodes = given.name, view.nodes
    if last:
        turn = view.only_reader(given.name, "Transpose")  # a graph of such images begins with one
        if turn is not None and attributes_of(turn).get("perm") == TO_FIRST:
            read, nodes = turn.output[0], [node for node in nodes if node is not turn]
        else:
            start.then("Transpose", perm=TO_LAST)
    # A graph that takes bytes casts them first, so floats do too; and TensorRT has bytes only at a graph's ends.
    if dtype not in (TensorProto.FLOAT, TensorProto.UINT8):
        start.then("Cast", to=dtype)
    for node in nodes:
        node.input[:] = [start.tensor if name == read else name for name in node.input]
    replace_nodes(model.graph, [*start.nodes, *nodes])
    del model.graph.input[:]
    kind = TensorProto.UINT8 if as_bytes else TensorProto.FLOAT
    shape = list(signature.input.shape)
    model.graph.input.append(helper.make_tensor_value_info(signature.input.name, kind, shape))


def is_last(images: ValueInfoProto) -> bool:
    """Tell whether the channels are the last axis."""
    sides = [side.dim_value for side in images.type.tensor_type.shape.dim]
    return bool(sides[3] == 3 and sides[1] != 3)


def by_channel(values: Sequence[float]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(1, 3, 1, 1)


def folded_into_conv(view: View, name: str, factors: Sequence[float]) -> bool:
    """Multiply the first convolution's weights instead, where it alone reads the image; zero padding stays zero."""
    (node, *others) = view.readers.get(name, []) or [NodeProto()]
    if (
        others
        or node.op_type != "Conv"
        or node.input[1] not in view.weights
        or attribute(node, "group") not in (None, 0, 1)
    ):
        return False
    weights = view.array(node.input[1])
    if weights.shape[1] != 3 or weights.dtype != np.float32 or len(view.readers[node.input[1]]) > 1:
        return False
    scaled = (weights * np.asarray(factors, np.float64)[:, None, None]).astype(np.float32)
    view.weights[node.input[1]].CopyFrom(numpy_helper.from_array(scaled, node.input[1]))
    return True
