"""Finds the products of attention, which have no weights, and keeps their operands' INT8 scales in the graph.

TensorRT gets no pairs there; a CPU's copy of the graph does (`run/byte_copy.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from onnx import ModelProto, helper

from segdeploy.errors import GraphError
from segdeploy.graph.view import View
from segdeploy.model.signature import PREFIX
from segdeploy.model.typed_json import from_json
from segdeploy.untrusted import parse_json

SCALES = f"{PREFIX}attention_scales"  # in the metadata
# The products of attention that a session multiplies in bytes, where a graph has scales for them. The scores are those
# of queries and keys; the others weigh the values by 8 bits of each share, which is coarse where there are many keys.
ALL, SCORES, NONE = "all", "scores", "none"
LESS_AND_LESS = (ALL, SCORES, NONE)


def operands_of_attention(view: View) -> dict[str, list[str]]:
    """Map each product around a softmax, by its node's name, to the names of its two operands."""
    products: dict[str, list[str]] = {}
    for node in view.nodes:
        if node.op_type != "Softmax":
            continue
        scores = view.makers.get(node.input[0])
        while scores is not None and scores.op_type in ("Add", "Mul", "Div"):  # a mask, a scale
            scores = view.makers.get(scores.input[0])
        mixing = view.only_reader(node.output[0], "MatMul")
        for product in (scores, mixing):
            if product is None or product.op_type != "MatMul" or not product.name:
                continue
            if not view.constants.keys() & set(
                product.input
            ):  # else a layer, as before a softmax over classes
                products[product.name] = list(product.input)
    return products


def outputs_of_softmax(view: View) -> set[str]:
    """Name the shares that attention gives, which are 0 or more."""
    return {name for node in view.nodes if node.op_type == "Softmax" for name in node.output}


def scales_of_products(scales: Mapping[str, float], products: str, view: View) -> dict[str, float]:
    """Leave the scales of the operands of these products."""
    if products != SCORES:
        return dict(scales) if products == ALL else {}
    shares = outputs_of_softmax(view)
    scored = [both for both in operands_of_attention(view).values() if not shares.intersection(both)]
    return {name: scales[name] for both in scored for name in both if name in scales}


def store_scales(model: ModelProto, scales: Mapping[str, float]) -> None:
    if not scales:
        return
    kept = {item.key: item.value for item in model.metadata_props}
    helper.set_model_props(model, kept | {SCALES: json.dumps(dict(scales))})


def stored_scales(model: ModelProto, name: str) -> dict[str, float]:
    """Read the scale of each operand; none where the graph, of the file `name`, has none."""
    for item in model.metadata_props:
        if item.key == SCALES:
            try:
                return from_json(dict[str, float], parse_json(item.value))
            except ValueError as error:
                raise GraphError(
                    f"{name} has scales of attention that cannot be read ({error}); quantise it again"
                ) from error
    return {}
