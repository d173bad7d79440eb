"""Reads the precision that each layer of an engine has, from TensorRT's inspector or from the network's types."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from segdeploy.convert.engine.request import EngineRequest
from segdeploy.errors import EngineError
from segdeploy.flavour import Flavour
from segdeploy.graph.layers import group_of
from segdeploy.model.engine import LayerCounts
from segdeploy.run import cuda
from segdeploy.run.tensorrt.log import Heard, logger_of

WITH_INT8 = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
IDLE = {  # the inspector's names of layers that only move, fill or convert
    "reformat", "constant", "noop", "shuffle", "cast", "quantize", "dequantize", "signal", "wait", "shape",
    "shapehosttodevice",
}  # fmt: skip
TYPES = {
    "fp32": "FP32", "float": "FP32", "float32": "FP32", "fp16": "FP16", "half": "FP16", "float16": "FP16",
    "bf16": "BF16", "bfloat16": "BF16", "fp8": "FP8", "int8": "INT8",
}  # fmt: skip
TYPE_KEYS = ("DataType", "Datatype", "Format/Datatype", "Format/DataType")
NARROWEST = ("FP8", "FP16", "BF16", "FP32")
ATTENTION = re.compile(r"(^|[^a-z0-9])mha([^a-z0-9]|$)")  # as in _gemm_mha_v2
NOT_TOLD = re.compile(r"^\W*n/?a\b", re.IGNORECASE)  # "N/A due to dynamic shapes"
OF_THE_GRAPH = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class LayerFacts:
    name: str
    kind: str
    precision: str  # INT8 | FP16 | BF16 | FP32 | FP8
    tactic: str
    group: str  # its part of the graph; all blocks of a stage share one


@dataclass(frozen=True)
class Report:
    source: str  # inspector: read from the engine; network: the types it was built from; unknown: neither is known
    layers: tuple[LayerFacts, ...]

    @property
    def by_precision(self) -> dict[str, int]:
        if self.source == "unknown":
            return {}
        counted = Counter(layer.precision for layer in self.layers)
        return {name: counted.get(name, 0) for name in sorted({"INT8", "FP16", "FP32"} | set(counted))}

    @property
    def groups(self) -> dict[str, dict[str, int]]:
        found: dict[str, Counter[str]] = {}
        for layer in self.layers:
            found.setdefault(layer.group, Counter())[layer.precision] += 1
        return {name: dict(counted) for name, counted in found.items()}

    @property
    def fused_attention(self) -> int | None:
        """Count the attentions that were fused into one kernel; None without the inspector, which alone shows it."""
        if self.source != "inspector":
            return None
        return sum(bool(ATTENTION.search(f"{layer.name} {layer.tactic}".lower())) for layer in self.layers)

    @property
    def counts(self) -> LayerCounts:
        return LayerCounts(
            self.source, len(self.layers), self.by_precision, self.groups, self.fused_attention
        )


@dataclass(frozen=True)
class Inside:
    """Holds the inspector's answer; `report` is None where it names no layers."""

    report: Report | None
    device_bytes: int


def inspect_plan(flavour: Flavour, plan: bytes, heard: Heard, *, carries_code: bool = False) -> Inside | None:
    """Load the engine and ask the inspector; None for TensorRT-RTX without a GPU, which cannot load it."""
    runtime = flavour.module.Runtime(logger_of(flavour.module))
    if carries_code:
        runtime.engine_host_code_allowed = True  # we have just built it
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        if flavour.builds_without_gpu:
            return None
        raise EngineError(f"{flavour} cannot load the engine it has built: {'; '.join(heard.errors[-3:])}")
    text = told_of(engine, flavour)
    held = engine.device_memory_size_v2 if flavour.counts_memory_in_64_bits else engine.device_memory_size
    layers = read_layers(text)
    return Inside(Report("inspector", layers) if layers else None, int(held))


