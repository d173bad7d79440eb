"""The targets of tests/fuzz read their seeds, and a fault in a reader is found, kept and told."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

from fuzz import Watched, fuzz_plainly, mutated  # noqa: E402
from targets import TARGETS, Target  # noqa: E402


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_reads_one_of_its_seeds(name, tmp_path, monkeypatch):
    """Or every input would be refused at the door, and nothing be tried behind it."""
    from segdeploy.errors import SegdeployError

    monkeypatch.setattr("targets.PLACE", tmp_path)
    monkeypatch.chdir(tmp_path)  # and back, since a target goes elsewhere
    (tmp_path / "report").mkdir()
    read = []
    for data in TARGETS[name].seeds():
        try:
            TARGETS[name].read(data)
            read.append(data)
        except SegdeployError:
            continue
    assert read


def test_a_fault_is_kept_with_its_input_and_told(tmp_path, monkeypatch):
    def read(data):
        if b"\xff" in data:
            raise KeyError("planted")

    monkeypatch.setitem(TARGETS, "planted", Target(read, lambda: iter([b"abc"])))
    watched = Watched("planted", True, tmp_path)
    fuzz_plainly(watched, [b"abc", b"\xff"], 500, 60, seed=1)
    assert watched.inputs == 500
    (fault,) = watched.faults
    assert fault.startswith("KeyError at test_fuzz.py:")
    assert (tmp_path / "planted-0").read_bytes() == b"\xff"
    with pytest.raises(KeyError):
        Watched("planted", False, tmp_path)(b"\xff")


def test_mutations_are_the_same_for_the_same_seed():
    import random

    made = [
        [mutated(random.Random(seed), [b"abc", bytes(90)], [b"word"]) for seed in range(50)] for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len(set(made[0])) > 40
    assert max(map(len, made[0])) <= 65_536


def test_the_command_says_how_many_inputs_it_took(tmp_path):
    command = [sys.executable, FUZZ / "fuzz.py", "sizes", "--plain", "-runs=300"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "sizes: 300 inputs, no fault\n"
    assert list(tmp_path.iterdir()) == []
