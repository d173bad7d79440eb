"""A disk that is full, broken, interrupted or over its quota, at each call with which a verb changes a file.

write_faults.c makes one call fail, write_faults.py tries the calls one after the other. `python tests/write_faults.py`
tries all of them, of every verb; here it is a few of each of the quick ones.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
VERBS = (
    "deepstream config",
    "triton",
    "cache convert",
    "run on images",
    "report",
    "evaluate",
    "run to a clip",
    "deepstream replay",
    "bench",
    "adopt",
    "quantize",
    "export",
    "build-engine",
)
WHOLE = (
    "deepstream config",
    "triton",
    "cache convert",
    "report",
)  # all files are old where one cannot be written
TOGETHER = ("adopt", "quantize", "export", "build-engine")  # a file, its record and what lies beside it
GROWING = ("run to a clip", "deepstream replay")  # what came before the fault stays
KEPT = (".unfinished", ".calibration.npz")  # evaluate's and quantize's, to go on with

pytestmark = [
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.skipif(
        not shutil.which("cc") or sys.platform != "linux", reason="no C compiler for Linux here"
    ),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, HERE / "write_faults.c", "-ldl"], check=True)
    return path


@pytest.mark.parametrize(
    "verbs",
    [
        pytest.param(TOGETHER, id="graphs"),
        pytest.param([verb for verb in VERBS if verb not in TOGETHER], id="others"),
    ],
)
def test_a_fault_is_one_message_and_costs_nothing_that_was_there(verbs, library, tmp_path):
    if "build-engine" in verbs:
        pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")
    done = subprocess.run(
        [sys.executable, HERE / "write_faults.py", tmp_path, "--few", *verbs],
        capture_output=True, text=True, check=False, env=os.environ | {"LD_PRELOAD": str(library)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == set(verbs)
    for verb, of_verb in found.items():
        demand_as_promised(verb, of_verb["names"], of_verb["attempts"])


def demand_as_promised(verb, names, attempts):
    assert len(attempts) >= 10
    assert {one["error"] for one in attempts} == {"ENOSPC", "EIO", "EINTR", "EDQUOT"}
    assert {one["status"] for one in attempts} == {0, 1}
    for one in attempts:
        states = {name: state for name, state in one["states"].items() if not name.endswith(KEPT)}
        assert not any(part.startswith(".") for name in states for part in Path(name).parts), one
        if one["status"] == 0:
            assert (one["said"], states.keys() <= set(names)) == ("", True), one
        else:
            assert one["said"].startswith("segdeploy: ") and one["said"].count("\n") == 1, one
            assert " cannot be " in one["said"], one
        if verb not in GROWING:
            assert "other" not in states.values(), one
        if verb in TOGETHER:
            assert set(states.values()) <= ({"new"} if one["status"] == 0 else {"old"}), one
        if verb in WHOLE and one["status"] == 1:
            assert set(states.values()) <= {"old"}, one
            assert one["old"] or not one["folder"], one
