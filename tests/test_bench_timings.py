"""trtexec's arithmetic, on timings made by hand."""

import numpy as np
import pytest

from segdeploy.assess.bench.timings import (
    after_warm_up,
    export_times,
    median,
    percentile,
    run_queries,
    summarise,
    summary_of,
    warnings_of,
)
from segdeploy.run.timing import Query


def query(start, *, h2d=1.0, compute=10.0, d2h=2.0, enqueue=0.5, gap=0.0):
    """Parts one after the other, with `gap` ms of waiting between them."""
    to = start + h2d
    begin = to + gap
    end = begin + compute
    back = end + gap
    return Query(begin, begin + enqueue, start, to, begin, end, back, back + d2h)


def test_latency_is_the_sum_of_the_parts_without_the_waiting():
    one = query(0, gap=100)
    assert one.latency_ms == 13
    assert one.end_d2h - one.start_h2d == 213
    assert (one.enqueue_ms, one.h2d_ms, one.compute_ms, one.d2h_ms) == (0.5, 1, 10, 2)


def test_throughput_is_queries_by_the_time_from_first_byte_to_last():
    timings = summarise([query(0), query(10), query(30)], warm_up_ms=0)
    assert timings.walltime_ms == 43
    assert timings.qps == pytest.approx(3 / 43 * 1000)
    assert timings.total_compute_ms == pytest.approx(30)


def test_queries_that_began_to_compute_in_the_warm_up_are_left_out():
    timings = summarise([query(0, compute=50), query(60), query(199), query(200), query(220)], warm_up_ms=200)
    assert (timings.queries, timings.warm_up_queries) == (3, 2)  # the third is 1 ms on its way to the device
    assert timings.walltime_ms == 220 + 13 - 199
    assert timings.compute.max == 10
    assert after_warm_up([query(0), query(5)], 200) == []
    with pytest.raises(ValueError, match="no query began after the warm-up"):
        summarise([query(0)], 200)


def test_queries_of_several_streams_are_ordered_by_their_first_byte():
    late, early = query(30, compute=5), query(0, compute=200)
    timings = summarise([late, early], warm_up_ms=0)
    assert timings.walltime_ms == late.end_d2h - early.start_h2d  # trtexec's: of the query that came last


@pytest.mark.parametrize(
    ("count", "share", "index"),
    [
        (10, 90, 8),  # (1 − 0.9)·10 is 1.0000002 in float32: one is left out
        (10, 95, 9),
        (10, 99, 9),
        (100, 90, 89),
        (100, 95, 94),  # 5.0000012
        (100, 99, 99),  # 0.99999905 in float32: none is left out, where exact arithmetic leaves out one
        (1000, 99, 990),  # 9.999991
        (1, 99, 0),
        (1, 0, 0),
        (5, 0, 0),
        (5, 100, 4),
    ],
)
def test_a_percentile_is_a_query_that_happened(count, share, index):
    assert percentile([float(place) for place in range(count)], share) == index


def test_the_float32_arithmetic_is_not_the_exact_one():
    exact = 100 - 1 - int((100 - 99) * 100 / 100)
    assert exact == 98
    assert percentile(list(range(100)), 99) == 99


def test_the_median_lies_between_the_two_middle_ones():
    assert median([1.0, 2.0, 4.0, 9.0]) == 3
    assert median([1.0, 2.0, 9.0]) == 2
    assert median([7.0]) == 7


