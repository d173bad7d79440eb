"""Writes FP16 into a graph, strongly typed: the form that TensorRT 10, 11 and RTX and ONNX Runtime all take.

Everything is FP16 except the graph's own inputs and outputs, which keep their types, and the nodes of `islands_of`,
which stay FP32. LayerNormalization is FP16 outside and FP32 inside by its own definition (stash_type 1). Keeping the
softmax, the norms, GELU or the upsampling and arg-max in FP32 too was measured on SegFormer-B0: none changes more than
one pixel in 5000 of a street scene, for better or worse, so none is worth its casts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from segdeploy.errors import CardError, GraphError
from segdeploy.graph.tidy import AXES_BY_ATTRIBUTE
from segdeploy.graph.view import View, copy_of, opset_entry, opset_of, replace_nodes

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
WHOLE = {TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8, TensorProto.UINT8}
# FP16 ends at 65504, and tensors that come near it stay FP32. The factor 8 covers what is not measured: images other
# than the probes (their largest |x| was up to 2.6 times the probes', over 300 tensors of two networks and 21 street
# scenes), and partial sums beyond their result. A lower limit gains nothing: FP16 is as precise at 5000 as at 5.
LIMIT = 65504 / 8
# Rounding costs a constant at most 2**-11 of its norm. A constant that loses more is subnormal as a whole; single small
# weights beside normal ones lose nothing that counts.
LOSS = 2**-10
PRODUCTS = {"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum"}
MOVES = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat", "Identity"}
TYPED_BY_ATTRIBUTE = {"Constant", "ConstantOfShape", "EyeLike"}
HOLD_GRAPHS = {"If", "Loop", "Scan"}
OPSET_OF_FP16_SCALES = 19  # the first in which pairs may have FP16 scales, and need no casts around them
SAME_IN_19 = (  # newer versions only take more types or modes, or have attributes whose defaults change nothing
    "Resize", "Reshape", "Cast", "Identity", "Constant", "QuantizeLinear", "DequantizeLinear", "Equal", "Shape",
    "Pad",
)  # fmt: skip


def to_fp16(
    model: ModelProto, keep_fp32: Sequence[str] = (), largest: Mapping[str, float] | None = None
) -> ModelProto:
    """Copy `model` in FP16. `keep_fp32`: patterns of node names; `largest`: the largest |x| seen in each tensor."""
    made = copy_of(model)
    view = View(made)
    kept = islands_of(view, keep_fp32, largest or {})
    half_slots = {  # (node, input slot)
        (index, slot)
        for index, node in enumerate(view.nodes)
        if index not in kept
        for slot, _ in halvable(view, node, "input")
    }
    half_made = {
        name
        for index, node in enumerate(view.nodes)
        if index not in kept
        for _, name in halvable(view, node, "output")
    }
    retype_constants(view, half_slots)
    retype_tensors(view, half_slots, half_made)
    retype_outputs(made, half_made)
    onnx.checker.check_model(made, full_check=True)
    return made


def fp32_nodes(model: ModelProto) -> list[str]:
    """Name the nodes that compute in FP32, in graph order."""
    types = View(model).types
    ends = (
        (node, types.get(node.input[0] if node.input else ""), types.get(node.output[0]))
        for node in model.graph.node
    )
    return [node.name for node, *pair in ends if node.op_type != "Cast" and FLOAT in pair]


# ---- which nodes stay FP32 -------------------------------------------------------------------------------------


def halvable(view: View, node: NodeProto, side: str) -> list[tuple[int, str]]:
    """List the node's FP32 inputs or outputs that its operator also takes in FP16 (not Resize's scales, say)."""
    if node.op_type in TYPED_BY_ATTRIBUTE:
        return []
    if not onnx.defs.has(node.op_type, node.domain) or node.op_type in HOLD_GRAPHS:
        raise GraphError(
            f"the node {node.name!r} is a {node.op_type}; FP16 is written into graphs of plain ONNX operators only"
        )
    schema = onnx.defs.get_schema(node.op_type, opset_of(view.model, node.domain), node.domain)
    formal, names = (schema.inputs, node.input) if side == "input" else (schema.outputs, node.output)
    return [
        (slot, name)
        for slot, name in enumerate(names)
        if view.types.get(name) == FLOAT and "tensor(float16)" in formal[min(slot, len(formal) - 1)].types
    ]


def fp32_weights(view: View) -> set[str]:
    return {name for name, item in view.weights.items() if item.data_type == FLOAT}


def fp32_neighbours(view: View) -> list[set[int]]:
    """Find for each node the nodes with which it exchanges FP32 tensors."""
    near: list[set[int]] = [set() for _ in view.nodes]
    for index, node in enumerate(view.nodes):
        for name in node.input:
            if name in view.places and view.types.get(name) == FLOAT:
                near[index].add(view.places[name])
                near[view.places[name]].add(index)
    return near


def islands_of(view: View, keep_fp32: Sequence[str], largest: Mapping[str, float]) -> set[int]:
    """Choose the nodes that stay FP32; returns their positions."""
    for pattern in keep_fp32:
        if not any(fnmatchcase(node.name, pattern) for node in view.nodes):
            raise CardError(
                f"keep_fp32 names {pattern!r}, and no node of this graph is called so; correct the card"
            )
    lost = {name for name in fp32_weights(view) if loss(view.array(name)) > LOSS}
    large = {name for name, value in largest.items() if not value <= LIMIT}
    kept = pixel_nodes(view) | counting_nodes(view)
    neighbours = fp32_neighbours(view)
    for index, node in enumerate(view.nodes):
        if node.op_type == "Cast":
            continue
        inputs = halvable(view, node, "input")
        if (
            not (inputs or halvable(view, node, "output"))
            or not large.isdisjoint([*node.input, *node.output])
            or not lost.isdisjoint(name for _, name in inputs)
            or any(fnmatchcase(node.name, pattern) for pattern in keep_fp32)
        ):
            kept.add(index)
    kept |= enclosed(view, kept, neighbours)
    # Keep the graph's own casts in FP32 if an FP32 node reads their result.
    for index, node in enumerate(view.nodes):
        own = node.op_type == "Cast" and view.types[node.output[0]] == FLOAT
        if own and (node.output[0] in view.ends or neighbours[index] & kept):
            kept.add(index)
    return kept


def loss(values: NDArray[np.float32]) -> float:
    """Measure a constant's loss in FP16 as a share of its norm: infinite if it overflows, 1 if it vanishes."""
    norm = float(np.linalg.norm(values.astype(np.float64)))
    with np.errstate(over="ignore"):
        halved = values.astype(np.float16).astype(np.float64)
    return float(np.linalg.norm(halved - values)) / norm if norm else 0.0


