"""Defines the protocol of a session that can time each part of a query on its device.

Sessions on the host do not have it: they are timed from outside (segdeploy.assess.bench.timing_host).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from numpy.typing import NDArray


class Query(NamedTuple):
    """Holds when the parts of one query began and ended, in ms from the start of the run.

    Enqueueing is on the host's clock, the rest on the device's. Without transfers, the two times of the transfer to the
    device equal the start of computing, and those of the transfer from it equal its end.
    """

    start_enqueue: float
    end_enqueue: float
    start_h2d: float
    end_h2d: float
    start_compute: float
    end_compute: float
    start_d2h: float
    end_d2h: float

    @property
    def enqueue_ms(self) -> float:
        return self.end_enqueue - self.start_enqueue

    @property
    def h2d_ms(self) -> float:
        return self.end_h2d - self.start_h2d

    @property
    def compute_ms(self) -> float:
        return self.end_compute - self.start_compute

    @property
    def d2h_ms(self) -> float:
        return self.end_d2h - self.start_d2h

    @property
    def latency_ms(self) -> float:
        """Sum the parts, without the waiting between them, as trtexec defines latency."""
        return self.h2d_ms + self.compute_ms + self.d2h_ms


@dataclass(frozen=True)
class Modes:
    """Holds the modes that queries are run in, without which their numbers mean nothing."""

    transfers: bool = False
    cuda_graph: bool = True
    spin: bool = True
    streams: int = 1


class Lane(Protocol):
    """Runs one stream of queries of the same input, `depth` of which may be under way."""

    depth: int

    def start(self) -> None:
        """Queue one more query."""

    def finish(self) -> Query:
        """Wait for the oldest query, and return its times."""


class Lanes(NamedTuple):
    """Holds lanes that share one start of time; `ran` says in words how each mode really runs."""

    lanes: Sequence[Lane]
    ran: dict[str, Any]


@runtime_checkable
class Timed(Protocol):
    def demand_batch(self, batch: int) -> None:
        """Refuse a batch that this model does not take."""

    def lanes(self, inputs: NDArray[Any], modes: Modes) -> AbstractContextManager[Lanes]:
        """Make `modes.streams` lanes; contexts, buffers and CUDA graphs are made before time starts."""

    def run_timed(self, inputs: NDArray[Any]) -> tuple[NDArray[Any], Query]:
        """Do as `run`, from host memory and back; also returns the times of the parts."""
