"""Speaks HTTP to a server: version 2 of the inference protocol, with its tensors as bytes behind the JSON."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from http.client import (
    BadStatusLine,
    HTTPConnection,
    HTTPException,
    HTTPSConnection,
    RemoteDisconnected,
)
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from numpy.typing import NDArray

from segdeploy.model.signature import TensorFacts
from segdeploy.run.address import ModelAddress
from segdeploy.run.triton import wire
from segdeploy.run.triton.wire import (
    ModelFacts,
    Refused,
    Region,
    ServerFacts,
    Times,
    datatype_of,
    facts_of_model,
    from_bytes,
    states_of,
    sum_of,
    trusted_by,
)
from segdeploy.untrusted import Unreadable, parse_json

LENGTH = "Inference-Header-Content-Length"
LARGEST_ANSWER = 2**31 - 1
KINDS = {
    400: wire.WRONG,
    401: wire.FORBIDDEN,
    403: wire.FORBIDDEN,
    404: wire.UNKNOWN,
    413: wire.WRONG,
    503: wire.AWAY,
}


class HttpWire:
    """Has a connection for each thread, which is kept."""

    def __init__(self, address: ModelAddress) -> None:
        self._address = address
        self._own = threading.local()
        self._open: list[HTTPConnection] = []
        self._trusted = trusted_by(address) if address.secure else None

    def _connection(self, timeout_s: float) -> HTTPConnection:
        address, found = self._address, getattr(self._own, "connection", None)
        if found is None:
            if self._trusted:
                found = HTTPSConnection(address.host, address.port, timeout=timeout_s, context=self._trusted)
            else:
                found = HTTPConnection(address.host, address.port, timeout=timeout_s)
            self._own.connection = found
            self._open.append(found)
        found.timeout = timeout_s
        if found.sock is not None:
            found.sock.settimeout(timeout_s)
        return found

    def _ask(
        self, method: str, path: str, body: bytes = b"", header_bytes: int | None = None, timeout_s: float = 0
    ) -> tuple[Any, bytes]:
        """Send one request; returns its JSON, and the bytes behind that."""
        connection = self._connection(timeout_s)
        headers = {"Content-Type": "application/json"}
        if header_bytes is not None:
            headers |= {"Content-Type": "application/octet-stream", LENGTH: str(header_bytes)}
        if self._address.authorization:
            headers["Authorization"] = self._address.authorization
        fresh = connection.sock is None
        try:
            connection.request(method, f"/v2/{path}".rstrip("/"), body or None, headers)
            response = connection.getresponse()
            data = response.read(LARGEST_ANSWER)
        except (OSError, HTTPException) as error:
            connection.close()
            raise refused(error, fresh) from error
        length = int(response.headers.get(LENGTH) or len(data))
        facts = json_of(data[:length], response.status, response.headers.get("Content-Type") or "")
        if response.status != 200:
            said = facts.get("error") if isinstance(facts, dict) else None
            kind = KINDS.get(response.status, wire.FAULT)
            # Triton's HTTP answers 400 also for what gRPC calls otherwise.
            if said and kind == wire.WRONG and "unknown model" in said.lower():
                kind = wire.UNKNOWN
            raise Refused(kind, str(said or f"HTTP status {response.status}"))
        return facts, data[length:]

    def _model_path(self) -> str:
        address = self._address
        return f"models/{quote(address.model)}" + (f"/versions/{address.version}" if address.version else "")

    def server(self, timeout_s: float) -> ServerFacts:
        found, _ = self._ask("GET", "", timeout_s=timeout_s)
        return ServerFacts(str(found.get("name", "")), str(found.get("version", "")))

    def is_ready(self, timeout_s: float) -> bool:
        try:
            self._ask("GET", f"{self._model_path()}/ready", timeout_s=timeout_s)
        except Refused as error:
            if error.kind in (wire.WRONG, wire.UNKNOWN):
                return False
            raise
        return True

    def model(self, timeout_s: float) -> ModelFacts:
        about, _ = self._ask("GET", self._model_path(), timeout_s=timeout_s)
        config, _ = self._ask("GET", f"{self._model_path()}/config", timeout_s=timeout_s)
        try:
            parameters = vars(with_names(config.get("parameters", {})))
            return facts_of_model(with_names(about), config.get("max_batch_size", 0), parameters)
        except (TypeError, ValueError, AttributeError) as error:
            raise Refused(
                wire.FAULT, f"its description of the model is not understood ({error!r})"
            ) from error

    def models(self, timeout_s: float) -> dict[str, str]:
        found, _ = self._ask("POST", "repository/index", b"{}", timeout_s=timeout_s)
        return states_of(with_names([{"state": "", "reason": "", **one} for one in found]))

    def times(self, timeout_s: float) -> Times:
        found, _ = self._ask("GET", f"{self._model_path()}/stats", timeout_s=timeout_s)
        return sum_of(with_names(found).model_stats)

    def infer(
        self, facts: TensorFacts, inputs: NDArray[Any], output: TensorFacts, timeout_s: float
    ) -> NDArray[Any]:
        data = inputs.tobytes()
        given = {"parameters": {"binary_data_size": len(data)}}
        answer, behind = self._infer(
            facts, inputs.shape, given, output, {"parameters": {"binary_data": True}}, data, timeout_s
        )
        return from_bytes(behind, answer["datatype"], tuple(answer["shape"]))

    def infer_shared(
        self,
        facts: TensorFacts,
        shape: tuple[int, ...],
        given: Region,
        output: TensorFacts,
        wanted: Region,
        timeout_s: float,
    ) -> tuple[int, ...]:
        ends = [
            {"parameters": {"shared_memory_region": one.name, "shared_memory_byte_size": one.size_bytes}}
            for one in (given, wanted)
        ]
        answer, _ = self._infer(facts, shape, ends[0], output, ends[1], b"", timeout_s)
        return tuple(answer["shape"])

    def _infer(
        self,
        facts: TensorFacts,
        shape: tuple[int, ...],
        given: dict[str, Any],
        output: TensorFacts,
        wanted: dict[str, Any],
        data: bytes,
        timeout_s: float,
    ) -> tuple[Any, bytes]:
        tensor = {"name": facts.name, "datatype": datatype_of(facts.dtype), "shape": list(shape)}
        asked = json.dumps({"inputs": [tensor | given], "outputs": [{"name": output.name} | wanted]}).encode()
        found, behind = self._ask("POST", f"{self._model_path()}/infer", asked + data, len(asked), timeout_s)
        return found["outputs"][0], behind

    def register(self, region: Region, timeout_s: float) -> None:
        body = json.dumps({"key": region.key, "offset": 0, "byte_size": region.size_bytes}).encode()
        self._ask("POST", f"systemsharedmemory/region/{region.name}/register", body, timeout_s=timeout_s)

    def unregister(self, region: Region, timeout_s: float) -> None:
        self._ask("POST", f"systemsharedmemory/region/{region.name}/unregister", timeout_s=timeout_s)

    def close(self) -> None:
        for connection in self._open:
            connection.close()


def refused(error: Exception, fresh: bool) -> Refused:
    """Say what became of a connection; one that was kept may have been closed by a server that has started anew."""
    if isinstance(error, ssl.SSLError):
        return Refused(
            wire.UNSAFE, str(getattr(error, "verify_message", "") or getattr(error, "reason", "") or error)
        )
    if isinstance(error, TimeoutError) and not (isinstance(error, socket.gaierror)):
        return Refused(wire.LATE, "it took too long")
    if isinstance(error, BadStatusLine) and not isinstance(error, RemoteDisconnected):
        return Refused(wire.AWAY, "what answers there is not HTTP")
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Refused(wire.AWAY, said if fresh else f"the connection was lost: {said}")


def with_names(found: Any) -> Any:
    """Give JSON's objects fields, as those of gRPC have."""
    return json.loads(json.dumps(found), object_hook=lambda one: SimpleNamespace(**one))


def json_of(data: bytes, status: int, kind: str) -> Any:
    if not data:
        return {}
    try:
        return parse_json(data)
    except Unreadable as error:
        if status != 200:
            return {}
        raise Refused(wire.FAULT, f"its answer is not Triton's ({kind or 'of no type'}): {error}") from error