def pixel_nodes(view: View) -> set[int]:
    """Find the nodes that process uint8 pixels before the first product; FP16 then rounds them once, mean subtracted.

    So `frames` rounds the same numbers as `nvinfer`. In FP16 the mean itself would be rounded, 103.53 to 103.5.
    """
    inputs = view.model.graph.input
    exact = {value.name for value in inputs if value.type.tensor_type.elem_type == TensorProto.UINT8}
    weights, found = fp32_weights(view), set()
    for index, node in enumerate(view.nodes):
        moving = [name for name in node.input if view.types.get(name) in (FLOAT, TensorProto.UINT8)]
        moving = [name for name in moving if name not in weights]
        if moving and exact.issuperset(moving) and node.op_type not in PRODUCTS:
            exact.update(node.output)
            if node.op_type != "Cast":
                found.add(index)
    return found


def counting_nodes(view: View) -> set[int]:
    """Find the nodes from the last product to a cast to integers: FP16 counts only to 2048, an index may exceed it."""
    made_by = view.places
    edge = [
        made_by[node.input[0]]
        for node in view.nodes
        if node.op_type == "Cast" and view.types.get(node.output[0]) in WHOLE and node.input[0] in made_by
    ]
    found: set[int] = set()
    while edge:
        index = edge.pop()
        node = view.nodes[index]
        floats = [name for name in node.input if view.types.get(name) == FLOAT and name in made_by]
        if index in found or node.op_type in PRODUCTS or view.types.get(node.output[0]) != FLOAT:
            continue
        found.add(index)
        edge += [made_by[name] for name in floats]
    # The difference of two such numbers may be small, so it is taken before rounding.
    differences = {index for index, node in enumerate(view.nodes) if node.op_type == "Sub"}
    return found | {
        i for i in differences if {made_by.get(name, -1) for name in view.nodes[i].input} <= found
    }


def enclosed(view: View, kept: set[int], neighbours: list[set[int]]) -> set[int]:
    """Find nodes other than products that are surrounded by kept ones: in FP16 they would only cost casts."""
    casts = {index for index, node in enumerate(view.nodes) if node.op_type == "Cast"}
    products = {index for index, node in enumerate(view.nodes) if node.op_type in PRODUCTS}
    waiting = set(range(len(view.nodes))) - kept - casts - products
    found: set[int] = set()
    while waiting:
        edge = [waiting.pop()]
        group, border = set(edge), set()
        while edge:
            near = neighbours[edge.pop()] - casts - group
            edge += near & waiting
            group |= near & waiting
            border |= near - waiting
            waiting -= near
        if border and border <= kept:
            found |= group
    return found


# ---- writing the types -----------------------------------------------------------------------------------------


def retype_constants(view: View, half_slots: set[tuple[int, int]]) -> None:
    """Store each constant in its readers' type, or in both types."""
    weights = fp32_weights(view)
    uses = [
        (name, (index, slot) in half_slots, index, slot)
        for index, node in enumerate(view.nodes)
        for slot, name in enumerate(node.input)
        if name in weights
    ]
    in_full = {name for name, half, _, _ in uses if not half}
    written = set()
    for name, half, index, slot in uses:
        if not half:
            continue
        renamed = f"{name}.fp16" if name in in_full else name
        view.nodes[index].input[slot] = renamed
        if renamed in written:
            continue
        written.add(renamed)
        made = numpy_helper.from_array(view.array(name).astype(np.float16), renamed)
        if name in in_full:
            view.model.graph.initializer.append(made)
        else:
            view.weights[name].CopyFrom(made)


