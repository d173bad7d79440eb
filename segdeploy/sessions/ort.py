"""ONNX Runtime: the backend that is everywhere, and the one every exported graph is proven on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import GraphError, MissingExtra
from segdeploy.signature import Signature, TensorFacts, read_signature

try:
    import onnxruntime as ort
except ImportError as error:
    raise MissingExtra("onnxruntime", "cpu", "running an .onnx") from error

_DTYPES = {"float": "float32", "float16": "float16", "double": "float64"}


class OrtSession:
    def __init__(self, path: Path, threads: int | None = None) -> None:
        options = quiet_options()
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            first_line = str(error).strip().splitlines()[0]
            raise GraphError(f"{path} cannot be loaded by ONNX Runtime: {first_line}") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        inputs = [facts(argument) for argument in self._session.get_inputs()]
        outputs = [facts(argument) for argument in self._session.get_outputs()]
        self.signature: Signature = read_signature(metadata, inputs, outputs, path.name)

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        self.signature.demand_input(inputs)
        answers = self._session.run([self.signature.output.name], {self.signature.input.name: inputs})
        return np.asarray(answers[0])

    def close(self) -> None:
        del self._session

    def __enter__(self) -> OrtSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_each(model: bytes, batches: Iterable[NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    """All outputs of a serialised graph by name, for one batch after the other."""
    session = ort.InferenceSession(model, quiet_options(), providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_outputs()]
    for batch in batches:
        answers = session.run(None, {session.get_inputs()[0].name: batch})
        yield {name: np.asarray(answer) for name, answer in zip(names, answers, strict=True)}


def quiet_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    return options


def facts(argument: Any) -> TensorFacts:
    name = argument.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(side if isinstance(side, int) else None for side in argument.shape)
    return TensorFacts(argument.name, _DTYPES.get(name, name), shape)
