"""Chooses where workers run: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from segdeploy.run.crew import Crew, Order, ProcessCrew
from segdeploy.run.crew_ray import RayCrew, Share
from segdeploy.run.runtimes import runtime_for

CORES = 2  # of a worker: it decodes and encodes beside its model


def threads_of_each(
    model: Path, provider: str | None, count: int | None, ray: str | None, threads: int | None
) -> int | None:
    """Give the threads of each worker's session: the cores divided among them; None where the runtime takes none."""
    if threads is not None or "threads" not in runtime_for(model, provider).heeds:
        return threads
    cores = os.cpu_count() or 1
    return min(CORES, cores) if ray else max(1, cores // (count or default_count(())))


def default_count(devices: Sequence[int]) -> int:
    return len(devices) or max(1, (os.cpu_count() or 1) // CORES)


def crew_for(
    order: Order,
    model: Path,
    *,
    provider: str | None = None,
    count: int | None = None,
    devices: Sequence[int] = (),
    ray: str | None = None,
    threads: int | None = None,
) -> Crew:
    """Gather a crew; `count` None means one for each device or for two cores, on a cluster as many as fit."""
    if ray is None:
        return ProcessCrew(order, count or default_count(devices), devices)
    return RayCrew(order, ray, Share(threads or 1, int(runtime_for(model, provider).on_gpu)), count)
