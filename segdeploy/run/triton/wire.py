"""Says what a session asks of a server, whichever protocol carries it, and how the server's refusals come back."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import RequestError
from segdeploy.model.signature import TensorFacts
from segdeploy.run.address import ModelAddress

# Of a refusal: nothing is there, or it is full or starting; it took too long; no such thing; the request is wrong; it
# is not allowed; TLS does not come about; anything else.
AWAY, LATE, UNKNOWN, WRONG, FORBIDDEN, UNSAFE, FAULT = (
    "away", "late", "unknown", "wrong", "forbidden", "unsafe", "fault",
)  # fmt: skip
DTYPES = {
    "UINT8": "uint8", "UINT16": "uint16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32",
}  # fmt: skip


EMPTY = (
    "it answered no bytes. So does a Python backend (of Triton 24.10 and earlier) that cannot read the arrays of a"
    " newer NumPy: pip install 'numpy<2' 'opencv-python-headless<4.12' into the server's Python"
)


class Refused(Exception):
    """Is raised by a wire; the session says it in words."""

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(said)
        self.kind = kind
        self.said = said


@dataclass(frozen=True)
class Region:
    """Names memory that the server has mapped."""

    name: str
    key: str
    size_bytes: int


@dataclass(frozen=True)
class ServerFacts:
    """Holds what a server says of itself."""

    name: str
    version: str


@dataclass(frozen=True)
class ModelFacts:
    """Holds what a server says of a model."""

    versions: tuple[str, ...]
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    most: int  # the largest batch; 0: the one of its tensors
    parameters: dict[str, str]


@dataclass(frozen=True)
class Times:
    """Sums up what a server did for one model since it was loaded; times in ns, of requests that it answered."""

    requests: int = 0
    executions: int = 0
    images: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    compute_ns: int = 0
    output_ns: int = 0

    def since(self, before: Times) -> Times:
        return Times(
            *(now - then for now, then in zip(vars(self).values(), vars(before).values(), strict=True))
        )


class Wire(Protocol):
    """Carries requests to a server; each takes at most `timeout_s`, and raises `Refused`."""

    def server(self, timeout_s: float) -> ServerFacts: ...

    def is_ready(self, timeout_s: float) -> bool: ...

    def model(self, timeout_s: float) -> ModelFacts: ...

    def models(self, timeout_s: float) -> dict[str, str]:
        """List the names of all models, each with the reason why it is not ready."""

    def times(self, timeout_s: float) -> Times: ...

    def infer(
        self, facts: TensorFacts, inputs: NDArray[Any], output: TensorFacts, timeout_s: float
    ) -> NDArray[Any]: ...

    def infer_shared(
        self,
        facts: TensorFacts,
        shape: tuple[int, ...],
        given: Region,
        output: TensorFacts,
        wanted: Region,
        timeout_s: float,
    ) -> tuple[int, ...]:
        """Let the server read its input from memory, and write its answer there; returns the answer's shape."""

    def register(self, region: Region, timeout_s: float) -> None: ...

    def unregister(self, region: Region, timeout_s: float) -> None: ...

    def close(self) -> None: ...


def trusted_by(address: ModelAddress) -> ssl.SSLContext:
    """Trust the certificates that the address names, or the system's."""
    try:
        file = address.authority and Path(address.authority).expanduser()
        return ssl.create_default_context(cafile=file)
    except OSError as error:  # which those of TLS are too
        why = error.strerror or str(error)
        raise RequestError(
            f"the certificates {address.authority} cannot be read ({why}); expected a PEM file with the certificate of"
            " the authority that signed the server's"
        ) from error


def datatype_of(dtype: str) -> str:
    """Name a type as Triton does."""
    return next(name for name, known in DTYPES.items() if known == dtype)


def facts_of_tensor(name: str, datatype: str, shape: list[int]) -> TensorFacts:
    return TensorFacts(
        name, DTYPES.get(datatype, datatype.lower()), tuple(None if side < 0 else side for side in shape)
    )


def facts_of_model(about: Any, most: int, parameters: Mapping[str, Any]) -> ModelFacts:
    """Take what a server says of a model, whose fields have the same names in all protocols."""
    inputs, outputs = (
        tuple(facts_of_tensor(one.name, one.datatype, [int(side) for side in one.shape]) for one in ends)
        for ends in (about.inputs, about.outputs)
    )
    said = {key: str(value.string_value) for key, value in parameters.items()}
    return ModelFacts(tuple(map(str, about.versions)), inputs, outputs, int(most), said)


def states_of(models: Iterable[Any]) -> dict[str, str]:
    """List the names of models, each with the reason why it is not ready."""
    return {one.name: "" if one.state == "READY" else str(one.reason or one.state) for one in models}


def from_bytes(data: bytes, datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Make an array of an answer; one that is shorter than its own shape says is refused."""
    kind = np.dtype(DTYPES.get(datatype, "uint8"))
    expected = int(np.prod(shape)) * kind.itemsize
    if not data and expected:
        raise Refused(FAULT, EMPTY)
    if len(data) != expected:
        raise Refused(
            FAULT,
            f"it answered {len(data):,} bytes where {'×'.join(map(str, shape))} {kind} are {expected:,}",
        )
    return np.frombuffer(data, kind).reshape(shape)


def sum_of(found: Any) -> Times:
    """Add up all versions that were asked for."""
    total = Times()
    for one in found:
        parts = one.inference_stats
        this = Times(
            parts.success.count, one.execution_count, one.inference_count, parts.queue.ns, parts.compute_input.ns,
            parts.compute_infer.ns, parts.compute_output.ns,
        )  # fmt: skip
        total = Times(*(a + b for a, b in zip(vars(total).values(), vars(this).values(), strict=True)))
    return total
