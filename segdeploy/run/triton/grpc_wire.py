"""Speaks gRPC to a server, by NVIDIA's own protobuf definitions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segdeploy.errors import MissingExtra
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

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it prints what it also raises
try:
    import grpc
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
except (ImportError, RuntimeError) as error:  # tritonclient raises the second where it came without its gRPC
    raise MissingExtra("tritonclient[grpc]", "triton", "a model at triton://") from error

LARGEST_MESSAGE = 2**31 - 1  # bytes, also of the server
SIZES = [
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
]
KINDS = {
    "UNAVAILABLE": wire.AWAY,
    "RESOURCE_EXHAUSTED": wire.WRONG,
    "DEADLINE_EXCEEDED": wire.LATE,
    "NOT_FOUND": wire.UNKNOWN,
    "INVALID_ARGUMENT": wire.WRONG,
    "UNAUTHENTICATED": wire.FORBIDDEN,
    "PERMISSION_DENIED": wire.FORBIDDEN,
}
OF_TLS = ("handshake", "ssl", "tls", "certificate", "hostname verification")


class GrpcWire:
    def __init__(self, address: ModelAddress) -> None:
        self._address = address
        self._headers = [("authorization", address.authorization)] if address.authorization else []
        # Each channel has connections of its own: two sessions are two clients.
        options = [*SIZES, ("grpc.use_local_subchannel_pool", 1)]
        if address.secure:
            trusted_by(address)
            pem = Path(address.authority).expanduser().read_bytes() if address.authority else None
            self._channel = grpc.secure_channel(address.server, grpc.ssl_channel_credentials(pem), options)
        else:
            self._channel = grpc.insecure_channel(address.server, options)
        self._stub = GRPCInferenceServiceStub(self._channel)

    def _ask(self, call: Callable[..., Any], message: Any, timeout_s: float) -> Any:
        try:
            return call(message, timeout=timeout_s, metadata=self._headers)
        except grpc.RpcError as error:
            said = str(error.details() or error.code().name)
            kind = KINDS.get(error.code().name, wire.FAULT)
            if kind == wire.AWAY and self._address.secure and any(word in said.lower() for word in OF_TLS):
                kind = wire.UNSAFE
            raise Refused(kind, said) from error
        except ValueError as error:  # the channel is closed, or the message is beyond what protobuf writes
            raise Refused(wire.WRONG, str(error)) from error

    def server(self, timeout_s: float) -> ServerFacts:
        found = self._ask(self._stub.ServerMetadata, messages.ServerMetadataRequest(), timeout_s)
        return ServerFacts(found.name, found.version)

    def is_ready(self, timeout_s: float) -> bool:
        named = messages.ModelReadyRequest(name=self._address.model, version=self._address.version)
        return bool(self._ask(self._stub.ModelReady, named, timeout_s).ready)

    def model(self, timeout_s: float) -> ModelFacts:
        name, version = self._address.model, self._address.version
        about = self._ask(
            self._stub.ModelMetadata, messages.ModelMetadataRequest(name=name, version=version), timeout_s
        )
        config = self._ask(
            self._stub.ModelConfig, messages.ModelConfigRequest(name=name, version=version), timeout_s
        ).config
        return facts_of_model(about, config.max_batch_size, config.parameters)

    def models(self, timeout_s: float) -> dict[str, str]:
        found = self._ask(self._stub.RepositoryIndex, messages.RepositoryIndexRequest(), timeout_s)
        return states_of(found.models)

    def times(self, timeout_s: float) -> Times:
        name, version = self._address.model, self._address.version
        found = self._ask(
            self._stub.ModelStatistics, messages.ModelStatisticsRequest(name=name, version=version), timeout_s
        ).model_stats
        return sum_of(found)

    def infer(
        self, facts: TensorFacts, inputs: NDArray[Any], output: TensorFacts, timeout_s: float
    ) -> NDArray[Any]:
        asked = self._request(facts, inputs.shape, output)
        asked.raw_input_contents.append(inputs.tobytes())
        answer = self._ask(self._stub.ModelInfer, asked, timeout_s)
        shape = tuple(answer.outputs[0].shape)
        data = answer.raw_output_contents[0] if answer.raw_output_contents else b""
        return from_bytes(data, answer.outputs[0].datatype, shape)

    def infer_shared(
        self,
        facts: TensorFacts,
        shape: tuple[int, ...],
        given: Region,
        output: TensorFacts,
        wanted: Region,
        timeout_s: float,
    ) -> tuple[int, ...]:
        asked = self._request(facts, shape, output)
        for tensor, region in ((asked.inputs[0], given), (asked.outputs[0], wanted)):
            tensor.parameters["shared_memory_region"].string_param = region.name
            tensor.parameters["shared_memory_byte_size"].int64_param = region.size_bytes
        answer = self._ask(self._stub.ModelInfer, asked, timeout_s)
        return tuple(answer.outputs[0].shape)

    def _request(self, facts: TensorFacts, shape: tuple[int, ...], output: TensorFacts) -> Any:
        asked = messages.ModelInferRequest(
            model_name=self._address.model, model_version=self._address.version
        )
        tensor = asked.inputs.add()
        tensor.name, tensor.datatype = facts.name, datatype_of(facts.dtype)
        tensor.shape.extend(shape)
        asked.outputs.add().name = output.name
        return asked

    def register(self, region: Region, timeout_s: float) -> None:
        self._ask(
            self._stub.SystemSharedMemoryRegister,
            messages.SystemSharedMemoryRegisterRequest(
                name=region.name, key=region.key, offset=0, byte_size=region.size_bytes
            ),
            timeout_s,
        )

    def unregister(self, region: Region, timeout_s: float) -> None:
        named = messages.SystemSharedMemoryUnregisterRequest(name=region.name)
        self._ask(self._stub.SystemSharedMemoryUnregister, named, timeout_s)

    def close(self) -> None:
        self._channel.close()
