from threading import Event

import pytest

from segdeploy.engine.progress import Phases, stoppable


def test_phases_are_told_as_they_go():
    told = []
    phases = Phases(told.append, Event())
    phases.start("Building engine", 6)
    phases.start("Optimizing graph", 30)
    assert phases.step("Optimizing graph", 11)
    phases.finish("Optimizing graph")
    assert phases.step("Building engine", 0)
    assert told == [
        "building: Building engine 0/6",
        "building: Optimizing graph 0/30",
        "building: Optimizing graph 12/30",
        "building: Building engine 1/6",
    ]


def test_a_stopped_build_goes_on_no_further():
    stop = Event()
    phases = Phases(lambda text: None, stop)
    phases.start("Building engine", 6)
    stop.set()
    assert not phases.step("Building engine", 0)


def test_nothing_escapes_into_tensorrt():
    def fails(text):
        raise OSError("closed")

    phases = Phases(fails, Event())
    phases.start("Building engine", 6)
    assert not phases.step("Building engine", 0)
    assert isinstance(phases.failure, OSError)


def test_work_in_a_thread_gives_its_result_or_its_error():
    assert stoppable(lambda: 7, Event()) == 7
    with pytest.raises(ValueError, match="seven"):
        stoppable(lambda: int("seven"), Event())
