"""Measures ways in turn, A B C A B C: the network alone, the whole way from a frame to its labels, and energy.

What slows the machine for a while slows each way in that round, so ratios hold where times do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from segdeploy.assess.bench.measure import pictures
from segdeploy.assess.bench.meter import Sensors
from segdeploy.picture.image import Frame
from segdeploy.run.session import Session, segment
from segdeploy.ways.steady import Yardstick
from segdeploy.ways.way import Way

LEAST_ROUNDS = 5
MOST_REPEATED = 10  # rounds in which the processor was slow
TURN_S = 0.05  # of each way in a round, at the least one run
GPU_CALLERS = {"latency": 1, "throughput": 2}  # that ask at once; a CPU has one for each stream


@dataclass(frozen=True)
class Speed:
    """Holds a way's times of an image, and how many times as fast as the first way it is."""

    network_ms: float  # medians
    whole_ms: float
    ratio: float  # of the network alone: the median over the rounds, and its quartiles
    ratio_low: float
    ratio_high: float
    joules: float | None  # of an image, network alone


@dataclass
class Turns:
    network_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Clock:
    """Says how steady the processor was: how many times as slow in each slow round, and why."""

    slow: tuple[float, ...]
    slowed_by: frozenset[str]
    repeated: int

    @property
    def unsteady(self) -> bool:
        """Tell whether slow rounds were counted, after as many repeats as are made."""
        return self.repeated >= MOST_REPEATED

    @property
    def warnings(self) -> list[str]:
        if not self.slow and not self.slowed_by:
            return []
        why = f" ({', '.join(sorted(self.slowed_by))})" if self.slowed_by else ""
        most = f", by up to {100 * (max(self.slow) - 1):.0f} %" if self.slow else ""
        words = f"the processor was slowed down while it was measured{why}{most}: {self.repeated} rounds were repeated"
        if self.unsteady:
            words += (
                ", and later ones counted all the same, so the choice is marked; tune again when the machine is"
                " cool and quiet"
            )
        return [words]


def measure_in_turn(
    sessions: Sequence[tuple[Way, Session]],
    frame: Frame,
    *,
    goal: str,
    seconds: float,
    sensors: Sensors | None = None,
    yardstick: Yardstick | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> tuple[list[Speed], Clock]:
    """Measure each for `seconds`; returns its speed, and what has to be known of the machine meanwhile."""
    yardstick = yardstick or Yardstick()
    turns = [Turns() for _ in sessions]
    callers = [GPU_CALLERS[goal] if way.runtime.on_gpu else way.streams for way, _ in sessions]
    end = time.perf_counter() + seconds * len(sessions)
    rounds = repeated = 0
    slowed_by: set[str] = set()
    with ThreadPoolExecutor(max(callers)) as pool:
        while rounds < LEAST_ROUNDS or time.perf_counter() < end:
            progress(f"measuring in turn, round {rounds + 1}")
            slow = yardstick.is_slow()
            found = [
                one_turn(session, frame, count, pool, sensors)
                for (_, session), count in zip(sessions, callers, strict=True)
            ]
            slow = yardstick.is_slow() or slow
            if sensors is not None and (reasons := sensors.read().slowed_by):
                slow = True
                slowed_by |= set(reasons)
            if slow and repeated < MOST_REPEATED:
                repeated += 1
                continue
            rounds += 1
            for kept, (network_s, whole_s, joules) in zip(turns, found, strict=True):
                kept.network_s.append(network_s)
                kept.whole_s.append(whole_s)
                kept.joules += [] if joules is None else [joules]
    return [speed_of(turn, turns[0]) for turn in turns], Clock(
        tuple(yardstick.slow), frozenset(slowed_by), repeated
    )


def one_turn(
    session: Session, frame: Frame, callers: int, pool: ThreadPoolExecutor, sensors: Sensors | None
) -> tuple[float, float, float | None]:
    """Time one image: seconds of the network alone and of the whole way, and joules where they are counted."""
    inputs = pictures(session, session.signature.batch or session.batches[1])
    session.run(inputs)  # wakes it: the last way's threads may still spin
    images = len(inputs)
    before = sensors.energy_joules() if sensors is not None else None
    network_s, runs = timed_together(lambda: session.run(inputs), callers, pool)
    after = sensors.energy_joules() if sensors is not None else None
    whole_s, _ = timed_together(lambda: segment(session, frame), callers, pool)
    joules = None if before is None or after is None else (after - before) / (runs * images)
    return network_s / images, whole_s, joules


def timed_together(work: Callable[[], object], callers: int, pool: ThreadPoolExecutor) -> tuple[float, int]:
    """Let each caller do `work` until TURN_S are over; returns the seconds of one, and how many there were."""
    start = time.perf_counter()

    def repeated() -> int:
        done = 0
        while not done or time.perf_counter() - start < TURN_S:
            work()
            done += 1
        return done

    asked = [pool.submit(repeated) for _ in range(callers - 1)]
    done = repeated() + sum(one.result() for one in asked)
    return (time.perf_counter() - start) / done, done


def speed_of(turn: Turns, first: Turns) -> Speed:
    ratios = np.array(first.network_s) / np.array(turn.network_s)
    low, middle, high = (float(one) for one in np.percentile(ratios, [25, 50, 75]))
    return Speed(
        network_ms=1e3 * float(np.median(turn.network_s)),
        whole_ms=1e3 * float(np.median(turn.whole_s)),
        ratio=middle,
        ratio_low=low,
        ratio_high=high,
        joules=float(np.median(turn.joules)) if turn.joules else None,
    )
