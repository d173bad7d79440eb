"""Runs graphs with ONNX Runtime's providers on the GPU, and times the parts of a query.

ONNX Runtime shows neither its stream nor its events. So each part runs alone, is waited for, and is timed on the host's
clock: computing includes launching its kernels, and no part overlaps another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import RequestError
from segdeploy.run.device_array import DeviceArray, lent
from segdeploy.run.ort import OrtSession, placed
from segdeploy.run.runtimes import SessionOptions
from segdeploy.run.timing import Lanes, Modes, Query

DEFAULT_STREAM = 1  # DLPack's number for the stream that ONNX Runtime waits for


def open_on_gpu(path: Path, options: SessionOptions) -> OrtDeviceSession:
    return OrtDeviceSession(path, options.threads, options.provider, options.card)


class OrtDeviceSession(OrtSession):
    place = "cuda"

    def demand_batch(self, batch: int) -> None:
        """Accept any batch that the graph takes: ONNX Runtime has no profile."""

    def run_device(self, inputs: Any, out: Any = None) -> DeviceArray:
        """Do as `run`, for arrays on the GPU; the work is finished when it returns.

        The answer is written into `out`, an array on the GPU too, or into ONNX Runtime's own memory.
        """
        given = lent(inputs, DEFAULT_STREAM)
        self.signature.demand_input(given)
        binding = self._session.io_binding()
        signature = self.signature
        binding.bind_input(signature.input.name, "cuda", 0, given.dtype, given.shape, given.address)
        dtype, expected = (
            np.dtype(signature.output.dtype),
            (given.shape[0], *signature.taking(given).output.shape[1:]),
        )
        place = None if out is None else lent(out, DEFAULT_STREAM)
        if place is None:
            binding.bind_output(signature.output.name, "cuda")
        elif (place.dtype, place.shape) != (dtype, expected):
            raise RequestError(f"the answer is {dtype} {expected}, and `out` is {place.dtype} {place.shape}")
        else:
            binding.bind_output(signature.output.name, "cuda", 0, place.dtype, place.shape, place.address)
        binding.synchronize_inputs()  # waits for the whole GPU, so for the input's writer too
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        value = binding.get_outputs()[0]
        return DeviceArray(value.data_ptr(), tuple(value.shape()), dtype, (value, place))

    @contextmanager
    def lanes(self, inputs: NDArray[Any], modes: Modes) -> Iterator[Lanes]:
        if modes.streams > 1:
            raise RequestError(
                f"{modes.streams} streams were asked for, and ONNX Runtime's parts can be timed only in one; leave"
                " --streams out"
            )
        lane = OrtLane(self, inputs, modes.transfers)
        for _ in range(2):
            lane.start()
        lane.restart()
        yield Lanes(
            [lane],
            {
                "clock": "host, around a device that is waited for",
                "transfers": "included" if modes.transfers else "excluded",
                "cuda_graph": "off: ONNX Runtime runs without one",
                "wait": "the call returns",
                "streams": 1,
            },
        )

    def run_timed(self, inputs: NDArray[Any]) -> tuple[NDArray[Any], Query]:
        lane = OrtLane(self, inputs, transfers=True)
        lane.start()
        return lane.answer, lane.finish()


class OrtLane:
    depth = 1

    def __init__(self, session: OrtDeviceSession, inputs: NDArray[Any], transfers: bool) -> None:
        session.signature.demand_input(inputs)
        self._session = session._session
        self._inputs, self._transfers = np.ascontiguousarray(inputs), transfers
        self._given = placed(self._inputs, session.place)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(session.signature.input.name, self._given)
        self._binding.bind_output(session.signature.output.name, session.place)
        self._done: Query | None = None
        self.answer: NDArray[Any] = np.empty(0)
        self.restart()

    def restart(self) -> None:
        """Set the start of time to now."""
        self._origin = time.perf_counter()

    def start(self) -> None:
        marks = [self._now()]
        if self._transfers:
            self._given.update_inplace(self._inputs)
        marks.append(self._now())
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        marks.append(self._now())
        if self._transfers:
            self.answer = self._binding.get_outputs()[0].numpy()
        marks.append(self._now())
        start, given, computed, end = marks
        if not self._transfers:
            start, end = given, computed
        self._done = Query(given, given, start, given, given, computed, computed, end)

    def finish(self) -> Query:
        assert self._done is not None  # noqa: S101 # the loop finishes what it started
        return self._done

    def _now(self) -> float:
        return (time.perf_counter() - self._origin) * 1e3
