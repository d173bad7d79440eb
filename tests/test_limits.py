"""What a machine does not have is said in words, and a command takes no more memory than was free."""

import subprocess
import sys

import pytest

from segdeploy.cli import limits

COMMAND = """
import sys
from segdeploy import cli
from segdeploy.cli import limits
limits.free_bytes = lambda: 1 << 30
limits.GPUS = ()
cli.VERBS["models"][0].execute = lambda arguments: len(bytearray(3 << 30))
sys.argv = ["segdeploy", "models"]
sys.exit(cli.main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the bound is Linux's")
def test_a_command_that_wants_more_memory_than_is_free_ends_in_words():
    done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "segdeploy: this needs more memory than the 1.1 GB that were free when it started; give it smaller files, sizes"
        " or batches\n"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "this needs more memory than"),
        (RuntimeError("std::bad_alloc"), "this needs more memory than"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "more memory than",
        ),
        (OSError(24, "Too many open files"), "this needs more open files than the "),
        (RuntimeError("can't start new thread"), "this needs more threads than are allowed"),
    ],
)
def test_limits_are_known_by_what_libraries_say(error, words):
    assert words in limits.limit_in_words(error)


def test_other_errors_are_of_no_limit():
    assert limits.limit_in_words(ValueError("memory of a file")) is None
    assert limits.limit_in_words(OSError(2, "No such file or directory")) is None


def test_what_is_free_is_read_as_linux_says_it(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:  4000000 kB\nSwapFree:  500000 kB\n")
    monkeypatch.setattr(limits, "FREE", tmp_path / "meminfo")
    assert limits.free_bytes() == 1024 * 4_500_000
    (tmp_path / "meminfo").write_text("MemAvailable:  4 kB\nSwapFree:  0 kB\n")
    assert limits.free_bytes() == limits.LEAST_BYTES