def test_a_summary():
    found = summary_of([4.0, 2.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert (found.min, found.mean, found.median, found.max) == (2, 5, 4.5, 9)
    assert found.cv_percent == pytest.approx(40)  # population deviation 2 of 5
    assert (found.p90, found.p95, found.p99) == (9, 9, 9)
    assert summary_of([0.0, 0.0]).cv_percent == 0


def timings_of(**parts):
    return summarise([query(place * 100.0, **parts) for place in range(20)], 0)


def warned(timings, *, enqueues=True, streams=1, unstable_percent=2.5):
    return warnings_of(timings, enqueues=enqueues, streams=streams, unstable_percent=unstable_percent)


def test_nothing_is_warned_of_a_calm_run():
    assert warned(timings_of(), enqueues=True, streams=1) == []


def test_enqueue_bound_from_more_than_four_fifths():
    assert warned(timings_of(enqueue=8.0), enqueues=True, streams=1) == []
    (said,) = warned(timings_of(enqueue=8.5), enqueues=True, streams=1)
    assert said.startswith(
        "bound by enqueueing: its median of 8.500 ms is more than 0.8 of the compute median"
    )
    assert warned(timings_of(enqueue=8.5), enqueues=False, streams=1) == []


def test_transfer_bound_from_as_long_as_computing():
    assert warned(timings_of(h2d=9.5), enqueues=True, streams=1) == []
    (said,) = warned(timings_of(h2d=10.0), enqueues=True, streams=1)
    assert said.startswith("bound by transfers to the device: their median of 10.000 ms")
    (said,) = warned(timings_of(d2h=11.0), enqueues=True, streams=1)
    assert said.startswith("bound by transfers from the device")


def test_unstable_from_more_than_two_and_a_half_percent():
    steady = [query(place * 100.0, compute=10 + 0.2 * (place % 2)) for place in range(20)]
    assert warned(summarise(steady, 0), enqueues=True, streams=1) == []
    shaky = [query(place * 100.0, compute=10 + 0.6 * (place % 2)) for place in range(20)]
    (said,) = warned(summarise(shaky, 0), enqueues=True, streams=1)
    assert said.startswith("unstable: compute varies by 2.9 % (more than 2.5 %)")
    middling = summarise([query(place * 100.0, compute=10 + 0.4 * (place % 2)) for place in range(20)], 0)
    assert warned(middling) == []
    (said,) = warned(middling, unstable_percent=1.0)  # trtexec up to 10.13.0
    assert said.startswith("unstable: compute varies by 2.0 % (more than 1 %)")


def test_of_several_streams_only_the_throughput_counts():
    (said,) = warned(timings_of(), enqueues=True, streams=2)
    assert said == "2 streams run at once: only the throughput is meaningful, not the latencies"


def test_times_are_exported_as_trtexec_does():
    assert export_times([query(0), query(300, gap=1)], 200) == [
        {
            "startEnqMs": 302.0,
            "endEnqMs": 302.5,
            "startH2dMs": 300,
            "endH2dMs": 301.0,
            "startComputeMs": 302.0,
            "endComputeMs": 312.0,
            "startD2hMs": 313.0,
            "endD2hMs": 315.0,
            "h2dMs": 1.0,
            "computeMs": 10.0,
            "d2hMs": 2.0,
            "latencyMs": 13.0,
        }
    ]


class Clockwork:
    """A lane on a clock of its own: each query computes for `ms`, the next begins where the last one ended."""

    def __init__(self, ms, depth=1, begin=0.0):
        self.ms, self.depth, self.clock = ms, depth, begin
        self.waiting, self.most = [], 0

    def start(self):
        begin, self.clock = self.clock, self.clock + self.ms
        self.waiting.append(Query(begin, begin, begin, begin, begin, self.clock, self.clock, self.clock))
        self.most = max(self.most, len(self.waiting))

    def finish(self):
        return self.waiting.pop(0)


def run(*lanes, **plan):
    queries, warmed = [], []
    run_queries(lanes, queries, warmed=lambda: warmed.append(len(queries)), **plan)
    assert all(not lane.waiting for lane in lanes)
    return queries, warmed


def test_the_loop_runs_until_the_time_is_over():
    queries, warmed = run(Clockwork(10.0), warm_up_ms=200, duration_ms=1000, iterations=10)
    # the one that begins at 1200 ms ends it, and is counted: 0, 10, … 1200
    assert len(queries) == 121
    assert summarise(queries, 200).queries == 101
    assert warmed == [21]


def test_the_loop_runs_until_there_are_enough_after_the_warm_up():
    queries, _ = run(Clockwork(500.0), warm_up_ms=1200, duration_ms=100, iterations=10)
    assert len(queries) == 3 + 10  # those that began at 0, 500 and 1000 ms are on top
    assert summarise(queries, 1200).queries == 10


def test_two_are_under_way_where_the_lane_allows_it():
    lane = Clockwork(10.0, depth=2)
    queries, _ = run(lane, warm_up_ms=0, duration_ms=100, iterations=1)
    assert lane.most == 2
    assert [one.start_compute for one in queries] == list(np.arange(len(queries)) * 10.0)


def test_lanes_take_turns():
    first, second = Clockwork(10.0), Clockwork(30.0, begin=1.0)
    queries, _ = run(first, second, warm_up_ms=0, duration_ms=300, iterations=1)
    assert len(queries) == 22  # eleven rounds: the slower lane reaches 300 ms first
    assert [one.compute_ms for one in queries[:4]] == [10, 30, 10, 30]
