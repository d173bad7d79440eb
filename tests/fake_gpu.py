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

    @contextmanager
    def active(self):
        yield

    def allocate(self, size):
        address = 4096 * (1 + len(self.held))
        self.held[address] = size
        return SimpleNamespace(address=address, size=size, free=lambda: self.held.pop(address))

    def stream(self):
        return SimpleNamespace(
            upload=lambda target, source: self.uploads.append((target.address, np.array(source))),
            synchronise=lambda: None,
        )
