"""A GPU that only counts: for what feeds TensorRT, where no kernel has to run."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np


class FakeGpu:
    name = "NVIDIA A2"
    compute_capability = "8.6"

    def __init__(self):
        self.uploads = []
        self.held = {}
        self.streams = self.depth = 0

    def forget_stream(self):
        assert self.depth, "a stream is freed while its device is active"
        self.streams -= 1

    @contextmanager
    def active(self):
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def allocate(self, size):
        address = 4096 * (1 + len(self.held))
        self.held[address] = size
        return SimpleNamespace(address=address, size=size, free=lambda: self.held.pop(address))

    def stream(self):
        self.streams += 1
        return SimpleNamespace(
            free=self.forget_stream,
            upload=lambda target, source: self.uploads.append((target.address, np.array(source))),
            synchronise=lambda: None,
        )
