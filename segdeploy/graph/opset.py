"""A newer opset for a graph whose nodes all mean the same in it."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from segdeploy.errors import GraphError

OF_FP16_PAIRS = 19  # from here on Q/DQ pairs have FP16 scales and need no casts around them
SAME_IN_19 = (  # newer versions only take more types, or have attributes whose defaults change nothing
    "Resize", "Reshape", "Cast", "Identity", "Constant", "QuantizeLinear", "DequantizeLinear", "Equal", "Shape",
)  # fmt: skip


def raise_for_fp16_pairs(model: ModelProto, name: str) -> None:
    opset = next(item for item in model.opset_import if item.domain == "")
    if opset.version < OF_FP16_PAIRS:
        changed = {node.op_type for node in model.graph.node if not unchanged(node.op_type, opset.version)}
        if changed:
            raise GraphError(
                f"{name} has opset {opset.version}, and {', '.join(sorted(changed))} mean something else in"
                f" {OF_FP16_PAIRS}, which --fp16 needs; export it with that opset, or leave out --fp16"
            )
        opset.version = OF_FP16_PAIRS
    model.ir_version = max(model.ir_version, 9)


def unchanged(op_type: str, opset: int) -> bool:
    if op_type in SAME_IN_19 or opset >= OF_FP16_PAIRS:
        return True
    new, old = (onnx.defs.get_schema(op_type, version) for version in (OF_FP16_PAIRS, opset))
    return bool(new.since_version == old.since_version)
