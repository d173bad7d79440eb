"""What a machine does not have is said in words, and a command takes no more memory than was free."""

import os
import resource
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from segdeploy.cli import limits
from segdeploy.errors import RequestError

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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the bound is Linux's")
def test_a_command_that_wants_more_memory_than_is_free_ends_in_words():
    done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "segdeploy: this needs more memory than the 1.1 GB that were free when it started; give it smaller files, sizes"
        " or batches\n"
    )


FEW_FILES = """
import resource, sys
from segdeploy.cli import main
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv.pop(1)),) * 2)
sys.exit(main())
"""


def with_files(most, *words):
    command = [sys.executable, "-c", FEW_FILES, str(most), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most", "verb"),
    [
        (4, ["doctor"]),
        (16, ["doctor"]),
        (5, ["export", "x"]),
        (50, ["export", "x"]),
        (12, ["run", "x.onnx", "x.png"]),
    ],
)
def test_a_process_that_can_open_few_files_says_so_at_once(most, verb):
    """Its packages would seem not to be installed, and PyTorch's loader would wait without end."""
    assert with_files(most, *verb) == (
        1,
        "",
        f"segdeploy: only {most - 3} more files can be opened here, and 48 are needed (the limit is {most}):"
        " allow more, as in: ulimit -n 4096\n",
    )


def test_files_that_are_held_already_are_counted():
    """A limit of 4096 is of no use to a process whose parent left as many open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as held:
        last = [held.enter_context(Path(os.devnull).open()).fileno() for _ in range(80)][-1]
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 8, before[1]))
        with pytest.raises(RequestError, match="more files can be opened here, and 48 are needed"):
            limits.demand_files()
    limits.demand_files()


@pytest.mark.slow
def test_help_needs_no_files():
    assert with_files(4, "--version")[0] == 0


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
