"""Cleans the exporter's graph: gives it readable names, any batch size and the lowest opset, and removes traces.

The network is traced at batch 1 and a fixed height and width, so every shape in the graph is a plain number. The batch
is then opened in the only two kinds of node that mention it: Reshape and Resize.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from segdeploy.errors import GraphError
from segdeploy.graph.view import View, attributes_of, drop_unused, opset_entry, opset_of

LOWEST_OPSET = 17  # the first with LayerNormalization as one op, and the last that TensorRT 8.6 reads
OPSETS = (16, LOWEST_OPSET)  # 16 is for TensorRT 8.4 and 8.5, which have no LayerNormalization
_NUMBERED = re.compile(r"val_\d+")
_SCOPES = "pkg.torch.onnx.name_scopes"
# Reductions that name their axes in an attribute up to opset 17.
AXES_BY_ATTRIBUTE = ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceProd")
# Attributes of Resize-18 that 17 lacks; at these values they change nothing.
_NEW_IN_RESIZE_18 = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"}


def tidy(
    model: ModelProto, input_name: str, output_name: str, batch: int | None, opset: int = LOWEST_OPSET
) -> ModelProto:
    """Clean `model`, traced at batch 1, in place, and set it to `batch` (None: any); at opset 16 no norm is one op."""
    reshape_constants(model)
    shape_gathers(model)
    resize_by_scales(model)
    open_batch(model)
    name_nodes(model, input_name, output_name)
    if opset < LOWEST_OPSET:
        spread_norms(model)
    lower_opset(model, opset)
    if opset < LOWEST_OPSET:
        if opset_of(model) != opset:
            raise GraphError(
                f"the network has nodes that opset {opset} lacks; export it at opset {LOWEST_OPSET}"
            )
        drop_unused(model.graph)
    forget_tracer(model)
    set_batch(model, batch)
    onnx.checker.check_model(model, full_check=True)
    return model


def reshape_constants(model: ModelProto) -> None:
    """Store large constants in their final shape; the exporter does not fold them, and reshapes them at run time."""
    graph, view = model.graph, View(model)
    for node in [node for node in nodes_of(model, "Reshape") if node.input[0] in view.weights]:
        shaped = view.array(node.input[0]).reshape(view.array(node.input[1]))
        graph.initializer.append(numpy_helper.from_array(shaped, node.output[0]))
        graph.node.remove(node)


def shape_gathers(model: ModelProto) -> None:
    """Give a Gather's constant index the sides into which a Reshape behind it parts the gathered one; in 32 bits."""
    graph, view = model.graph, View(model)
    made: dict[str, TensorProto] = {}
    for node in nodes_of(model, "Gather"):
        reshape = view.only_reader(node.output[0], "Reshape")
        if reshape is None or not {node.input[1], reshape.input[1]} <= view.weights.keys():
            continue
        index, target = view.array(node.input[1]), view.array(reshape.input[1]).tolist()
        source = view.shapes[node.output[0]]
        axis = attributes_of(node).get("axis", 0) % len(source)
        parted = target[axis : len(target) - (len(source) - axis - 1)]
        sides = [*source[:axis], *parted, *source[axis + 1 :]]
        if index.ndim == 1 and prod(parted) == len(index) and target == sides:
            name = f"{node.input[1]}.{'x'.join(map(str, parted))}"
            made[name] = numpy_helper.from_array(index.astype(np.int32).reshape(parted), name)
            node.input[1], node.output[0] = name, reshape.output[0]
            graph.node.remove(reshape)
    graph.initializer.extend(made.values())


def resize_by_scales(model: ModelProto, chosen: Callable[[NodeProto], bool] = lambda node: True) -> None:
    """Resize by `scales` instead of `sizes`, which would name the batch."""
    known = View(model).shapes
    for node in filter(chosen, nodes_of(model, "Resize")):
        before, after = known[node.input[0]], known[node.output[0]]
        scales = np.ones(len(before), np.float32)
        for axis, (source, target) in enumerate(zip(before, after, strict=True)):
            if axis:
                scales[axis] = scale_reaching(source, target)
        name = f"{node.output[0]}.scales"
        model.graph.initializer.append(numpy_helper.from_array(scales, name))
        del node.input[1:]
        node.input.extend(["", name])
        drop_new_defaults(node)


def drop_new_defaults(resize: NodeProto) -> None:
    """Remove what opset 17 does not know of a Resize, where it changes nothing."""
    for attribute in list(resize.attribute):
        if attribute.name in _NEW_IN_RESIZE_18 and (attribute.i or attribute.s or 0) in (
            _NEW_IN_RESIZE_18[attribute.name],
            0,
        ):
            resize.attribute.remove(attribute)


