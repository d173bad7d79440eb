"""FP16 for what is not INT8, in a graph that has its Q/DQ pairs already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import ModelProto

from segdeploy.errors import GraphError
from segdeploy.graph.precision import to_fp16

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
        changed = sorted({node.op_type for node in model.graph.node if not same(node.op_type, opset.version)})
        if changed:
            raise GraphError(
                f"the graph has opset {opset.version}, and {', '.join(changed)} mean something else in {OPSET}, which"
                " FP16 beside INT8 needs; export it with that opset, or leave out --fp16"
            )
        opset.version = OPSET
    raised.ir_version = max(raised.ir_version, 9)
    return to_fp16(raised, keep_fp32, largest)


def same(op_type: str, opset: int) -> bool:
    if op_type in SAME_IN_19:
        return True
    new, old = (onnx.defs.get_schema(op_type, version) for version in (OPSET, opset))
    return bool(new.since_version == old.since_version)
