"""Makes a CPU session's own copy of a graph: cut before the logits are resized, and as its runtime is fastest.

The file is not touched, and a proof runs the file itself. Parts that are not recognised node by node stay as they are:
quantised attention, FP16 logits, labels made in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.external_data_helper import uses_external_data

from segdeploy.errors import SegdeployError
from segdeploy.graph.attention import ALL, NONE
from segdeploy.graph.load import demand_inference
from segdeploy.graph.modest import demand_few_nodes, demand_modest
from segdeploy.graph.open_sizes import fixed_at, has_several
from segdeploy.graph.precision import read_precision
from segdeploy.graph.view import View, attributes_of, opset_of, replace_nodes, tensor_facts
from segdeploy.model.labels import MOST_CLASSES
from segdeploy.model.metadata import read_signature
from segdeploy.model.signature import TensorFacts
from segdeploy.run.byte_copy import in_bytes_throughout
from segdeploy.run.lazy_labels import FACTORS, LazyLabels
from segdeploy.run.point_sums import add_point_by_point
from segdeploy.size import Size

CENTRED = (b"half_pixel", b"pytorch_half_pixel")  # they differ only for a side of one pixel: never here
OLDEST_OPSET = 13  # Resize and Softmax had other meanings before
AS_WRITTEN = "int8 as written, multiplied in FP32; --precision int8 for this CPU's own products"
MOST_BYTES = 2**31 - 2**20  # protobuf's limit, less the size of the copy's own nodes


@dataclass(frozen=True)
class GraphCopy:
    model: bytes
    metadata: dict[str, str]
    inputs: list[TensorFacts]  # the file's, like all facts here
    outputs: list[TensorFacts]
    labels: LazyLabels | None  # the steps that were cut off; None: none were
    rewritten: dict[str, str]  # what for this runtime is written otherwise
    quantised: bool = False  # it has pairs of Q and DQ
    attention_in_bytes: str = NONE  # which of its products

    def ran_in(self, precision: str | None) -> dict[str, Any]:
        """Say how the copy runs and differs from the file, for the report of a measurement."""
        said: dict[str, Any] = {} if precision is None else {"precision": precision}
        if precision is None and self.quantised:
            said["precision"] = AS_WRITTEN
        if self.labels:
            said["labels"] = "from the small logits, interpolated only where classes meet"
        said |= self.rewritten
        if self.attention_in_bytes != NONE:
            said["attention"] = "in bytes too" if self.attention_in_bytes == ALL else "its scores in bytes"
        return said


def copy_for_cpu(
    path: Path, provider: str, size: Size | None = None, in_bytes: bool = False, attention: str = ALL
) -> GraphCopy | None:
    """Copy a graph of one file, at `size` if it has several; `in_bytes` for a provider that multiplies bytes.

    Then `attention` says which of its products are to be in bytes too, where there are scales for them.

    None where the file cannot be read: the runtime then says what is wrong.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        demand_few_nodes(model, path.name)
        demand_modest(View(model), path.name)
        if any(uses_external_data(item) for item in model.graph.initializer) or model.ByteSize() > MOST_BYTES:
            return None
        model = at_size(model, size, path.name)
        view = View(model)
        inputs, outputs = [tensor_facts(value) for value in view.inputs], view.answers
        if not view.values:  # asked for here, of the graph before it is cut
            return None
        demand_inference(view, path.name)
        understood = view.opset >= OLDEST_OPSET
        labels = cut_labels(view) if understood else None
        rewritten = rewritten_for(provider, view) if understood else {}
        multiplied = in_bytes and understood and in_bytes_throughout(model, path.name, attention)
    except SegdeployError:
        raise
    except Exception:  # noqa: BLE001 # protobuf's own, and a damaged graph may raise anything
        return None
    metadata = {item.key: item.value for item in model.metadata_props}
    return GraphCopy(
        model.SerializeToString(),
        metadata,
        inputs,
        outputs,
        labels,
        rewritten,
        read_precision(model).int8,
        attention if multiplied else NONE,
    )


