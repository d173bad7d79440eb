"""A CPU session's own copy of a graph: attention as one node, and cut before the logits are raised to labels.

The file is not touched, and whoever proves a graph runs the file. What is not recognised node by node stays as it is:
quantised attention, FP16 logits, labels made in another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from segdeploy.model.signature import TensorFacts
from segdeploy.run.lazy_labels import FACTORS, MOST_CLASSES, LazyLabels

CENTRED = (b"half_pixel", b"pytorch_half_pixel")  # other only where a side is raised to one pixel: never here
OLDEST_OPSET = 13  # Resize and Softmax meant something else once
MOST_BYTES = 2**31 - 2**20  # protobuf's limit, less what the copy's own nodes take


@dataclass(frozen=True)
class GraphCopy:
    model: bytes
    metadata: dict[str, str]
    inputs: list[TensorFacts]  # of the file, as all facts here
    outputs: list[TensorFacts]
    labels: LazyLabels | None  # what is left to do to the answer; None: nothing
    fused: int  # attentions

    @property
    def ran(self) -> dict[str, Any]:
        """In words, what a measurement of it is a measurement of."""
        said: dict[str, Any] = {}
        if self.labels:
            said["labels"] = "from the small logits, interpolated only where classes meet"
        if self.fused:
            said["attention"] = f"{self.fused} fused"
        return said


def shortened(path: Path, fuse: bool) -> GraphCopy | None:
    """None where the file is not one readable message: a runtime says what is wrong, or finds the weights beside it."""
    try:
        model = onnx.load(path, load_external_data=False)
        if any(uses_external_data(item) for item in model.graph.initializer) or model.ByteSize() > MOST_BYTES:
            return None
        known = Known(model)
    except Exception:  # noqa: BLE001 # protobuf's own, which depends on its version
        return None
    constants = {item.name for item in model.graph.initializer}  # older exporters list them as inputs
    inputs = [facts(value) for value in model.graph.input if value.name not in constants]
    outputs = [facts(value) for value in model.graph.output]
    opset = next((item.version for item in model.opset_import if item.domain == ""), 0)
    understood = opset >= OLDEST_OPSET
    labels = cut_labels(model, known) if understood else None
    fused = fuse_attention(model, known) if fuse and understood else 0
    metadata = {item.key: item.value for item in model.metadata_props}
    return GraphCopy(model.SerializeToString(), metadata, inputs, outputs, labels, fused)


class Known:
    """What a graph's tensors are, who makes them and who reads them."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {value.name: [] for value in graph.output}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.ends = {value.name for value in graph.output}
        self.constants = {item.name: item for item in graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.types = {
            value.name: value.type.tensor_type
            for value in [*inferred.input, *inferred.value_info, *inferred.output]
        }

    def maker(self, name: str, *kinds: str) -> NodeProto | None:
        """The node of one of `kinds` that makes `name`, for one reader alone."""
        node = self.makers.get(name)
        alone = len(self.readers.get(name, ())) + (name in self.ends) == 1
        return node if node is not None and alone and node.op_type in kinds and not node.domain else None

    def reader(self, name: str, kind: str) -> NodeProto | None:
        readers = self.readers.get(name, [])
        alone = len(readers) == 1 and name not in self.ends
        return readers[0] if alone and readers[0].op_type == kind else None

    def shape(self, name: str) -> list[int | None] | None:
        """Of a tensor of float32; None for a side that is open."""
        kind = self.types.get(name)
        if kind is None or kind.elem_type != TensorProto.FLOAT or not kind.HasField("shape"):
            return None
        return [side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim]

    def value(self, name: str) -> list[Any] | None:
        item = self.constants.get(name)
        return None if item is None else numpy_helper.to_array(item).ravel().tolist()


def cut_labels(model: ModelProto, known: Known) -> LazyLabels | None:
    """Resize (linear, by a power of two) → ArgMax over classes → Cast or nothing → the only output."""
    graph = model.graph
    if len(graph.output) != 1:
        return None
    answer = graph.output[0]
    cast = known.maker(answer.name, "Cast")
    largest = known.maker(cast.input[0] if cast else answer.name, "ArgMax")
    resize = known.maker(largest.input[0], "Resize") if largest else None
    if largest is None or resize is None:
        return None
    chooses, raises = attributes(largest), attributes(resize)
    if chooses.get("axis", 0) not in (1, -3) or chooses.get("select_last_index", 0):
        return None
    if (
        raises.get("mode") != b"linear"
        or raises.get("coordinate_transformation_mode", CENTRED[0]) not in CENTRED
    ):
        return None
    if (
        raises.get("antialias", 0)
        or "axes" in raises
        or raises.get("keep_aspect_ratio_policy", b"stretch") != b"stretch"
    ):
        return None
    before, after = known.shape(resize.input[0]), known.shape(resize.output[0])
    if before is None or after is None or len(before) != 4 or None in (*before[1:], *after[1:]):
        return None
    (_, classes, height, width), (_, kept, tall, wide) = before, after
    assert classes and height and width and tall and wide  # noqa: S101 # no side is open or empty
    factors = tall // height, wide // width
    exact = (tall, wide) == (height * factors[0], width * factors[1])
    scales = known.value(resize.input[2]) if len(resize.input) > 2 and resize.input[2] else None
    if scales is not None and scales != [1, 1, *factors]:
        return None
    if classes != kept or classes > MOST_CLASSES or not exact or not all(item in FACTORS for item in factors):
        return None
    dtype = facts(answer).dtype
    for node in (cast, largest, resize):
        if node is not None:
            graph.node.remove(node)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(resize.input[0], TensorProto.FLOAT, before))
    return LazyLabels(factors, dtype, bool(chooses.get("keepdims", 1)))


