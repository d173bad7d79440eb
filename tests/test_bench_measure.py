import json
import threading

import numpy as np
import pytest
from bench_fakes import DeviceSession, HostSession

from segdeploy.assess.bench.measure import demand_batches, measure, pictures, usual_batches
from segdeploy.assess.bench.meter import Reading
from segdeploy.assess.bench.modes import BenchPlan, plan_measurement
from segdeploy.assess.bench.timing_host import lanes_of
from segdeploy.errors import RequestError
from segdeploy.run.session import open_session
from segdeploy.run.timing import Modes, Timed

QUICK = BenchPlan(warm_up_ms=1, duration_s=0.02, iterations=3)


def test_a_session_on_the_host_is_timed_from_outside(graphs):
    with open_session(graphs("frames"), threads=1) as session:
        assert not isinstance(session, Timed)
        found = measure(session, 1, QUICK)
    timings = found.timings
    assert timings.queries >= 3
    assert found.images_per_s == timings.qps
    assert timings.latency == timings.compute
    assert timings.h2d.max == timings.d2h.max == timings.enqueue.max == 0
    assert 0 < timings.latency.min <= timings.latency.median <= timings.latency.max
    assert found.ran == {
        "clock": "host",
        "transfers": "none: host memory",
        "cuda_graph": "none",
        "wait": "the call returns",
        "streams": 1,
        "labels": "from the small logits, interpolated only where classes meet",
        "attention": "5 fused",
    }
    assert not found.has_device
    assert found.power is None
    assert not found.stopped
    assert all("bound" not in said for said in found.warnings)  # it enqueues and transfers nothing
    assert json.loads(json.dumps(found.as_json()))["images_per_s"] == found.images_per_s


def test_images_a_second_are_queries_by_batch(graphs):
    with open_session(graphs("nvinfer", None), threads=1) as session:
        found = measure(session, 3, QUICK)
    assert found.images_per_s == pytest.approx(3 * found.timings.qps)


def test_several_streams_run_in_threads():
    session = HostSession()
    seen = set()
    ask = session.run

    def run(inputs):
        seen.add(threading.current_thread().name)
        return ask(inputs)

    session.run = run
    found = measure(
        session, 1, BenchPlan(modes=Modes(streams=2), warm_up_ms=0, duration_s=0.02, iterations=3)
    )
    assert len(seen - {threading.current_thread().name}) == 2
    assert found.ran["streams"] == 2
    assert "2 streams run at once: only the throughput is meaningful, not the latencies" in found.warnings


def test_an_error_in_a_stream_is_not_swallowed():
    session = HostSession()
    with lanes_of(session, pictures(session, 1), Modes(streams=2)) as (lanes, _):
        session.run = None
        lanes[0].start()
        with pytest.raises(TypeError):
            lanes[0].finish()


def test_a_session_that_times_itself_is_asked_for_its_parts():
    session = DeviceSession()
    plan = plan_measurement("10", warm_up_ms=70, duration_s=0.7)
    found = measure(session, 4, plan)
    assert session.asked_modes == Modes(transfers=True, cuda_graph=False, spin=False, streams=1)
    assert session.open_lanes == 0
    assert session.asked == []
    timings = found.timings
    assert (timings.h2d.median, timings.compute.median, timings.d2h.median) == (1, 4, 2)
    assert timings.latency.median == 7
    assert timings.enqueue.median == 0.5
    assert found.images_per_s == pytest.approx(4 * 1000 / 7)
    assert timings.warm_up_queries == 10
    assert found.has_device
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("version", "percent"),
    [
        ("8.6", 1.0), ("8.6.1", 1.0), ("9.3", 1.0), ("10", 1.0), ("10.0.1", 1.0), ("10.13", 1.0), ("10.13.0.35", 1.0),
        ("10.13.2", 2.5), ("10.14", 2.5), ("10.16", 2.5), ("11", 2.5), ("11.1.0", 2.5), ("11.4", 2.5),
    ],
)  # fmt: skip
def test_compute_is_unstable_from_where_that_trtexec_says(version, percent):
    """As kUNSTABLE_PERF_REPORTING_THRESHOLD is in the tags of TensorRT's sampleReporting.cpp."""
    assert plan_measurement(version).unstable_percent == percent
    assert plan_measurement(version).modes.cuda_graph == version.startswith("11")


