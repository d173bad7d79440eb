"""Fixes a foreign graph at one size, and gives it what segdeploy's steps need: a recent opset and known shapes.

Exporters leave sides open and compute shapes while the graph runs: Shape, Gather, Concat, Reshape. At a fixed size all
of these are constant, and ONNX Runtime folds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx
from onnx import ModelProto, ValueInfoProto

from segdeploy.errors import GraphError
from segdeploy.graph.layers import tell_nodes_apart
from segdeploy.graph.tidy import drop_new_defaults, lower_opset
from segdeploy.graph.view import (
    STANDARD,
    View,
    attributes_of,
    copy_of,
    drop_unused,
    inner_graphs,
    opset_of,
    replace_nodes,
)
from segdeploy.model.signature import MOST_VALUES
from segdeploy.run.ort import constants_folded

WANTED_OPSET = 17  # the first with LayerNormalization as one node, and the last that TensorRT 8.6 reads
CHOSEN_PLACES = 11  # the first whose Resize says where in the source a pixel lies
LEAST_OPSET = 13  # the first whose INT8 has a scale per channel


def fixed(model: ModelProto, name: str, shape: Sequence[int]) -> ModelProto:
    """Copy `model` with its input of `shape`, its shape computations folded, and opset 17 where it was older."""
    made = copy_of(model)
    graph = made.graph
    weights = {item.name for item in graph.initializer}
    images = [value for value in graph.input if value.name not in weights]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(images)
    set_shape(graph.input[0], shape)
    for value in graph.output:  # the exporter's shapes may be of another size
        value.type.tensor_type.ClearField("shape")
    made = onnx.load_from_string(constants_folded(made.SerializeToString(), name))
    used = {node.domain for node in made.graph.node}  # ONNX Runtime imports every domain that it knows
    imports = [entry for entry in made.opset_import if entry.domain in STANDARD or entry.domain in used]
    del made.opset_import[len(imports) :]
    for kept, entry in zip(made.opset_import, [(one.domain, one.version) for one in imports], strict=True):
        kept.domain, kept.version = entry
    made = in_wanted_opset(made, name)
    turn_softmax(made)
    demand_plain(made, name)
    tell_nodes_apart(made)
    demand_shapes(made, name)
    return made


def set_shape(value: ValueInfoProto, shape: Sequence[int]) -> None:
    sides = value.type.tensor_type.shape
    del sides.dim[:]
    for side in shape:
        sides.dim.add().dim_value = side


def in_wanted_opset(model: ModelProto, name: str) -> ModelProto:
    """Rewrite a graph in opset 17; where that fails, it stays as it is if its opset is at least 13."""
    written = opset_of(model)
    if written >= WANTED_OPSET:
        for node in model.graph.node:
            if node.op_type == "Resize":
                drop_new_defaults(node)
        lower_opset(model)
        return model
    try:
        made = onnx.version_converter.convert_version(model, WANTED_OPSET)
        if written < CHOSEN_PLACES:
            say_places(made)
        return made
    except Exception as error:  # the converter raises many kinds
        if written >= LEAST_OPSET:
            return model
        raise GraphError(
            f"{name} has opset {written}, and it cannot be rewritten in {WANTED_OPSET}"
            f" ({str(error).splitlines()[0]}); export it again with opset {LEAST_OPSET} or newer"
        ) from error


def say_places(model: ModelProto) -> None:
    """Say of each Resize how it was meant before a graph could say so, which the converter leaves out."""
    for node in model.graph.node:
        if node.op_type == "Resize" and "coordinate_transformation_mode" not in attributes_of(node):
            node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            if attributes_of(node).get("mode", b"nearest") == b"nearest":
                node.attribute.append(onnx.helper.make_attribute("nearest_mode", "floor"))


def turn_softmax(model: ModelProto) -> None:
    """Let a Softmax work on its own axis, where it stands between two Transposes.

    Up to opset 12 it works on all axes from one on, so PyTorch's exporter turns the classes to the last place and back.
    """
    view = View(model)
    for node in view.nodes:
        if node.op_type not in ("Softmax", "LogSoftmax"):
            continue
        before, after = view.makers.get(node.input[0]), view.only_reader(node.output[0], "Transpose")
        if before is None or before.op_type != "Transpose" or after is None:
            continue
        perm, back = (list(attributes_of(one).get("perm", [])) for one in (before, after))
        if not perm or [perm[place] for place in back] != list(range(len(perm))):
            continue
        axis = attributes_of(node).get("axis", -1)
        del node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("axis", perm[axis]))
        node.input[0], node.output[0] = before.input[0], after.output[0]
        replace_nodes(model.graph, [one for one in view.nodes if one is not after])
        drop_unused(model.graph)
        turn_softmax(model)
        return


def demand_plain(model: ModelProto, name: str) -> None:
    """Refuse nodes that the later steps cannot read: those with inner graphs, and operators outside ONNX."""
    for node in model.graph.node:
        if inner_graphs(node):
            raise GraphError(
                f"{name} has a node {node.op_type} ({node.name or 'without a name'}) whose branch or length depends on"
                " the image, and engines are built of graphs without one; export it again so that none is left"
            )
        if node.domain not in STANDARD:
            raise GraphError(
                f"{name} has a node {node.domain}.{node.op_type}, which is no operator of ONNX; export it again with"
                " standard operators"
            )


def demand_shapes(model: ModelProto, name: str) -> None:
    view = View(model)
    unknown = [
        node
        for node in view.nodes
        if any(not is_known(view.shapes.get(output)) for output in node.output if output)
    ]
    if unknown:
        first = unknown[0]
        sides = view.shapes.get(
            next(output for output in first.output if not is_known(view.shapes.get(output)))
        )
        given = "×".join(str(side or "?") for side in sides) if sides else "of no known shape"
        raise GraphError(
            f"{name}: at one size {len(unknown)} of its {len(view.nodes)} nodes have results whose size depends on"
            f" what the image shows, first {first.name} ({first.op_type}), which is {given}; export it again with every"
            " side fixed, height and width as the number of classes"
        )
    for tensor, shape in view.shapes.items():
        if prod(shape) > MOST_VALUES:
            raise GraphError(
                f"{name}: its tensor {tensor} is {shape}; expected at most {MOST_VALUES:,} values, so export it at a"
                " smaller size"
            )


def is_known(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and 0 not in shape
