"""Times sessions that have no device timers: one query is one call of `run`, on the host's clock.

Each of several streams is a thread with a second query waiting, so that none is idle while a result is collected.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from numpy.typing import NDArray

from segdeploy.run.session import Session
from segdeploy.run.timing import Lanes, Modes, Query, Timed

HOST = {"clock": "host", "transfers": "none: host memory", "cuda_graph": "none", "wait": "the call returns"}


class InlineLane:
    """Runs each query in the thread that starts it."""

    depth = 1

    def __init__(self, ask: Callable[[], Query]) -> None:
        self._ask = ask
        self._done: Query | None = None

    def start(self) -> None:
        self._done = self._ask()

    def finish(self) -> Query:
        done, self._done = self._done, None
        assert done is not None  # noqa: S101 # the loop finishes what it started
        return done


class ThreadLane:
    depth = 2

    def __init__(self, ask: Callable[[], Query], worker: ThreadPoolExecutor) -> None:
        self._ask, self._worker = ask, worker
        self._waiting: deque[Future[Query]] = deque()

    def start(self) -> None:
        self._waiting.append(self._worker.submit(self._ask))

    def finish(self) -> Query:
        return self._waiting.popleft().result()


def lanes_of(session: Session, inputs: NDArray[Any], modes: Modes) -> Any:
    """Return a context manager of `Lanes`: the session's own if it has timers, else lanes on the host."""
    return session.lanes(inputs, modes) if isinstance(session, Timed) else host_lanes(session, inputs, modes)


@contextmanager
def host_lanes(session: Session, inputs: NDArray[Any], modes: Modes) -> Iterator[Lanes]:
    session.run(inputs)  # the first run sets things up, and is not counted
    origin = time.perf_counter()

    def ask() -> Query:
        start = (time.perf_counter() - origin) * 1e3
        session.run(inputs)
        end = (time.perf_counter() - origin) * 1e3
        return Query(start, start, start, start, start, end, end, end)

    ran = {**HOST, "streams": modes.streams, **getattr(session, "ran", {})}
    if modes.streams == 1:
        yield Lanes([InlineLane(ask)], ran)
        return
    with ExitStack() as workers:
        yield Lanes(
            [
                ThreadLane(ask, workers.enter_context(ThreadPoolExecutor(max_workers=1)))
                for _ in range(modes.streams)
            ],
            ran,
        )
