"""FP16 for what is not INT8, in a graph that has its Q/DQ pairs already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from segdeploy.errors import GraphError
from segdeploy.graph.fp16 import to_fp16
from segdeploy.graph.tidy import AXES_BY_ATTRIBUTE

OPSET = 19  # from here on pairs may have FP16 scales, and need no casts around them
SAME_IN_19 = (  # newer versions only take more types, or have attributes whose defaults change nothing
    "Resize", "Reshape", "Cast", "Identity", "Constant", "QuantizeLinear", "DequantizeLinear", "Equal", "Shape",
)  # fmt: skip


def rest_in_fp16(model: ModelProto, keep_fp32: Sequence[str], largest: Mapping[str, float]) -> ModelProto:
    """A copy; `keep_fp32` and `largest` as for `to_fp16`."""
    raised = ModelProto()
    raised.CopyFrom(model)
    opset = next(item for item in raised.opset_import if item.domain == "")
    if opset.version < OPSET:
        changed = sorted({node.op_type for node in model.graph.node if not same(node, opset.version)})
        if changed:
            raise GraphError(
                f"the graph has opset {opset.version}, and {', '.join(changed)} mean something else in {OPSET}, which"
                " FP16 beside INT8 needs; export it with that opset, or leave out --fp16"
            )
        axes_as_inputs(raised)
        opset.version = OPSET
    raised.ir_version = max(raised.ir_version, 9)
    return to_fp16(raised, keep_fp32, largest)


def same(node: NodeProto, opset: int) -> bool:
    if node.op_type in (*SAME_IN_19, *AXES_BY_ATTRIBUTE):
        return True
    if node.op_type == "Split" and len(node.input) == 2:  # 18 asks for more only where no sizes are given
        return True
    new, old = (onnx.defs.get_schema(node.op_type, version) for version in (OPSET, opset))
    return bool(new.since_version == old.since_version)


def axes_as_inputs(model: ModelProto) -> None:
    """Reductions name their axes in an input from opset 18 on."""
    for node in model.graph.node:
        axes = [attribute for attribute in node.attribute if attribute.name == "axes"]
        if node.op_type in AXES_BY_ATTRIBUTE and axes:
            node.attribute.remove(axes[0])
            name = f"{node.output[0]}.axes"
            model.graph.initializer.append(numpy_helper.from_array(np.array(axes[0].ints, np.int64), name))
            node.input.append(name)