def rewritten_for(provider: str, view: View) -> dict[str, str]:
    part, rewrite, words = REWRITES[provider]
    count = rewrite(view)
    return {part: words.format(count)} if count else {}


def at_size(model: ModelProto, size: Size | None, name: str) -> ModelProto:
    """Fix a graph of several sizes at the chosen one, so that what it does at that size is recognised."""
    if size is None or not has_several(model):
        return model
    view, metadata = View(model), {item.key: item.value for item in model.metadata_props}
    signature = read_signature(metadata, [tensor_facts(value) for value in view.inputs], view.answers, name)
    return fixed_at(model, signature.at(size).input.shape)


def cut_labels(view: View) -> LazyLabels | None:
    """Cut off Resize (linear, by a power of two) → ArgMax over classes → Cast or nothing → the only output."""
    graph = view.model.graph
    if len(graph.output) != 1:
        return None
    answer = graph.output[0]
    cast = view.only_maker(answer.name, "Cast")
    largest = view.only_maker(cast.input[0] if cast else answer.name, "ArgMax")
    resize = view.only_maker(largest.input[0], "Resize") if largest else None
    if largest is None or resize is None:
        return None
    chooses, raises = attributes_of(largest), attributes_of(resize)
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
    before, after = sides_of(resize.input[0], view), sides_of(resize.output[0], view)
    if len(before) != 4 or len(after) != 4 or 0 in (*before[1:], *after[1:]):
        return None
    (_, classes, height, width), (_, kept, tall, wide) = before, after
    factors = tall // height, wide // width
    exact = (tall, wide) == (height * factors[0], width * factors[1])
    scales = resize.input[2] if len(resize.input) > 2 else ""
    if scales in view.constants and view.array(scales).tolist() != [1, 1, *factors]:
        return None
    if classes != kept or classes > MOST_CLASSES or not exact or not all(item in FACTORS for item in factors):
        return None
    dtype = view.answers[0].dtype
    nodes = [node for node in (resize, largest, cast) if node is not None]
    logits = helper.make_tensor_value_info(
        resize.input[0], TensorProto.FLOAT, [side or None for side in before]
    )
    alone = nodes_alone(view.model, nodes, logits, factors)
    for node in nodes:
        graph.node.remove(node)
    del graph.output[:]
    graph.output.append(logits)
    return LazyLabels(factors, dtype, bool(chooses.get("keepdims", 1)), alone)


def nodes_alone(
    model: ModelProto, nodes: list[NodeProto], logits: ValueInfoProto, factors: tuple[int, int]
) -> bytes:
    """Write the nodes from the logits to the graph's output as a graph of their own."""
    resize = NodeProto.FromString(nodes[0].SerializeToString())
    resize.input[:] = [logits.name, "", "scales"]
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, *factors])
    graph = helper.make_graph([resize, *nodes[1:]], "labels", [logits], [model.graph.output[0]], [scales])
    made = helper.make_model(graph, opset_imports=model.opset_import)
    made.ir_version = model.ir_version
    serialised: bytes = made.SerializeToString()
    return serialised


def sides_of(name: str, view: View) -> tuple[int, ...]:
    """Give the shape of a float32 tensor that is no weight; 0 for an open side, () where none is known."""
    return view.shapes[name] if view.types.get(name) == TensorProto.FLOAT and name not in view.weights else ()


def fuse_attention(view: View) -> int:
    """Write softmax(q·kᵀ)·v as ONNX Runtime's MultiHeadAttention, which never holds all the scores at once."""
    model = view.model
    found = [parts for node in model.graph.node if (parts := attention_around(node, view)) is not None]
    if not found:
        return 0
    gone = {id(node) for _, nodes in found for node in nodes}
    by_last = {id(nodes[-1]): fused for fused, nodes in found}
    kept = [
        by_last.get(id(node), node)
        for node in model.graph.node
        if id(node) in by_last or id(node) not in gone
    ]
    replace_nodes(model.graph, kept)
    if not opset_of(model, "com.microsoft"):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return len(found)