def fuse_attention(model: ModelProto, known: Known) -> int:
    """softmax(q·kᵀ)·v as ONNX Runtime's MultiHeadAttention, which never holds all the scores at once."""
    found = [parts for node in model.graph.node if (parts := attention_around(node, known)) is not None]
    if not found:
        return 0
    gone = {id(node) for _, nodes in found for node in nodes}
    by_last = {id(nodes[-1]): fused for fused, nodes in found}
    kept = [
        by_last.get(id(node), node)
        for node in model.graph.node
        if id(node) in by_last or id(node) not in gone
    ]
    copied = [NodeProto.FromString(node.SerializeToString()) for node in kept]  # deleting empties them
    del model.graph.node[:]
    model.graph.node.extend(copied)
    if not any(item.domain == "com.microsoft" for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return len(found)


def attention_around(softmax: NodeProto, known: Known) -> tuple[NodeProto, list[NodeProto]] | None:
    """The node that stands for all those around `softmax`, and these, the last one last."""
    if softmax.op_type != "Softmax" or (scored := known.shape(softmax.output[0])) is None:
        return None
    if attributes(softmax).get("axis", -1) not in (-1, len(scored) - 1):
        return None
    scores, mixing = known.maker(softmax.input[0], "MatMul"), known.reader(softmax.output[0], "MatMul")
    if scores is None or mixing is None or softmax.output[0] != mixing.input[0]:
        return None
    inner = [scores, softmax, mixing]
    found = of_one_head(inner, known) if len(scored) == 3 else of_heads(inner, known)
    if found is None:
        return None
    inputs, heads, nodes = found
    shapes = [known.shape(name) for name in (*inputs, nodes[-1].output[0])]
    if any(shape is None or len(shape) != 3 or None in shape[1:] for shape in shapes):
        return None
    if len({(shape[0], shape[2]) for shape in shapes if shape is not None}) != 1 or shapes[0] != shapes[3]:
        return None
    fused = helper.make_node(
        "MultiHeadAttention",
        inputs,
        [nodes[-1].output[0]],
        name=f"{softmax.name}.attention",
        domain="com.microsoft",
        num_heads=heads,
        scale=1.0,  # whatever scales the scores is in the query already
    )
    return fused, nodes


Around = tuple[list[str], int, list[NodeProto]]  # query, key and value, how many heads, all nodes


def of_one_head(inner: list[NodeProto], known: Known) -> Around | None:
    """q·Transpose(k)"""
    scores, _, mixing = inner
    turned = known.maker(scores.input[1], "Transpose")
    if turned is None or turn_of(turned) != [0, 2, 1]:
        return None
    return [scores.input[0], turned.input[0], mixing.input[1]], 1, [turned, *inner]


def of_heads(inner: list[NodeProto], known: Known) -> Around | None:
    """q, k, v each through Reshape to N×L×heads×d and Transpose to N×heads×L×d, or ×d×L for k; and the way back."""
    scores, _, mixing = inner
    back = known.reader(mixing.output[0], "Transpose")
    joined = known.reader(back.output[0], "Reshape") if back is not None else None
    if back is None or joined is None or turn_of(back) != [0, 2, 1, 3]:
        return None
    inputs, nodes = [], []
    split_into: set[tuple[int | None, ...]] = set()
    turns = (
        (scores.input[0], [0, 2, 1, 3]),
        (scores.input[1], [0, 2, 3, 1]),
        (mixing.input[1], [0, 2, 1, 3]),
    )
    for name, turn in turns:
        turned = known.maker(name, "Transpose")
        split = known.maker(turned.input[0], "Reshape") if turned is not None else None
        if turned is None or split is None or turn_of(turned) != turn:
            return None
        before, after = known.shape(split.input[0]), known.shape(split.output[0])
        if before is None or after is None or len(after) != 4 or before[:2] != after[:2]:
            return None
        inputs.append(split.input[0])
        nodes += [split, turned]
        split_into.add(tuple(after[2:]))
    heads = next(iter(split_into))[0]
    if len(split_into) != 1 or heads is None:
        return None
    return inputs, heads, [*nodes, *inner, back, joined]


def turn_of(node: NodeProto) -> list[int]:
    return list(attributes(node).get("perm", ()))


def attributes(node: NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def facts(value: Any) -> TensorFacts:
    kind = value.type.tensor_type
    shape = tuple(side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim)
    return TensorFacts(value.name, str(np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))), shape)
