"""Says what part of a query on a server is its waiting and computing, by the server's own statistics."""

from __future__ import annotations

from dataclasses import dataclass

from segdeploy.run.triton.session import TritonSession
from segdeploy.run.triton.wire import Times


@dataclass(frozen=True)
class ServerShares:
    """Holds means over the requests that a server answered meanwhile, those of its other clients too; times in ms."""

    requests: int
    images_per_execution: float  # more than a request has, where requests were merged
    queue_ms: float
    compute_ms: float  # with what is copied before and after
    elsewhere_ms: (
        float  # of the client's mean latency: the client, the network, and the server's own handling
    )


class ServerClock:
    """Reads a server's statistics when measuring begins and when it ends; does nothing for any other session."""

    def __init__(self, session: object) -> None:
        self._session = session if isinstance(session, TritonSession) else None
        self._before: Times | None = None

    def begin(self) -> None:
        self._before = self._session.server_times() if self._session else None

    def shares(self, latency_ms: float) -> ServerShares | None:
        """Compute the shares of a mean latency; None where no request was counted."""
        if self._session is None or self._before is None:
            return None
        done = self._session.server_times().since(self._before)
        if not done.requests or not done.executions:
            return None
        queue_ms = done.queue_ns / done.requests / 1e6
        compute_ms = (done.input_ns + done.compute_ns + done.output_ns) / done.requests / 1e6
        return ServerShares(
            done.requests, done.images / done.executions, queue_ms, compute_ms,
            latency_ms - queue_ms - compute_ms,
        )  # fmt: skip
