"""Ends a command on a fault of our own: in one line, with the traceback in a file that can be sent to us."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import traceback

from segdeploy.cli.printing import print_message
from segdeploy.printable import printable

FAULT = 70  # as sysexits.h calls an internal software error


def keep_tracebacks() -> None:
    """Let no traceback reach the terminal, of any thread: its 200 lines would hide what was said before them."""

    def tell(error: BaseException | None) -> None:
        if error is not None and not isinstance(error, SystemExit):
            print_fault(error)

    sys.excepthook = lambda kind, error, trace: tell(error)
    threading.excepthook = lambda given: tell(given.exc_value)
    sys.unraisablehook = lambda given: tell(given.exc_value)


def print_fault(error: BaseException) -> int:
    """Say what happened and where the traceback is; return the exit status of a fault."""
    words = without_secrets(f"{type(error).__name__}: {error}")
    kept = keep_traceback(without_secrets("".join(traceback.format_exception(error))))
    print_message(f"this is a fault in segdeploy, please report it: {words}; {kept}")
    return FAULT


def keep_traceback(text: str) -> str:
    """Write it to a file that nobody else can read, for it may quote what was worked on; say where it is."""
    try:
        descriptor, path = tempfile.mkstemp(prefix="segdeploy-fault-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{printable(line)}\n" for line in text.splitlines())
    except OSError as error:
        return f"its traceback could not be kept ({error.strerror})"
    return f"the traceback is in {path}"


def without_secrets(text: str) -> str:
    """Leave out the addresses with passwords that FFmpeg's errors tell."""
    from segdeploy.picture.video_location import without_credentials

    return without_credentials(text)
