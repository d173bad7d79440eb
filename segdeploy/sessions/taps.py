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
    """`tensors` of a graph, for each batch that is run; its own outputs are not computed unless they are among them.

    The tensors are written into the same arrays in each run: what is to be kept of one is copied before the next.
    """

    def __init__(self, model: ModelProto, tensors: Sequence[str]) -> None:
        opened = ModelProto()
        opened.CopyFrom(model)
        del opened.graph.output[:]
        self._input = model.graph.input[0].name
        # The input itself is not asked for: a bound output that is an input is not written.
        self._inner = [name for name in tensors if name != self._input]
        opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in self._inner)
        options = quiet_options()
        # Q/DQ pairs are computed as they are written, not by integer kernels of this very CPU.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = ort.InferenceSession(
                opened.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise GraphError(f"ONNX Runtime cannot open the graph: {str(error).splitlines()[0]}") from error
        self._binding = self._session.io_binding()
        self._arrays: dict[str, NDArray[Any]] = {}
        self._unknown: list[str] = []
        self._batch = 0
        self.tensors = list(tensors)

    def run(self, inputs: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Each tensor with its name."""
        if len(inputs) != self._batch:
            self._make_arrays(len(inputs))
        given = np.ascontiguousarray(inputs)
        self._binding.bind_cpu_input(self._input, given)
        for name in self._unknown:  # bound again each time, or the array of the last run would be taken
            self._binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._binding)
        found = self._arrays | {self._input: given}
        made = self._binding.get_outputs()[len(self._arrays) :]  # in the order of binding
        found |= {name: value.numpy() for name, value in zip(self._unknown, made, strict=True)}
        return ((name, found[name]) for name in self.tensors)

    def _make_arrays(self, batch: int) -> None:
        """Arrays for all tensors, made once: fresh ones for each run would cost a fifth of the run's time.

        What ONNX Runtime cannot tell the shape of beforehand, it makes afresh.
        """
        self._binding.clear_binding_outputs()
        self._arrays, self._unknown, self._batch = {}, [], batch
        for output in self._session.get_outputs():
            first, *others = output.shape or (None,)
            kind = _DTYPES.get(output.type)
            if not output.shape or kind is None or not all(isinstance(side, int) for side in others):
                self._unknown.append(output.name)
                continue
            array = np.empty([first if isinstance(first, int) else batch, *others], kind)
            self._arrays[output.name] = array
            self._binding.bind_output(output.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}
