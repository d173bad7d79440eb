"""A command comes to its end here, also where something in it hangs: exit statuses, signals, threads left behind."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from segdeploy.cli.faults import print_fault
from segdeploy.cli.printing import print_message

STOPPED = 130  # as a shell tells Ctrl-C
LAST_WORDS_S = 1.0  # for what stands in a buffer, where nobody may be reading
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# What a system says of a name as soon as it is looked at, wherever in a command that is.
NO_PLACE = (
    errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ESTALE, errno.EROFS, errno.ENOTDIR,
)  # fmt: skip
MAY_HANG = ("segdeploy: ", "segdeploy-build")  # threads of a stream, and a build


@contextmanager
def ended_in_time(timeout_s: float) -> Iterator[None]:
    """Let SIGTERM, which ends a service or a container, be as good as Ctrl-C; end all the same where something hangs.

    A stream needs less than this time for its own ending; what can be left is a terminal or a session that hangs.
    """
    at_last = threading.Timer(timeout_s, os._exit, [STOPPED])
    at_last.daemon = True

    def stop(number: int, frame: object) -> None:
        with suppress(RuntimeError):  # it was stopped twice
            at_last.start()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        at_last.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_what_hangs(status: int, before: Collection[threading.Thread]) -> int:
    """Return `status`, or exit with it at once where a thread hangs that was not there `before`.

    An interpreter that is taken down waits for such a thread's lock, or aborts when it calls into Python.
    """
    hanging = [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith(MAY_HANG) and thread not in before
    ]
    if not hanging:
        return status
    flushing = threading.Thread(target=flush_all, daemon=True)
    flushing.start()
    flushing.join(LAST_WORDS_S)
    os._exit(status)


def flushed(status: int) -> int:
    """Print what is left to print, in which Python would fail with a traceback when it ends."""
    try:
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        drop_output()
        return status
    except OSError as error:
        if status == 0:
            return told_of_system(error)
        drop_output()  # what went wrong is said already
        return status


def told_of_system(error: OSError) -> int:
    """Say that there is no room for what is printed, or what no file can be; any other error is a fault of ours."""
    if error.errno in NO_PLACE and error.filename is not None:
        print_message(f"{error.filename} cannot be used: {error.strerror}; name another file or folder")
        return 1
    if error.errno not in NO_ROOM or error.filename is not None:
        return print_fault(error)
    drop_output()
    print_message(f"standard output cannot be written: {error.strerror}")
    return 1


def drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def flush_all() -> None:
    for stream in (sys.stderr, sys.stdout):
        with suppress(OSError, ValueError):
            stream.flush()