def attention_around(softmax: NodeProto, view: View) -> tuple[NodeProto, list[NodeProto]] | None:
    """Make the node that replaces the attention around `softmax`; returns it and the replaced nodes in order."""
    scored = sides_of(softmax.output[0], view) if softmax.op_type == "Softmax" else ()
    if not scored:
        return None
    if attributes_of(softmax).get("axis", -1) not in (-1, len(scored) - 1):
        return None
    scores, mixing = (
        view.only_maker(softmax.input[0], "MatMul"),
        view.only_reader(softmax.output[0], "MatMul"),
    )
    if scores is None or mixing is None or softmax.output[0] != mixing.input[0]:
        return None
    inner = [scores, softmax, mixing]
    found = of_one_head(inner, view) if len(scored) == 3 else of_heads(inner, view)
    if found is None:
        return None
    inputs, heads, nodes = found
    shapes = [sides_of(name, view) for name in (*inputs, nodes[-1].output[0])]
    if any(len(shape) != 3 or 0 in shape[1:] for shape in shapes):
        return None
    if len({(shape[0], shape[2]) for shape in shapes}) != 1 or shapes[0] != shapes[3]:
        return None
    fused = helper.make_node(
        "MultiHeadAttention",
        inputs,
        [nodes[-1].output[0]],
        name=f"{softmax.name}.attention",
        domain="com.microsoft",
        num_heads=heads,
        scale=1.0,  # the query is scaled already
    )
    return fused, nodes


Around = tuple[list[str], int, list[NodeProto]]  # query, key and value, how many heads, all nodes


def of_one_head(inner: list[NodeProto], view: View) -> Around | None:
    """Recognise q·Transpose(k)."""
    scores, _, mixing = inner
    turned = view.only_maker(scores.input[1], "Transpose")
    if turned is None or turn_of(turned) != [0, 2, 1]:
        return None
    return [scores.input[0], turned.input[0], mixing.input[1]], 1, [turned, *inner]


def of_heads(inner: list[NodeProto], view: View) -> Around | None:
    """Recognise q, k, v, each through Reshape to N×L×heads×d and Transpose to N×heads×L×d (k: ×d×L), and back."""
    scores, _, mixing = inner
    back = view.only_reader(mixing.output[0], "Transpose")
    joined = view.only_reader(back.output[0], "Reshape") if back is not None else None
    if back is None or joined is None or turn_of(back) != [0, 2, 1, 3]:
        return None
    inputs, nodes = [], []
    split_into: set[tuple[int, ...]] = set()
    turns = (
        (scores.input[0], [0, 2, 1, 3]),
        (scores.input[1], [0, 2, 3, 1]),
        (mixing.input[1], [0, 2, 1, 3]),
    )
    for name, turn in turns:
        turned = view.only_maker(name, "Transpose")
        split = view.only_maker(turned.input[0], "Reshape") if turned is not None else None
        if turned is None or split is None or turn_of(turned) != turn:
            return None
        before, after = sides_of(split.input[0], view), sides_of(split.output[0], view)
        if len(after) != 4 or before[:2] != after[:2]:
            return None
        inputs.append(split.input[0])
        nodes += [split, turned]
        split_into.add(after[2:])
    heads = next(iter(split_into))[0]
    if len(split_into) != 1 or not heads:
        return None
    return inputs, heads, [*nodes, *inner, back, joined]


def turn_of(node: NodeProto) -> list[int]:
    return list(attributes_of(node).get("perm", ()))


# Provider to the part of a graph that it is given otherwise, how, and the words for that.
REWRITES: dict[str, tuple[str, Callable[[View], int], str]] = {
    "cpu": ("attention", fuse_attention, "{} fused"),
    "openvino": ("sampled points", add_point_by_point, "{} sums in one pass each"),
}
