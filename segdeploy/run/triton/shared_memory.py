"""Lends a server on this host memory for a request and its answer, so that no pixel goes through a socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import RequestError
from segdeploy.model.signature import TensorFacts
from segdeploy.run.triton import wire
from segdeploy.run.triton.asking import Asking
from segdeploy.run.triton.wire import Refused, Region

LOST = "unable to find"  # what a server says of a region after it was started anew
UNSEEN = "unable to open"  # what one says that cannot see this host's memory


class LentRegion:
    """Is one region of memory that the server has mapped too."""

    def __init__(self, asking: Asking, size_bytes: int) -> None:
        self._asking = asking
        self.memory = SharedMemory(create=True, size=size_bytes)
        name = self.memory.name.strip("/")
        self.region = Region(f"segdeploy-{name}", f"/{name}", size_bytes)
        try:
            self.register()
        except BaseException:
            self.close()
            raise

    def register(self) -> None:
        try:
            self._asking.ask(lambda left: self._asking.wire.register(self.region, left))
        except Refused as error:
            if UNSEEN not in error.said.lower():
                raise
            raise RequestError(
                f"the server {self._asking.address.server} does not see the memory of this machine: it runs elsewhere,"
                " or in a container without --ipc=host; leave memory=shared out of the address"
            ) from error

    def part(self, size_bytes: int) -> Region:
        """Name as much of the memory as one request needs."""
        return replace(self.region, size_bytes=size_bytes)

    def array(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return np.ndarray(shape, dtype, buffer=self.memory.buf)

    def close(self) -> None:
        with suppress(Refused):  # the server may have gone
            self._asking.wire.unregister(self.region, 1.0)
        self.memory.close()
        self.memory.unlink()


class SharedMemories:
    """Keeps pairs of regions, one pair for each request that is under way."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._lock = threading.Lock()
        self._free: list[tuple[LentRegion, LentRegion]] = []

    def infer(
        self, facts: TensorFacts, inputs: NDArray[Any], output: TensorFacts, sides: tuple[int, ...]
    ) -> NDArray[Any]:
        """Do one request; `sides` is the shape of the largest answer that it can have."""
        asking, answer_bytes = self._asking, int(np.prod(sides)) * np.dtype(output.dtype).itemsize
        with self._pair(inputs.nbytes, answer_bytes) as (given, wanted):
            given.array(inputs.shape, facts.dtype)[...] = inputs

            # The server demands the very size of the input, of memory that may have more.
            ends = given.part(inputs.nbytes), wanted.part(answer_bytes)

            def once(left: float) -> tuple[int, ...]:
                return asking.wire.infer_shared(facts, inputs.shape, ends[0], output, ends[1], left)

            try:
                shape = asking.ask(once)
            except Refused as error:
                if LOST not in error.said.lower():
                    raise
                given.register()
                wanted.register()
                shape = asking.ask(once)
            if int(np.prod(shape)) * np.dtype(output.dtype).itemsize > answer_bytes:
                raise Refused(
                    wire.FAULT, f"it answered {'×'.join(map(str, shape))}, which is more than was asked"
                )
            return wanted.array(shape, output.dtype).copy()

    @contextmanager
    def _pair(self, given_bytes: int, wanted_bytes: int) -> Iterator[tuple[LentRegion, LentRegion]]:
        with self._lock:
            pair = self._free.pop() if self._free else None
        if pair and (pair[0].region.size_bytes < given_bytes or pair[1].region.size_bytes < wanted_bytes):
            self._close(pair)
            pair = None
        if pair is None:
            first = LentRegion(self._asking, given_bytes)
            try:
                pair = first, LentRegion(self._asking, wanted_bytes)
            except BaseException:
                first.close()
                raise
        try:
            yield pair
        finally:
            with self._lock:
                self._free.append(pair)

    @staticmethod
    def _close(pair: tuple[LentRegion, LentRegion]) -> None:
        for one in pair:
            one.close()

    def close(self) -> None:
        while self._free:
            self._close(self._free.pop())
