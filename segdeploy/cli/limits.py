"""Bounds the memory of a command, and says in words which limit of the machine an error is of.

The bound is what is free when the command starts, so that a hostile file costs a message: Linux kills some process when
memory runs out, and not always the one that took it. With a GPU there is none: its driver maps memory of its own.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from segdeploy.errors import RequestError

FEWEST_FILES = 48  # to be opened at once, by PyTorch and ONNX Runtime as they load
LEAST_BYTES = 1 << 30
FREE = Path("/proc/meminfo")
GPUS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/nvhost-gpu")


def bound_memory() -> None:
    """Let allocations fail beyond the memory that is free now."""
    with suppress(OSError, ValueError, LookupError):  # another system than Linux, or a bound is there already
        most, (_, hard) = free_bytes(), resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY and not any(Path(gpu).exists() for gpu in GPUS):
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def free_bytes() -> int:
    found = dict(line.split(":", 1) for line in FREE.read_text().splitlines())
    free = sum(1024 * int(found[key].split()[0]) for key in ("MemAvailable", "SwapFree"))
    return max(LEAST_BYTES, free)


def demand_files() -> None:
    """Refuse a process that can open few files more, whatever its limit: Python and the libraries would not say so.

    To Python a package in a folder that it cannot open is not installed, and PyTorch's loader waits for ever.
    """
    with ExitStack() as held:
        for count in range(FEWEST_FILES):
            try:
                held.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise RequestError(
                    f"only {count} more files can be opened here, and {FEWEST_FILES} are needed"
                    f" (the limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}):"
                    " allow more, as in: ulimit -n 4096"
                ) from error


def limit_in_words(error: BaseException) -> str | None:
    """Say which limit was reached, whoever raised the error: each library has words of its own; None if none was."""
    said = "MemoryError" if isinstance(error, MemoryError) else str(error)
    return next((words() for found, words in LIMITS if found.search(said)), None)


def of_memory() -> str:
    most, _ = resource.getrlimit(resource.RLIMIT_DATA)
    free = (
        "there is"
        if most == resource.RLIM_INFINITY
        else f"the {most / 1e9:.1f} GB that were free when it started"
    )
    return f"this needs more memory than {free}; give it smaller files, sizes or batches"


def of_files() -> str:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"this needs more open files than the {most} that are allowed; allow more, as in: ulimit -n 4096"


def of_threads() -> str:
    return "this needs more threads than are allowed; allow more (ulimit -u), or give it less to do at once"


LIMITS: tuple[tuple[re.Pattern[str], Callable[[], str]], ...] = (
    (
        re.compile(
            r"MemoryError|bad_alloc|[Ff]ailed to allocate|can.t allocate memory|not enough memory"
            r"|(?i:cannot allocate memory)"
        ),
        of_memory,
    ),
    (re.compile(r"(?i:too many open files)|os error 24"), of_files),
    (re.compile(r"can't start new thread|pthread_create failed"), of_threads),
)
