"""Sessions without a model, for what measures them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from segdeploy.errors import RequestError
from segdeploy.model.foreign import numbered_labels
from segdeploy.model.signature import Signature, TensorFacts
from segdeploy.run.timing import Lanes, Modes, Query
from segdeploy.size import Size

SIZE = Size(64, 96)


def signature(
    batch: int | None = None, interface: str = "frames", size: Size = SIZE, classes: int = 5
) -> Signature:
    names = {"frames": ("frames", "labels"), "logits": ("input", "logits")}[interface]
    if interface == "frames":
        eaten = TensorFacts(names[0], "uint8", (batch, size.height, size.width, 3))
        answered = TensorFacts(names[1], "uint8", (batch, size.height, size.width))
    else:
        eaten = TensorFacts(names[0], "float32", (batch, 3, size.height, size.width))
        answered = TensorFacts(names[1], "float32", (batch, classes, size.height // 4, size.width // 4))
    return Signature(
        interface, eaten, answered, size, batch, (0.0,) * 3, (1.0,) * 3, numbered_labels(classes), "linear", "fake"
    )  # fmt: skip


class HostSession:
    """Answers with zeros, and remembers what it was asked. From query `stop_at` on the user presses Ctrl-C."""

    def __init__(self, batch: int | None = None, stop_at: int | None = None, **facts: Any) -> None:
        self.signature = signature(batch, **facts)
        self.batches = (batch or 1,) * 2
        self.stop_at = stop_at
        self.asked: list[npt.NDArray[Any]] = []
        self.closed = False

    def run(self, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.signature.demand_input(inputs)
        self.asked.append(inputs)
        if self.stop_at is not None and len(self.asked) > self.stop_at:
            raise KeyboardInterrupt
        shape = [len(inputs) if side is None else side for side in self.signature.output.shape]
        return np.zeros(shape, self.signature.output.dtype)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> HostSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DeviceLane:
    """A query takes 1 ms to the device, 4 ms there and 2 ms back, on a clock that only queries move."""

    depth = 2

    def __init__(self) -> None:
        self.clock = 0.0
        self.waiting: list[Query] = []

    def start(self) -> None:
        begin, self.clock = self.clock, self.clock + 7
        self.waiting.append(
            Query(begin, begin + 0.5, begin, begin + 1, begin + 1, begin + 5, begin + 5, begin + 7)
        )

    def finish(self) -> Query:
        return self.waiting.pop(0)


class DeviceSession(HostSession):
    """Times itself, and takes batches of at most 4."""

    asked_modes: Modes | None = None
    open_lanes = 0

    def demand_batch(self, batch: int) -> None:
        if batch > 4:
            raise RequestError(f"a batch of {batch} is outside the profile, which holds 1 to 4")

    @contextmanager
    def lanes(self, inputs: npt.NDArray[Any], modes: Modes) -> Iterator[Lanes]:
        self.signature.demand_input(inputs)
        self.asked_modes = modes
        self.open_lanes += modes.streams
        yield Lanes(
            [DeviceLane() for _ in range(modes.streams)],
            {
                "clock": "device",
                "transfers": "included" if modes.transfers else "excluded",
                "cuda_graph": "on" if modes.cuda_graph else "off",
                "wait": "spin" if modes.spin else "blocking",
                "streams": modes.streams,
            },
        )
        self.open_lanes -= modes.streams

    def run_timed(self, inputs: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Query]:
        lane = DeviceLane()
        lane.start()
        return self.run(inputs), lane.finish()