def test_defaults_are_those_of_trtexec():
    assert plan_measurement("11").modes == Modes(transfers=False, cuda_graph=True, spin=True, streams=1)
    assert plan_measurement("10").modes == Modes(transfers=True, cuda_graph=False, spin=False, streams=1)
    for version in ("10", "11"):
        plan = plan_measurement(version)
        assert (plan.warm_up_ms, plan.duration_s, plan.iterations) == (200, 3, 10)
    said = plan_measurement("11", transfers=True, cuda_graph=False, streams=2)
    assert said.modes == Modes(transfers=True, cuda_graph=False, spin=True, streams=2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        *(
            (
                {"trtexec": version},
                f"the defaults of trtexec 8.6 to 11 are known, not of {version}; expected a version like 10.9",
            )
            for version in ("8.5", "8", "12", "12.0", "", "ten", "10.", "10..2", "-11", "²")
        ),
        ({"duration_s": 0.0}, "the duration is 0 s; expected more than 0, as in 3"),
        ({"duration_s": -1.0}, "the duration is -1 s; expected more than 0, as in 3"),
        ({"duration_s": float("inf")}, "the duration is inf; expected a number"),
        ({"duration_s": float("nan")}, "the duration is nan; expected a number"),
        ({"warm_up_ms": -1.0}, "the warm-up is -1 ms; expected 0 or more"),
        ({"streams": 0}, "0 streams were asked for; expected 1 to 256"),
    ],
)
def test_a_plan_that_makes_no_sense(wrong, said):
    with pytest.raises(RequestError) as caught:
        plan_measurement(**wrong)
    assert str(caught.value) == said


def test_without_a_batch_the_models_best_is_measured():
    engine = DeviceSession()
    engine.batches = (2, 4)
    assert usual_batches(engine) == [4]
    assert usual_batches(HostSession(batch=2)) == [2]
    assert usual_batches(HostSession()) == [1]


def test_batches_that_a_model_does_not_take():
    with pytest.raises(RequestError) as caught:
        demand_batches(HostSession(batch=2), [2, 4])
    assert str(caught.value) == (
        "a batch of 4 was asked for, and this model takes only 2;"
        " export it with --batch 4, or with --batch dynamic for any"
    )
    with pytest.raises(RequestError, match="a batch of 0 was asked for; it is 1 to 1024"):
        demand_batches(HostSession(), [0])
    demand_batches(DeviceSession(), [1, 4])
    with pytest.raises(RequestError, match="a batch of 8 is outside the profile, which holds 1 to 4"):
        demand_batches(DeviceSession(), [1, 8])


@pytest.mark.slow
def test_what_is_run_is_a_street_in_each_slot():
    frames = pictures(HostSession(), 3)
    assert frames.shape == (3, 64, 96, 3)
    assert frames.dtype == np.uint8
    assert not np.array_equal(frames[0], frames[1])
    assert pictures(HostSession(interface="logits"), 2).shape == (2, 3, 64, 96)


def test_a_stopped_run_tells_what_it_measured():
    session = HostSession(stop_at=20)
    found = measure(session, 1, BenchPlan(warm_up_ms=0, duration_s=60))
    assert found.stopped
    assert found.timings.queries == 19  # one of the twenty came before time started


def test_a_run_stopped_before_anything_was_counted_is_just_stopped():
    with pytest.raises(KeyboardInterrupt):
        measure(HostSession(stop_at=3), 1, BenchPlan(warm_up_ms=10_000, duration_s=60))


class Sensors:
    """A GPU that draws 50 W, throttles, and holds 100 bytes more with each look."""

    source = "a fake"

    def __init__(self):
        self.held = 0

    def memory_in_use(self):
        self.held += 100
        return self.held

    def energy_joules(self):
        return None

    def read(self):
        return Reading(50.0, 1400, 1980, 71, ("power cap",))


def test_power_and_memory_come_from_the_sensors():
    found = measure(HostSession(), 2, QUICK, sensors=Sensors())
    assert found.power.mean_watts == 50
    assert found.power.joules_per_image == pytest.approx(50 / found.images_per_s)
    assert found.power.slowed_by == ("power cap",)
    assert (found.power.lowest_clock_mhz, found.power.most_clock_mhz) == (1400, 1980)
    assert found.power.highest_celsius == 71
    assert found.memory.device_bytes == 100
