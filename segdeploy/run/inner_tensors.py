"""Looks at tensors inside a graph while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import GraphError, MissingExtra
from segdeploy.graph.view import View, copy_of
from segdeploy.run.ort import quiet_options, said_by_ort

try:
    import onnx
    import onnxruntime as ort
    from onnx import ModelProto
except ImportError as error:
    raise MissingExtra("onnxruntime", "cpu", "running an .onnx") from error


class TapSession:
    """Gives `tensors` of a graph for each batch; its own outputs are computed only if they are among them.

    Each run writes into the same arrays: copy what you keep before the next one.
    """

    def __init__(
        self, model: ModelProto, tensors: Sequence[str], arena: bool = True, threads: int | None = None
    ) -> None:
        opened = copy_of(model)
        del opened.graph.output[:]
        self.inputs = [value.name for value in View(model).inputs]
        # Inputs are left out: ONNX Runtime does not write a bound output that is an input.
        self._inner = [name for name in tensors if name not in self.inputs]
        opened.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in self._inner)
        options = quiet_options(threads)
        options.enable_cpu_mem_arena = arena
        try:
            self._session = ort.InferenceSession(
                opened.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise GraphError(f"ONNX Runtime cannot open the graph: {said_by_ort(error)}") from error
        self._binding = self._session.io_binding()
        self._arrays: dict[str, NDArray[Any]] = {}
        self._unknown: list[str] = []
        self._batch = 0
        self.tensors = list(tensors)

    def run(self, inputs: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Run a batch, and yield each tensor with its name."""
        found = self.look({self.inputs[0]: inputs}, len(inputs))
        return ((name, found[name]) for name in self.tensors)

    def look(self, inputs: Mapping[str, NDArray[Any]], batch: int) -> dict[str, NDArray[Any]]:
        """Run a batch, and give all tensors by name, with the inputs."""
        if batch != self._batch:
            self._make_arrays(batch)
        given = {name: np.ascontiguousarray(inputs[name]) for name in self.inputs}
        for name, values in given.items():
            self._binding.bind_cpu_input(name, values)
        for name in self._unknown:  # bound anew each time, or the last run's array would be reused
            self._binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._binding)
        made = self._binding.get_outputs()[len(self._arrays) :]  # in the order of binding
        unknown = {name: value.numpy() for name, value in zip(self._unknown, made, strict=True)}
        return self._arrays | unknown | given

    def forget(self) -> None:
        """Free the arrays; the next run makes new ones."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        self._arrays, self._unknown, self._batch = {}, [], 0

    def _make_arrays(self, batch: int) -> None:
        """Make arrays for all tensors once: new ones for each run would cost a fifth of the run's time.

        Tensors whose shape ONNX Runtime does not know beforehand get a new array in each run.
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


class TapChain:
    """Runs the parts of one graph one after the other, so that only one part's tensors are in memory at a time.

    Each part has its graph, the tensors to look at, and those that it passes on.
    """

    def __init__(
        self, parts: Sequence[tuple[ModelProto, Sequence[str], Sequence[str]]], threads: int | None = None
    ) -> None:
        alone = len(parts) == 1
        # An arena would keep each part's memory to the end.
        self._sessions = [
            TapSession(model, list(dict.fromkeys([*tensors, *passed])), arena=alone, threads=threads)
            for model, tensors, passed in parts
        ]
        self._tensors = [list(tensors) for _, tensors, _ in parts]
        self._passed = [list(passed) for _, _, passed in parts]
        self._last_reader = {name: place for place, one in enumerate(self._sessions) for name in one.inputs}

    def run(self, name: str, inputs: NDArray[Any]) -> Iterator[list[tuple[str, NDArray[Any]]]]:
        """Yield each part's tensors with their names; use them before you take the next part's."""
        carried = {name: inputs}
        for place, session in enumerate(self._sessions):
            found = session.look(carried, len(inputs))
            yield [(tensor, found[tensor]) for tensor in self._tensors[place]]
            if len(self._sessions) > 1:
                carried |= {passed: found[passed] for passed in self._passed[place]}
                carried = {kept: carried[kept] for kept in carried if self._last_reader.get(kept, 0) > place}
                del found
                session.forget()


_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
}
