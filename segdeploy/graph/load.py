"""What an .onnx says of itself, read without a runtime and without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from segdeploy.errors import GraphError, RequestError
from segdeploy.graph.fp16 import Typed, counting_nodes
from segdeploy.graph.known_bugs import opset_of, samples_of
from segdeploy.graph.precision import Written, written_in
from segdeploy.model.signature import Signature, TensorFacts, read_signature


@dataclass(frozen=True)
class GraphFacts:
    signature: Signature
    written: Written
    outputs: tuple[TensorFacts, ...]
    samples: int  # GridSample nodes
    counts: int  # nodes that count places, for which FP16 ends at 2048
    opset: int

    @property
    def precision(self) -> str:
        """`int8` and `fp16` where the graph itself says so, `fp32` where the builder is free to choose."""
        return "int8" if self.written.int8 else "fp16" if self.written.fp16 else "fp32"

    @property
    def is_typed(self) -> bool:
        """Whether its precision is written in it, so that a builder has to take it as it is."""
        return self.written.int8 or self.written.fp16


def read_facts(path: Path) -> GraphFacts:
    if not path.is_file():
        raise RequestError(
            f"there is no file {path}; a model is an .onnx made by: segdeploy export CHECKPOINT"
        )
    try:
        model = onnx.load(path, load_external_data=False)
        inputs = [tensor_facts(value) for value in model.graph.input]
        outputs = [tensor_facts(value) for value in model.graph.output]
    except Exception as error:  # protobuf's own, which depends on its version
        raise GraphError(f"{path} cannot be read as an ONNX graph: {str(error).splitlines()[0]}") from error
    if not inputs or not outputs:
        raise GraphError(f"{path} is not an ONNX graph: it has no input or no output")
    metadata = {item.key: item.value for item in model.metadata_props}
    signature = read_signature(metadata, inputs, outputs, path.name)
    gathers = any(node.op_type == "GatherND" for node in model.graph.node)  # looking closer takes a while
    counts = len(counting_nodes(Typed(model))) if gathers else 0
    return GraphFacts(
        signature, written_in(model), tuple(outputs), samples_of(model), counts, opset_of(model)
    )


def tensor_facts(value: Any) -> TensorFacts:
    kind = value.type.tensor_type
    sides = kind.shape.dim
    shape = tuple(side.dim_value if side.HasField("dim_value") else None for side in sides)
    return TensorFacts(value.name, str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))), shape)
