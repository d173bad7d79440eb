"""One view of a graph: who makes and who reads each tensor, what is known of it, and the opset."""

from __future__ import annotations

from onnx import ModelProto


def copy_of(model: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    return made