def scale_reaching(source: int, target: int) -> np.float32:
    """Divide target by source in float32, raised by an ulp where source × scale would be just below `target`.

    The product is checked in float64: runtimes differ in its type, and one that reaches `target` there also does in
    float32.
    """
    scale = np.float32(target / source)
    while source * float(scale) < target:
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale


def open_batch(model: ModelProto) -> None:
    """Let Reshapes copy the batch from their input (0) instead of naming it (1).

    Where heads join the batch or leave it again, the runtime computes the first side (-1): all others are fixed, and
    the batch is the outermost part of the first side.
    """
    view = View(model)
    opened: dict[tuple[str, int], str] = {}
    for node in nodes_of(model, "Reshape"):
        source, target = view.shapes[node.input[0]], view.array(node.input[1])
        first = 0 if source[0] == 1 and target[0] in (0, 1) else -1
        if first and not joins(source, target.tolist()):
            raise GraphError(f"{node.name} reshapes across the batch: {source} to {target.tolist()}")
        key = node.input[1], first
        if key not in opened:
            opened[key] = f"shape.{len(opened)}"
            copied = target.copy()
            copied[0] = first
            model.graph.initializer.append(numpy_helper.from_array(copied, opened[key]))
        node.input[1] = opened[key]
        del node.attribute[:]  # allowzero=1 would make our 0 an empty batch
    drop_unused(model.graph)


def joins(source: Sequence[int], target: Sequence[int]) -> bool:
    """Tell whether the reshape only lets sides behind the batch, or part of one as heads are, join it or leave it."""
    if -1 in target:
        return False
    if source[0] == 1 or target[0] == 1:
        alone, joined = (source, target) if source[0] == 1 else (target, source)
        leading = accumulate((1, *alone[1:]), mul)
        return next((count for count in leading if count >= joined[0]), 0) % joined[0] == 0
    return source[0] == target[0]


def set_batch(model: ModelProto, batch: int | None) -> None:
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        side = value.type.tensor_type.shape.dim[0]
        if batch is None:
            side.dim_param = "batch"
        else:
            side.dim_value = batch


def name_nodes(model: ModelProto, input_name: str, output_name: str) -> None:
    """Name a node `stages.0.blocks.1.ffn.expand/Conv` instead of `node_conv2d_6`, and a tensor like its node."""
    graph = model.graph
    renamed = {graph.input[0].name: input_name, graph.output[0].name: output_name}
    taken: Counter[str] = Counter()
    scopes: dict[str, str] = {}  # of tensors
    for node in graph.node:
        scope = scope_of(node)
        if not scope and node.op_type == "Split":  # the exporter gives it no scope: take its input's
            scope = scopes.get(node.input[0], "")
        scopes |= dict.fromkeys(node.output, scope)
        name = f"{scope}/{node.op_type}".lstrip("/")
        taken[name] += 1
        if taken[name] > 1:
            name = f"{name}.{taken[name]}"
        node.name = name
        for slot, output in enumerate(node.output):
            renamed.setdefault(output, f"{name}:{slot}" if slot else name)
    renamed |= names_of_constants(View(model))
    for item in graph.initializer:
        item.name = renamed.setdefault(item.name, item.name)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in graph.value_info:
        value.name = renamed.get(value.name, value.name)
    graph.input[0].name, graph.output[0].name = input_name, output_name


def names_of_constants(view: View) -> dict[str, str]:
    """Rename constants that the exporter numbered: a transposed weight becomes its layer's `weight` again."""
    taken = set(view.weights)
    renamed: dict[str, str] = {}
    for name in view.weights:
        if not _NUMBERED.fullmatch(name):
            continue
        node = view.readers[name][0]
        own = f"{scope_of(node)}.weight"
        alone = len(view.readers[name]) == 1
        if alone and node.op_type == "MatMul" and node.input[1] == name and own not in taken:
            renamed[name] = own
        else:
            renamed[name] = f"constant.{len(renamed)}"
        taken.add(renamed[name])
    return renamed


def scope_of(node: NodeProto) -> str:
    for item in node.metadata_props:
        if item.key == _SCOPES:
            scopes = ast.literal_eval(item.value)
            return str(scopes[-2]) if len(scopes) > 1 else ""
    return ""


