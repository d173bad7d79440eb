"""A GPU that only counts: for what feeds TensorRT, where no kernel has to run."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt


class FakeGpu:
    name = "NVIDIA A2"
    compute_capability = "8.6"

    def __init__(self) -> None:
        self.uploads: list[tuple[int, npt.NDArray[Any]]] = []
        self.held: dict[int, int] = {}
        self.streams = self.depth = 0

    def forget_stream(self) -> None:
        assert self.depth, "a stream is freed while its device is active"
        self.streams -= 1

    @contextmanager
    def active(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def allocate(self, size: int) -> SimpleNamespace:
        address = 4096 * (1 + len(self.held))
        self.held[address] = size
        return SimpleNamespace(address=address, size=size, free=lambda: self.held.pop(address))

    def stream(self) -> SimpleNamespace:
        self.streams += 1
        return SimpleNamespace(
            free=self.forget_stream,
            upload=lambda target, source: self.uploads.append((target.address, np.array(source))),
            synchronise=lambda: None,
        )
