"""An engine's queries timed part by part, on the GPU made of numpy, whose clock moves 1 ms with each piece of work."""

import numpy as np
import pytest
from test_tensorrt_session import brightest, frames_of, machine  # noqa: F401 # a fixture

from segdeploy.assess.bench.measure import measure
from segdeploy.assess.bench.modes import plan_measurement
from segdeploy.errors import RequestError
from segdeploy.run.tensorrt.session import TensorrtSession
from segdeploy.run.timing import Modes, Timed

VERSIONS = ("8.6.1", "10.3.0", "11.4.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_query_with_transfers(machine, version):  # noqa: F811
    with TensorrtSession(machine.engine(version)) as session:
        assert isinstance(session, Timed)
        with session.lanes(frames_of(1), Modes(transfers=True, spin=False)) as (lanes, ran):
            (lane,) = lanes
            lane.start()
            lane.start()
            queries = lane.finish(), lane.finish()
            for query in queries:
                assert (query.h2d_ms, query.compute_ms, query.d2h_ms) == (1, 1, 1)
                assert query.start_h2d < query.start_compute < query.start_d2h
                assert query.enqueue_ms >= 0
            assert queries[0].start_h2d < queries[1].start_h2d
        assert ran == {
            "clock": "device",
            "transfers": "included",
            "cuda_graph": "on",
            "wait": "blocking",
            "streams": 1,
        }
        assert machine.device.captures == 1
        assert machine.device.launches == 3  # one to warm up
        np.testing.assert_array_equal(session.run(frames_of(1, 5)), brightest(frames_of(1, 5)))


def test_a_query_without_transfers(machine):  # noqa: F811
    with TensorrtSession(machine.engine(), graphs=False) as session:
        with session.lanes(frames_of(1), Modes()) as (lanes, ran):
            lanes[0].start()
            query = lanes[0].finish()
        assert query.latency_ms == query.compute_ms == 1
        assert query.start_h2d == query.end_h2d == query.start_compute
        assert query.start_d2h == query.end_d2h == query.end_compute
        assert ran["cuda_graph"] == "off: CUDA graphs are off"
        assert ran["transfers"] == "excluded"


def test_streams_have_a_context_each(machine):  # noqa: F811
    with TensorrtSession(machine.engine(profile=(1, 2, 4))) as session:
        with session.lanes(frames_of(4), Modes(streams=3)) as (lanes, _):
            for lane in lanes:
                lane.start()
            assert all(lane.finish().compute_ms == 1 for lane in lanes)
        assert len(machine.module.contexts) == 3
        np.testing.assert_array_equal(session.run(frames_of(2, 5)), brightest(frames_of(2, 5)))


def test_tensorrt_8_has_one_stream_where_the_batch_is_open(machine):  # noqa: F811
    with TensorrtSession(machine.engine("8.6.1", profile=(1, 2, 4))) as session:
        with (
            pytest.raises(
                RequestError, match="runs one stream of an engine with an open batch, and 2 were asked for"
            ),
            session.lanes(frames_of(2), Modes(streams=2)),
        ):
            pass
        session.run(frames_of(1))


def test_what_is_answered_while_it_is_timed(machine):  # noqa: F811
    with TensorrtSession(machine.engine()) as session:
        for seed in (1, 2, 3):  # kernel by kernel, captured, replayed
            answers, query = session.run_timed(frames_of(1, seed))
            np.testing.assert_array_equal(answers, brightest(frames_of(1, seed)))
            assert (query.h2d_ms, query.compute_ms, query.d2h_ms) == (1, 1, 1)


def test_a_run_that_breaks_off_leaves_the_session_whole(machine):  # noqa: F811
    with TensorrtSession(machine.engine()) as session:
        with (
            pytest.raises(KeyboardInterrupt),
            session.lanes(frames_of(1), Modes(transfers=True)) as (lanes, _),
        ):
            lanes[0].start()
            raise KeyboardInterrupt
        np.testing.assert_array_equal(session.run(frames_of(1, 5)), brightest(frames_of(1, 5)))


def test_a_measurement_of_an_engine(machine):  # noqa: F811
    with TensorrtSession(machine.engine(profile=(1, 2, 4))) as session:
        found = measure(session, 2, plan_measurement("10", warm_up_ms=5, duration_s=0.05))
        assert found.timings.latency.median == 3
        assert found.has_device
        with pytest.raises(RequestError, match="a batch of 8 is outside the profile"):
            measure(session, 8, plan_measurement())
