"""Computes with trtexec's arithmetic, so that our numbers can be compared with its own.

Its definitions (samples/common of TensorRT 8.6 to 11, which agree): latency is the sum of a query's parts; throughput
is queries divided by the time from the first counted query's first byte to the last one's last; queries that began to
compute before the warm-up ended are left out; a percentile is the time of one query, not a value between two, and its
place is computed in float32; the median of an even number lies between the two middle ones. The limits of its warnings
agree as well, except for unstable compute times: these limits are in `modes.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segdeploy.run.timing import Lane, Query

PERCENTILES = (90, 95, 99)
ENQUEUE_BOUND = 0.8  # median enqueue ÷ median compute


@dataclass(frozen=True)
class Summary:
    """Sums up one part's times over all counted queries, in ms."""

    min: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    max: float
    cv_percent: float  # coefficient of variation: population deviation ÷ mean


@dataclass(frozen=True)
class Timings:
    queries: int
    warm_up_queries: int
    walltime_ms: float
    qps: float
    latency: Summary
    h2d: Summary
    compute: Summary
    d2h: Summary
    enqueue: Summary
    total_compute_ms: float


def by_first_byte(queries: Sequence[Query]) -> list[Query]:
    """Sort the queries of several streams as trtexec lists them: by their first byte."""
    return sorted(queries, key=lambda query: query.start_h2d)


def after_warm_up(queries: Sequence[Query], warm_up_ms: float) -> list[Query]:
    """Drop the queries before the first one that began to compute after the warm-up."""
    ordered = by_first_byte(queries)
    first = next((place for place, query in enumerate(ordered) if query.start_compute >= warm_up_ms), None)
    return [] if first is None else ordered[first:]


def summarise(queries: Sequence[Query], warm_up_ms: float) -> Timings:
    kept = after_warm_up(queries, warm_up_ms)
    if not kept:
        raise ValueError("no query began after the warm-up")
    walltime_ms = kept[-1].end_d2h - kept[0].start_h2d
    compute = summary_of([query.compute_ms for query in kept])
    return Timings(
        queries=len(kept),
        warm_up_queries=len(queries) - len(kept),
        walltime_ms=walltime_ms,
        qps=len(kept) / walltime_ms * 1000,
        latency=summary_of([query.latency_ms for query in kept]),
        h2d=summary_of([query.h2d_ms for query in kept]),
        compute=compute,
        d2h=summary_of([query.d2h_ms for query in kept]),
        enqueue=summary_of([query.enqueue_ms for query in kept]),
        total_compute_ms=compute.mean * len(kept),
    )


def summary_of(values: Sequence[float]) -> Summary:
    ordered = sorted(values)
    mean = float(np.mean(ordered))
    deviation = float(np.std(ordered))
    p90, p95, p99 = (percentile(ordered, share) for share in PERCENTILES)
    return Summary(
        min=ordered[0],
        mean=mean,
        median=median(ordered),
        p90=p90,
        p95=p95,
        p99=p99,
        max=ordered[-1],
        cv_percent=deviation / mean * 100 if mean else 0.0,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Take a percentile of ascending values.

    It computes in float32 as trtexec does, which decides whether p90 of 10 leaves out one value or none.
    """
    left_out = int((np.float32(1) - np.float32(share) / np.float32(100)) * np.float32(len(ordered)))
    return ordered[max(len(ordered) - 1 - left_out, 0)]


def median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def run_queries(
    lanes: Sequence[Lane],
    queries: list[Query],
    *,
    warm_up_ms: float,
    duration_ms: float,
    iterations: int,
    warmed: Callable[[], None] = lambda: None,
) -> None:
    """Run rounds of one query per lane until both time and iterations are reached; results go into `queries`.

    The warm-up comes on top of both; `warmed` is called once, at its end.
    """
    under_way = [0] * len(lanes)
    rounds = warming = 0
    reached_ms = 0.0
    warm = False
    while rounds < iterations + warming or reached_ms < duration_ms + warm_up_ms:
        for place, lane in enumerate(lanes):
            lane.start()
            under_way[place] += 1
        for place, lane in enumerate(lanes):
            if under_way[place] == lane.depth:
                queries.append(lane.finish())
                under_way[place] -= 1
                reached_ms = max(reached_ms, queries[-1].start_compute)
        rounds += 1
        if reached_ms < warm_up_ms:
            warming += bool(queries)  # a round that only filled the lanes does not count
        elif not warm:
            warm = True
            warmed()
    for place, lane in enumerate(lanes):
        for _ in range(under_way[place]):
            queries.append(lane.finish())


def warnings_of(timings: Timings, *, enqueues: bool, streams: int, unstable_percent: float) -> list[str]:
    """Give the warnings that trtexec would give; a session on the host enqueues and transfers nothing."""
    said = []
    compute = timings.compute.median
    if enqueues and timings.enqueue.median > ENQUEUE_BOUND * compute:
        said.append(
            f"bound by enqueueing: its median of {timings.enqueue.median:.3f} ms is more than"
            f" {ENQUEUE_BOUND:g} of the compute median of {compute:.3f} ms, so the device may wait for the host;"
            " a CUDA graph helps where none is replayed yet"
        )
    for part, words in ((timings.h2d, "to the device"), (timings.d2h, "from the device")):
        if part.median >= compute:
            said.append(
                f"bound by transfers {words}: their median of {part.median:.3f} ms is not below the compute"
                f" median of {compute:.3f} ms; --transfers exclude leaves them out"
            )
    if timings.compute.cv_percent > unstable_percent:
        said.append(
            f"unstable: compute varies by {timings.compute.cv_percent:.1f} % (more than {unstable_percent:g} %);"
            " lock the clocks, and end what else runs on the machine"
        )
    if streams > 1:
        said.append(f"{streams} streams run at once: only the throughput is meaningful, not the latencies")
    return said


def export_times(queries: Sequence[Query], warm_up_ms: float) -> list[dict[str, float]]:
    """Turn queries into the JSON that `trtexec --exportTimes` writes."""
    return [
        {
            "startEnqMs": query.start_enqueue,
            "endEnqMs": query.end_enqueue,
            "startH2dMs": query.start_h2d,
            "endH2dMs": query.end_h2d,
            "startComputeMs": query.start_compute,
            "endComputeMs": query.end_compute,
            "startD2hMs": query.start_d2h,
            "endD2hMs": query.end_d2h,
            "h2dMs": query.h2d_ms,
            "computeMs": query.compute_ms,
            "d2hMs": query.d2h_ms,
            "latencyMs": query.latency_ms,
        }
        for query in after_warm_up(queries, warm_up_ms)
    ]
