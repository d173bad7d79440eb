"""Runs graphs in OpenVINO on the CPU: SegFormer takes up to an eighth less time than in ONNX Runtime (benchmarks/).

By default OpenVINO computes in bfloat16 on a CPU that has it, which is not the proven graph. So it is told to compute
in the graph's own types, unless bfloat16 is asked for; on a CPU without it OpenVINO would compute in FP32 and say
nothing, which is refused here. By default it also multiplies what is quantised in products of bytes, right only on some
CPUs: they are for `precision="int8"`, which is compared with the graph.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import GraphError, MissingExtra, RequestError
from segdeploy.graph.attention import ALL, NONE
from segdeploy.machine import cpu_model
from segdeploy.model.card import ModelCard
from segdeploy.model.metadata import read_signature
from segdeploy.model.signature import Signature
from segdeploy.run.cpu_graph import copy_for_cpu
from segdeploy.run.open_model import OpenModel
from segdeploy.run.runtimes import SessionOptions
from segdeploy.size import Size

try:
    import openvino
except ImportError as error:
    raise MissingExtra("openvino", "openvino", "the provider openvino") from error

# What OpenVINO calls the precisions that it says a CPU has.
CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "int8": "INT8"}
# Leaves Q/DQ pairs as they are. Its own products of bytes add in 16 bits on a CPU without VNNI, and saturate.
PAIRS_AS_WRITTEN = {"LP_TRANSFORMS_MODE": "NO"}


def open_in_openvino(path: Path, options: SessionOptions) -> OpenvinoSession:
    return OpenvinoSession(
        path,
        options.threads,
        options.card,
        options.precision,
        options.size,
        options.streams,
        options.attention,
    )


def precisions_here() -> list[str]:
    """List the precisions that this CPU computes in."""
    found = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [precision for precision, name in CAPABILITIES.items() if name in found]


def demand_computed(precision: str) -> None:
    here = precisions_here()
    if precision not in here:
        raise RequestError(
            f"{precision} is not computed by this CPU ({cpu_model()}), which has {' and '.join(here)} in OpenVINO;"
            f" take --precision {here[0]}, or leave it out"
        )


def precision_of_floats(asked: str | None) -> str:
    """Say in what OpenVINO computes what is no product of bytes; beside those, bfloat16 is faster where it is there."""
    return "bf16" if asked == "bf16" or (asked == "int8" and "bf16" in precisions_here()) else "f32"


class OpenvinoSession(OpenModel):
    device = "cpu"

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        card: ModelCard | None = None,
        precision: str | None = None,
        size: Size | None = None,
        streams: int = 1,
        attention: str = ALL,
    ) -> None:
        self.name = path.name
        if precision is not None:
            demand_computed(precision)
        copy = copy_for_cpu(path, "openvino", size, in_bytes=precision == "int8", attention=attention)
        if copy is None:
            raise GraphError(
                f"{path} cannot be loaded by OpenVINO here: it is not an ONNX graph in one file of less than 2 GB"
            )
        self.signature: Signature = read_signature(copy.metadata, copy.inputs, copy.outputs, path.name, card)
        self.has_attention_in_bytes = copy.attention_in_bytes != NONE
        self.batches = (self.signature.batch or 1,) * 2
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision_of_floats(precision),
            "INFERENCE_NUM_THREADS": streams * threads if threads else len(os.sched_getaffinity(0)),
            "NUM_STREAMS": streams,
        }
        if copy.quantised and precision is None:
            self._settings |= PAIRS_AS_WRITTEN
        try:
            compiled = self._compile(copy.model)
        except RuntimeError as error:
            said = str(error).strip().splitlines()[-1]
            raise GraphError(f"{path} cannot be loaded by OpenVINO: {said}") from error
        self._labels, self.ran = copy.labels, copy.ran_in(precision)
        self._last: Any = None
        self._lock = threading.Lock()
        self._idle: LifoQueue[Any] | None = LifoQueue()  # requests: each computes one answer at a time
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        self.signature.demand_input(inputs)
        idle = self._idle
        if idle is None:
            raise RequestError(f"the session of {self.name} is closed")
        request = idle.get()
        try:
            request.infer([np.ascontiguousarray(inputs)], share_inputs=True)
            answer = request.get_output_tensor(0).data  # OpenVINO's own memory, written by the next run
            if self._labels and self._labels.fit(answer):
                return self._labels.of(answer)
            if self._labels:
                answer = self._labels_of_file(np.array(answer))
            return np.array(answer, self.signature.output.dtype)
        finally:
            idle.put(request)

    def _labels_of_file(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Run the file's own last nodes, for logits that are not all finite."""
        with self._lock:
            if self._last is None:
                assert self._labels is not None  # noqa: S101 - asked for where there are some
                self._last = self._compile(self._labels.nodes).create_infer_request()
            self._last.infer([logits])
            return np.array(self._last.get_output_tensor(0).data)

    def _compile(self, model: bytes) -> Any:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(model), "CPU", self._settings)
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if taken != self._settings["INFERENCE_PRECISION_HINT"]:
            raise RequestError(
                f"OpenVINO computes {self.name} in {taken} here, not in {self._settings['INFERENCE_PRECISION_HINT']}"
            )
        return compiled

    def close(self) -> None:
        self._idle = self._last = None
