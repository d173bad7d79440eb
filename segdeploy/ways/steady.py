"""Watches whether the processor keeps its speed while ways are measured in turn.

A laptop that gets hot, or a cloud's neighbour, makes whatever runs at that moment look slow. So each round begins with
a fixed piece of arithmetic, timed in this thread's own processor time, which other programs on the machine do not
lengthen but a lower clock does. A round in which it takes longer is measured again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

SLOWER = 1.25  # of the fastest seen: beyond, the round is repeated
TURNS = 3  # of the arithmetic in a reading; the fastest counts


def arithmetic_s() -> float:
    """Time a fixed number of square roots, in seconds of this thread's processor time; a product would use others."""
    values = np.linspace(1, 2, 1 << 14)
    times = []
    for _ in range(TURNS):
        start = time.thread_time()
        for _ in range(64):
            np.sqrt(values, out=values)
        times.append(time.thread_time() - start)
    return min(times)


class Yardstick:
    """Tells a round in which the processor was slower than before."""

    def __init__(self, read: Callable[[], float] = arithmetic_s) -> None:
        self._read = read
        self._fastest = read()
        self.slow: list[float] = []  # how many times as slow, of each round that was to be repeated

    def is_slow(self) -> bool:
        now = self._read()
        self._fastest = min(self._fastest, now)
        slowed = now / max(self._fastest, 1e-12)
        if slowed <= SLOWER:
            return False
        self.slow.append(slowed)
        return True
