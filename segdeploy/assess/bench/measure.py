"""Measures one model at one batch size as planned, and holds all facts about that run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy import scenes
from segdeploy.assess.bench.meter import Before, MemoryUse, Meter, Power, Sensors, forget_peak
from segdeploy.assess.bench.modes import BenchPlan
from segdeploy.assess.bench.served import ServerClock, ServerShares
from segdeploy.assess.bench.timing_host import lanes_of
from segdeploy.assess.bench.timings import Timings, after_warm_up, run_queries, summarise, warnings_of
from segdeploy.errors import RequestError
from segdeploy.run.io import to_input
from segdeploy.run.session import Session
from segdeploy.run.timing import Query, Timed

LARGEST_BATCH = 1024


@dataclass(frozen=True)
class Measurement:
    batch: int
    timings: Timings
    ran: dict[str, Any]  # for each mode, how it really ran
    memory: MemoryUse
    power: Power | None
    warnings: tuple[str, ...]
    stopped: bool  # by the user, before the time was over
    queries: tuple[Query, ...]
    server: ServerShares | None = None  # where it ran on one

    def __str__(self) -> str:
        latency = self.timings.latency
        return (
            f"batch {self.batch}: {self.images_per_s:.1f} images/s, latency median {latency.median:.2f} ms,"
            f" p99 {latency.p99:.2f} ms, {self.timings.queries} queries"
        )

    @property
    def images_per_s(self) -> float:
        return self.timings.qps * self.batch

    @property
    def has_device(self) -> bool:
        """Tell whether the model runs on a device that data is transferred to."""
        return bool(self.ran["clock"] != "host")

    @property
    def enqueues(self) -> bool:
        """Tell whether the call that starts a query returns before it is done."""
        return bool(self.ran["clock"] == "device")

    def as_json(self) -> dict[str, Any]:
        return {
            "batch": self.batch,
            "images_per_s": self.images_per_s,
            "timings": asdict(self.timings),
            "ran": self.ran,
            "memory": asdict(self.memory),
            "power": None if self.power is None else asdict(self.power),
            "warnings": list(self.warnings),
            "stopped": self.stopped,
            **({} if self.server is None else {"server": asdict(self.server)}),
        }


def measure(
    session: Session,
    batch: int,
    plan: BenchPlan,
    *,
    before: Before | None = None,
    sensors: Sensors | None = None,
) -> Measurement:
    """Measure a session; Ctrl-C returns what was counted so far as `stopped`, or is raised if nothing was counted.

    `before` is the memory in use before the session was opened.
    """
    demand_batches(session, [batch])
    inputs = pictures(session, batch)
    before = before or Before.look(sensors)
    queries: list[Query] = []
    stopped = False
    meter = Meter(sensors) if sensors is not None else None
    clock = ServerClock(session)

    def begin() -> None:
        clock.begin()
        if meter:
            meter.begin()

    with lanes_of(session, inputs, plan.modes) as (lanes, ran):
        forget_peak()
        try:
            run_queries(
                lanes,
                queries,
                warm_up_ms=plan.warm_up_ms,
                duration_ms=plan.duration_s * 1e3,
                iterations=plan.iterations,
                warmed=begin,
            )
        except KeyboardInterrupt:
            if not after_warm_up(queries, plan.warm_up_ms):
                raise
            stopped = True
        finally:
            if meter:
                meter.end()
        memory = before.added(sensors)
    timings = summarise(queries, plan.warm_up_ms)
    return Measurement(
        batch=batch,
        timings=timings,
        ran=ran,
        memory=memory,
        power=meter.power(timings.qps * batch) if meter else None,
        warnings=tuple(
            warnings_of(
                timings,
                enqueues=ran["clock"] == "device",
                streams=plan.modes.streams,
                unstable_percent=plan.unstable_percent,
            )
        ),
        stopped=stopped,
        queries=tuple(queries),
        server=clock.shares(timings.latency.mean),
    )


def demand_batches(session: Session, batches: Sequence[int]) -> None:
    """Refuse batches that the model does not take, before anything is measured."""
    fixed = session.signature.batch
    for batch in batches:
        if not 1 <= batch <= LARGEST_BATCH:
            raise RequestError(f"a batch of {batch} was asked for; it is 1 to {LARGEST_BATCH}")
        if fixed is not None and batch != fixed:
            raise RequestError(
                f"a batch of {batch} was asked for, and this model takes only {fixed};"
                f" export it with --batch {batch}, or with --batch dynamic for any"
            )
        if isinstance(session, Timed):
            session.demand_batch(batch)


def usual_batches(session: Session) -> list[int]:
    return [session.batches[1]]


def pictures(session: Session, batch: int) -> NDArray[Any]:
    """Make scenes into the graph's input; not noise, since a graph's work may depend on its input."""
    size = session.signature.size
    kinds = [scenes.make_scene(seed, size.height, size.width).image for seed in range(min(batch, 4))]
    return to_input(session.signature, np.stack([kinds[slot % len(kinds)] for slot in range(batch)]))
