"""ONNX Runtime timed by its parts; its memory on the CPU stands in for a GPU's."""

import numpy as np
import pytest

from segdeploy.assess.bench.measure import measure, pictures
from segdeploy.assess.bench.modes import BenchPlan
from segdeploy.errors import RequestError
from segdeploy.run.ort_gpu import OrtDeviceSession
from segdeploy.run.timing import Modes, Timed


class OnTheHost(OrtDeviceSession):
    place = "cpu"


@pytest.mark.parametrize("transfers", [True, False])
def test_parts(graphs, transfers):
    with OnTheHost(graphs("frames"), threads=1) as session:
        assert isinstance(session, Timed)
        plan = BenchPlan(modes=Modes(transfers=transfers), warm_up_ms=1, duration_s=0.02, iterations=3)
        found = measure(session, 1, plan)
    assert found.has_device
    assert found.ran["transfers"] == ("included" if transfers else "excluded")
    assert found.timings.compute.min > 0
    assert (found.timings.h2d.min > 0) == (found.timings.d2h.min > 0) == transfers
    assert found.timings.enqueue.max == 0
    assert not any("enqueueing" in said for said in found.warnings)


def test_the_answer_of_a_timed_run(graphs):
    with OnTheHost(graphs("frames"), threads=1) as session:
        inputs = pictures(session, 1)
        answers, query = session.run_timed(inputs)
        np.testing.assert_array_equal(answers, session.run(inputs))
        assert query.end_h2d <= query.start_compute < query.end_compute <= query.start_d2h


def test_one_stream(graphs):
    with (
        OnTheHost(graphs("frames"), threads=1) as session,
        pytest.raises(RequestError, match="2 streams were asked for, and ONNX Runtime's parts"),
        session.lanes(pictures(session, 1), Modes(streams=2)),
    ):
        pass
