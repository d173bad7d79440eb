"""Opens a model on a Triton server as a session like any other: its signature comes from the model's parameters.

Threads may share it. The server merges the requests of all its clients, so one frame at a time is what it is given
unless more are asked for.
"""

from __future__ import annotations

import time
from typing import Any

from numpy.typing import NDArray

from segdeploy.errors import RequestError
from segdeploy.model.card import ModelCard
from segdeploy.model.metadata import read_signature
from segdeploy.model.served import BELONGS_TO, ServedVersion, read_served
from segdeploy.model.signature import Signature
from segdeploy.run.address import ModelAddress
from segdeploy.run.open_model import OpenModel
from segdeploy.run.runtimes import SessionOptions
from segdeploy.run.triton.asking import Asking
from segdeploy.run.triton.shared_memory import SharedMemories
from segdeploy.run.triton.wire import Refused, ServerFacts, Times, Wire

LARGEST_REQUEST = 2**31 - 2**20  # bytes, of one message in either protocol


def open_served(address: ModelAddress, options: SessionOptions) -> TritonSession:
    return TritonSession(address, options.card)


def wire_to(address: ModelAddress) -> Wire:
    if address.protocol == "HTTP":
        from segdeploy.run.triton.http_wire import HttpWire

        return HttpWire(address)
    from segdeploy.run.triton.grpc_wire import GrpcWire  # tritonclient, which HTTP does without

    return GrpcWire(address)


class TritonSession(OpenModel):
    """Holds a model on a server; `until`, on the clock of time.monotonic, ends all of its requests."""

    def __init__(
        self, address: ModelAddress, card: ModelCard | None = None, *, until: float | None = None
    ) -> None:
        self.address, self.name = address, address.name
        self._asking = Asking(address, wire_to(address))
        self._asking.until = until
        self._closed = False
        try:
            self._open(card)
        except BaseException:
            self.close()
            raise

    def _open(self, card: ModelCard | None) -> None:
        asking, address = self._asking, self.address
        try:
            found = asking.ask(asking.wire.model, again=False)
        except Refused as error:
            raise asking.why_not_opened(error) from error
        self.server: ServerFacts = asking.told(asking.wire.server)
        if BELONGS_TO in found.parameters:
            raise RequestError(
                f"{address.model} on {address.server} is for image files, beside the model"
                f" {found.parameters[BELONGS_TO]!r}; name that one"
            )
        self.signature: Signature = read_signature(
            found.parameters, found.inputs, found.outputs, address.name, card
        )
        self.most = found.most or self.signature.batch or 1
        self.batches = (self.signature.batch or 1,) * 2
        self.version = address.version or max(found.versions, key=int, default="1")
        self.served: ServedVersion | None = read_served(found.parameters, self.version, address.name)
        self.device = f"Triton {self.server.version} at {address.server}"
        how = "shared memory" if address.shared else address.protocol
        self.ran = {"transfers": f"to the server and back, by {how}"}
        self._memories = SharedMemories(asking) if address.shared else None

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        signature, asking = self.signature, self._asking
        if self._closed:
            raise RequestError(f"the session of {self.name} is closed")
        signature.demand_input(inputs)
        self.demand_few(len(inputs), inputs.nbytes)
        try:
            if self._memories:
                sides = (len(inputs), *(side or 1 for side in signature.output.shape[1:]))
                return self._memories.infer(signature.input, inputs, signature.output, sides)
            return asking.ask(lambda left: asking.wire.infer(signature.input, inputs, signature.output, left))
        except Refused as error:
            raise asking.said(error) from error

    def demand_few(self, batch: int, size_bytes: int) -> None:
        """Refuse what the server would refuse, before it is sent."""
        if batch > self.most:
            raise RequestError(
                f"{self.name} on {self.address.server} takes at most {self.most} frames at once, and {batch} were"
                f" given; give fewer, or make its repository with --batch {batch}"
            )
        if size_bytes > LARGEST_REQUEST and not self.address.shared:
            raise RequestError(
                f"{batch} frames have {size_bytes:,} bytes, and one request has at most {LARGEST_REQUEST:,}; give fewer"
                " at once, or take shared memory: ?memory=shared"
            )

    def is_ready(self) -> bool:
        """Ask the server whether it takes the model for ready, which it does also where it is not."""
        try:
            return self._asking.wire.is_ready(1.0)
        except Refused:
            return False

    def server_times(self) -> Times:
        """Ask what the server has done for this model so far, for all clients."""
        return self._asking.told(self._asking.wire.times)

    @property
    def digest(self) -> str:
        """Give the digest of the file that the server has, where its repository says it; else the address."""
        return self.served.digest if self.served else str(self.address)

    @property
    def runtime(self) -> str:
        """Say in words where it computes."""
        return f"{self.device}, {self.ran['transfers']}"

    @property
    def seconds_left(self) -> float | None:
        until = self._asking.until
        return None if until is None else until - time.monotonic()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if memories := getattr(self, "_memories", None):
            memories.close()
        self._asking.wire.close()