def retype_tensors(view: View, half_slots: set[tuple[int, int]], half_made: set[str]) -> None:
    """Put one Cast per tensor and direction where types change, before its first reader."""
    origins = {node.output[0]: node.input[0] for node in view.nodes if node.op_type == "Cast"}
    nodes, casts = [], set()
    for index, node in enumerate(view.nodes):
        if node.op_type == "Cast":  # a Cast reads either type
            if node.output[0] in half_made:
                next(attribute for attribute in node.attribute if attribute.name == "to").i = HALF
        else:
            for slot, name in enumerate(node.input):
                half = (index, slot) in half_slots
                constant = name in view.weights or name not in view.types
                if constant or view.types[name] != FLOAT or half == (name in half_made):
                    continue
                node.input[slot] = renamed = f"{name}.fp16" if half else f"{name}.fp32"
                if renamed not in casts:
                    casts.add(renamed)
                    nodes.append(cast(origins.get(name, name), renamed, HALF if half else FLOAT))
        nodes.append(node)
    replace_nodes(view.model.graph, nodes)


def retype_outputs(model: ModelProto, half_made: set[str]) -> None:
    """Keep name and type of the graph's outputs: those in FP16 are cast at the end."""
    outputs = {value.name for value in model.graph.output} & half_made
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{name}.fp16" if name in outputs else name for name in names]
    model.graph.node.extend(cast(f"{name}.fp16", name, FLOAT, f"{name}/Cast") for name in sorted(outputs))


def cast(source: str, target: str, kind: int, name: str = "") -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=name or target, to=kind)


# ---- beside INT8 -----------------------------------------------------------------------------------------------


def rest_in_fp16(model: ModelProto, keep_fp32: Sequence[str], largest: Mapping[str, float]) -> ModelProto:
    """Copy a graph with Q/DQ pairs, and write FP16 into the parts that are not INT8; arguments as for `to_fp16`."""
    raised = copy_of(model)
    opset = opset_entry(raised)
    if opset is not None and opset.version < OPSET_OF_FP16_SCALES:
        changed = sorted({node.op_type for node in model.graph.node if not same(node, opset.version)})
        if changed:
            raise GraphError(
                f"the graph has opset {opset.version}, and {', '.join(changed)} mean something else in"
                f" {OPSET_OF_FP16_SCALES}, which FP16 beside INT8 needs; export it with that opset, or leave out --fp16"
            )
        axes_as_inputs(raised)
        opset.version = OPSET_OF_FP16_SCALES
    raised.ir_version = max(raised.ir_version, 9)
    return to_fp16(raised, keep_fp32, largest)


def same(node: NodeProto, opset: int) -> bool:
    if node.op_type in (*SAME_IN_19, *AXES_BY_ATTRIBUTE):
        return True
    if node.op_type == "Split" and len(node.input) == 2:  # opset 18 asks for more only without sizes
        return True
    new, old = (onnx.defs.get_schema(node.op_type, version) for version in (OPSET_OF_FP16_SCALES, opset))
    return bool(new.since_version == old.since_version)


def axes_as_inputs(model: ModelProto) -> None:
    """Move the axes of reductions from attributes to inputs, as from opset 18 on."""
    for node in model.graph.node:
        axes = [attribute for attribute in node.attribute if attribute.name == "axes"]
        if node.op_type in AXES_BY_ATTRIBUTE and axes:
            node.attribute.remove(axes[0])
            name = f"{node.output[0]}.axes"
            model.graph.initializer.append(numpy_helper.from_array(np.array(axes[0].ints, np.int64), name))
            node.input.append(name)


# ---- proving it ------------------------------------------------------------------------------------------------


def rounding(model: ModelProto) -> ModelProto:
    """Copy an FP16 graph as an FP32 graph that rounds after every node as FP16 does, with the same names.

    ONNX Runtime's CPU provider has FP16 kernels for few operators. It runs the others in FP32 and drops the casts
    between neighbours. So an FP16 graph hardly rounds or overflows there, and proves little about a GPU.
    """
    made = copy_of(model)
    types = View(model).types
    for item in made.graph.initializer:
        if item.data_type == HALF:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float32), item.name))
    nodes = []
    for node in made.graph.node:
        nodes.append(node)
        called = node.name or node.output[0]  # ONNX Runtime refuses two nodes of one name
        for slot, name in enumerate(node.output):
            if types.get(name) != HALF or node.op_type in MOVES:
                continue
            half, exact = f"{name}.rounded", f"{name}.exact"
            node.name = f"{called}.exact"  # the node that now makes its tensor gets its name
            if node.op_type == "Cast":  # it is the rounding itself
                node.output[slot] = half
            else:
                node.output[slot] = exact
                nodes.append(cast(exact, half, HALF))
            nodes.append(cast(half, name, FLOAT, called if slot == 0 else f"{called}.{slot}"))
    replace_nodes(made.graph, nodes)
    onnx.checker.check_model(made, full_check=True)
    return made
