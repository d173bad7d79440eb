"""Look at tensors inside a graph while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import GraphError, MissingExtra
from segdeploy.sessions.ort import quiet_options

try:
    import onnx
    import onnxruntime as ort
    from onnx import ModelProto
except ImportError as error:
    raise MissingExtra("onnxruntime", "cpu", "running an .onnx") from error


class TapSession:
    """`tensors` of a graph, for each batch that is run; its own outputs are not computed unless they are among them."""

    def __init__(self, model: ModelProto, tensors: Sequence[str], threads: int | None = None) -> None:
        opened = ModelProto()
        opened.CopyFrom(model)
        del opened.graph.output[:]
        opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors)
        options = quiet_options()
        if threads is not None:
            options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = False  # the arena would keep the largest sum of all tapped tensors
        try:
            self._session = ort.InferenceSession(
                opened.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise GraphError(f"ONNX Runtime cannot open the graph: {str(error).splitlines()[0]}") from error
        self._input = model.graph.input[0].name
        self.tensors = list(tensors)

    def run(self, inputs: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Each tensor with its name; let go of one before taking the next, and its memory is free."""
        answers = self._session.run(self.tensors, {self._input: inputs})
        answers.reverse()
        for name in self.tensors:
            yield name, np.asarray(answers.pop())