def spread_norms(model: ModelProto) -> None:
    """Write each LayerNormalization as the simpler nodes that define it, for opsets and runtimes that lack it."""
    graph, nodes = model.graph, list(model.graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type != "LayerNormalization" or node.domain:
            graph.node.append(node)
            continue
        facts = {item.name: item for item in node.attribute}
        axis = facts["axis"].i if "axis" in facts else -1
        if axis != -1 or any(node.output[1:]):
            raise GraphError(f"{node.name} normalises from axis {axis} on, and only the last is taken apart")
        graph.initializer.extend(constants_of_norm(node, facts["epsilon"].f if "epsilon" in facts else 1e-5))
        graph.node.extend(nodes_of_norm(node))


def constants_of_norm(node: NodeProto, epsilon: float) -> list[TensorProto]:
    values: dict[str, NDArray[Any]] = {"axis": np.array([-1]), "epsilon": np.array(epsilon, np.float32)}
    return [numpy_helper.from_array(value, f"{node.name}/{name}") for name, value in values.items()]


def nodes_of_norm(node: NodeProto) -> Iterator[NodeProto]:
    """Give (x - mean) / sqrt(variance + epsilon) * scale + bias, each node under the norm's own name."""

    def made(op_type: str, name: str, *inputs: str) -> NodeProto:
        is_last = name == node.output[0]
        inner = f"{node.name}/{name}"
        return onnx.helper.make_node(
            op_type, inputs, [name if is_last else inner], node.name if is_last else inner
        )

    at = f"{node.name}/"
    source, scale, *bias = node.input
    yield made("ReduceMean", "mean", source, f"{at}axis")
    yield made("Sub", "centred", source, f"{at}mean")
    yield made("Mul", "squares", f"{at}centred", f"{at}centred")
    yield made("ReduceMean", "variance", f"{at}squares", f"{at}axis")
    yield made("Add", "raised", f"{at}variance", f"{at}epsilon")
    yield made("Sqrt", "deviation", f"{at}raised")
    yield made("Div", "normed", f"{at}centred", f"{at}deviation")
    yield made("Mul", "scaled" if bias else node.output[0], f"{at}normed", scale)
    if bias:
        yield made("Add", node.output[0], f"{at}scaled", bias[0])


def lower_opset(model: ModelProto, lowest: int = LOWEST_OPSET) -> None:
    """Declare the opset `lowest` if no node needs more."""
    opset = opset_entry(model)
    assert opset is not None  # noqa: S101 - the exporter says it
    own = [node for node in model.graph.node if node.domain == ""]  # plugins have no opset
    view = View(model)
    if all(in_opset(node, opset.version, view, lowest) for node in own):
        for node in own:
            for item in [item for item in node.attribute if item.name == "noop_with_empty_axes"]:
                node.attribute.remove(item)
            if node.op_type in AXES_BY_ATTRIBUTE and len(node.input) > 1 and node.input[1]:
                node.attribute.append(
                    onnx.helper.make_attribute("axes", view.array(node.input[1]).ravel().tolist())
                )
                del node.input[1:]
        opset.version = lowest
        model.ir_version = 8


def in_opset(node: NodeProto, written: int, view: View, lowest: int) -> bool:
    said = {item.name for item in node.attribute}
    if node.op_type == "Resize":
        return not said & {*_NEW_IN_RESIZE_18, "axes"} and written <= 18  # 19 rounds sizes otherwise
    if node.op_type == "Pad":
        return len(node.input) <= 3 and not any(item.s == b"wrap" for item in node.attribute)
    if node.op_type in AXES_BY_ATTRIBUTE:
        if any(name not in view.constants for name in node.input[1:] if name):
            return False
        return not any(item.name == "noop_with_empty_axes" and item.i for item in node.attribute)
    if node.op_type == "Split":
        return "num_outputs" not in said
    return bool(onnx.defs.get_schema(node.op_type, written).since_version <= lowest)


def forget_tracer(model: ModelProto) -> None:
    """Remove stack traces (with the exporting machine's paths), inferred shapes and doc strings."""
    graph = model.graph
    graph.name = "segdeploy"
    foreign = {
        name for node in graph.node if node.domain for name in node.output
    }  # no inference knows a plugin's
    for value in [value for value in graph.value_info if value.name not in foreign]:
        graph.value_info.remove(value)
    del model.metadata_props[:], graph.metadata_props[:], model.functions[:]
    for part in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        part.doc_string = ""
        del part.metadata_props[:]


def nodes_of(model: ModelProto, op_type: str) -> Iterator[NodeProto]:
    return (node for node in model.graph.node if node.op_type == op_type)