def told_of(engine: Any, flavour: Flavour) -> str:
    """Return the inspector's JSON; where a size is open, the inspector needs a context with shapes to know types."""
    inspector = engine.create_engine_inspector()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    mode = flavour.module.TensorIOMode.INPUT
    still_open = [
        name
        for name in names
        if engine.get_tensor_mode(name) == mode and min(engine.get_tensor_shape(name)) < 0
    ]
    form = flavour.module.LayerInformationFormat.JSON
    if not still_open or cuda.why_no_gpu() is not None:
        return str(inspector.get_engine_information(form))
    with cuda.open_device().active():
        context = engine.create_execution_context()  # the first one gets profile 0 by default
        if context is not None:  # None: too little memory
            for name in still_open:
                context.set_input_shape(name, tuple(engine.get_tensor_profile_shape(name, 0)[1]))
            inspector.execution_context = context
        text = str(inspector.get_engine_information(form))
        del inspector, context  # while the device is active: the context holds memory on it
    return text


def read_layers(text: str) -> tuple[LayerFacts, ...]:
    """Read the layers from the inspector's JSON; none where it leaves out a type, since a part would mislead."""
    found = []
    for layer in json.loads(text).get("Layers", []):
        if not isinstance(layer, dict):  # without detailed verbosity it is a name only
            continue
        kind = str(layer.get("LayerType", ""))
        if kind.lower() in IDLE:
            continue
        precision = inspected_precision(layer)
        if precision is None:
            if is_not_told(layer):
                return ()
            continue
        name = str(layer.get("Name", ""))
        found.append(
            LayerFacts(name, kind, precision, str(layer.get("TacticName", "")), group_of(of_graph(layer)))
        )
    return tuple(found)


def inspected_precision(layer: dict[str, Any]) -> str | None:
    """Give INT8 if the layer reads INT8 (one that only writes it rounds for the next), else its narrowest type."""
    reads = {type_of(tensor) for tensor in layer.get("Inputs", [])}
    touched = reads | {type_of(tensor) for tensor in layer.get("Outputs", [])}
    if "INT8" in reads:
        return "INT8"
    return next((name for name in NARROWEST if name in touched), None)


def is_not_told(layer: dict[str, Any]) -> bool:
    tensors = [*layer.get("Inputs", []), *layer.get("Outputs", [])]
    return any(NOT_TOLD.match(str(tensor.get(key, ""))) for tensor in tensors for key in TYPE_KEYS)


def type_of(tensor: dict[str, Any]) -> str | None:
    """Find a tensor's type: TensorRT ≤ 10 writes `Format/Datatype: Row major linear FP16`, 11 has a key for it."""
    for key in TYPE_KEYS:
        for word in re.findall(r"[a-z]+\d*", str(tensor.get(key, "")).lower()):
            if word in TYPES:
                return TYPES[word]
    return None


def of_graph(layer: dict[str, Any]) -> str:
    """Name the first graph node in this layer; TensorRT joins the names of the nodes that it fuses."""
    named = OF_THE_GRAPH.search(str(layer.get("Metadata", "")))
    if named:
        return named[1]
    return re.split(r" \+ |\.\.\.", re.sub(r"^\{?ForeignNode\[|__myl_\w+", "", str(layer.get("Name", ""))))[0]


def demand_precision(report: Report, request: EngineRequest, graph: str, flavour: Flavour) -> None:
    """Refuse an engine without the requested precision: it would be slower, and its measurements would mislead.

    An engine whose layers are unknown is not refused.
    """
    if report.source == "unknown":
        return
    counted = report.by_precision
    total = sum(counted.values())
    shown = ", ".join(f"{count} {name}" for name, count in counted.items() if count)
    if request.int8 and not counted["INT8"]:
        raise EngineError(
            f"INT8 was asked for, and none of the {total} layers that {flavour} built from {graph} is ({shown});"
            " the graph has no Q/DQ pairs around its products. Quantise it with segdeploy quantize. No file was written"
        )
    if request.fp16 and not counted["FP16"]:
        raise EngineError(
            f"FP16 was asked for, and none of the {total} layers that {flavour} built from {graph} is ({shown});"
            " give it the FP32 graph, and --fp16 writes the types into it. No file was written"
        )
