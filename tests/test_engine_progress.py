import subprocess
import sys
from threading import Event

import pytest

from segdeploy.convert.engine.progress import Phases, stoppable


def told_by(*events):
    told = []
    phases = Phases(lambda step, share: told.append((step, round(share, 4))), Event())
    for name, *arguments in events:
        getattr(phases, name)(*arguments)
    return told


def test_a_phase_inside_another_is_a_part_of_its_step():
    told = told_by(
        ("start", "Building engine", None, 6),
        ("step", "Building engine", 0),
        ("start", "Optimizing graph", "Building engine", 30),
        ("step", "Optimizing graph", 11),
        ("finish", "Optimizing graph"),
        ("step", "Building engine", 1),
    )
    assert told == [
        ("building: Building engine 0/6", 0),
        ("building: Building engine 1/6", 0.1667),
        ("building: Optimizing graph 0/30", 0.1667),
        ("building: Optimizing graph 12/30", 0.2333),
        ("building: Building engine 2/6", 0.3333),
    ]


def test_phases_side_by_side_never_move_back():
    told = told_by(
        ("start", "Building engine", None, 2),
        ("start", "Timing one", "Building engine", 4),
        ("start", "Timing other", "Building engine", 4),
        ("step", "Timing one", 3),
        ("step", "Timing other", 0),
        ("finish", "Timing one"),
        ("step", "Timing other", 1),
    )
    assert [share for _, share in told] == [0, 0, 0, 0.5, 0.5, 0.5]


def test_a_phase_of_no_steps_and_one_that_was_never_started():
    told = told_by(("start", "Empty", None, 0), ("step", "Empty", 0), ("step", "Other", 3))
    assert told == [("building: Empty 0/0", 0), ("building: Empty 0/0", 0), ("building: Other 0/0", 0)]


def test_a_second_build_starts_again():
    told = told_by(
        ("start", "Building engine", None, 1),
        ("step", "Building engine", 0),
        ("finish", "Building engine"),
        ("start", "Building engine", None, 2),
    )
    assert [share for _, share in told] == [0, 1, 0]


def test_a_stopped_build_goes_on_no_further():
    stop = Event()
    told = []
    phases = Phases(lambda step, share: told.append(step), stop)
    phases.start("Building engine", None, 6)
    stop.set()
    assert not phases.step("Building engine", 0)
    assert told[-1] == "stopping: Building engine 1/6"


def test_nothing_escapes_into_tensorrt():
    def fails(step, share):
        raise OSError("closed")

    phases = Phases(fails, Event())
    phases.start("Building engine", None, 6)
    assert not phases.step("Building engine", 0)
    assert isinstance(phases.failure, OSError)


def test_work_in_a_thread_gives_its_result_or_its_error():
    assert stoppable(lambda: 7, Event()) == 7
    with pytest.raises(ValueError, match="seven"):
        stoppable(lambda: int("seven"), Event())


TWICE = """
import os, signal, sys
from threading import Event, Timer
from types import SimpleNamespace
from segdeploy import cli
from segdeploy.convert.engine.progress import stoppable

stop = Event()

def build():
    while True:
        stop.wait(0.01)

def press_again(step):
    print(step, flush=True)
    Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

def execute(arguments):
    Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    stoppable(build, stop, press_again)

cli.VERBS["doctor"] = (SimpleNamespace(describe=lambda parser: None, execute=execute), "build for ever")
sys.exit(cli.main(["doctor"]))
"""


@pytest.mark.slow
def test_ctrl_c_twice_leaves_a_build_that_does_not_stop():
    done = subprocess.run(
        [sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "segdeploy: stopped\n")
    assert done.stdout == "stopping at TensorRT's next step; Ctrl-C again leaves at once\n"
