"""Writes through devices, pipes and sockets, as a shell would; they are never replaced by a file."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a disk",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
}
WRITTEN_THROUGH = ("a device", "a pipe", "a socket")
STANDARD = (1, 2)  # output and error; as a socket they cannot be opened a second time
PATIENCE_S = 10.0  # for a pipe that no process reads
STEP_S = 0.05


def kind_at(path: Path) -> str:
    """Name the kind of a path in words; a regular file is "a file", and so is a path that does not exist yet."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "a file"
    return next((name for is_kind, name in KINDS.items() if is_kind(mode)), "a file")


def read_file(path: Path) -> bytes:
    """Read a file; a pipe, which might never deliver, and a device, which may have no end, raise an OSError."""
    kind = kind_at(path)
    if kind not in ("a file", "a folder"):
        raise OSError(errno.EINVAL, f"it is {kind}, and no file")
    return path.read_bytes()


def is_file(path: Path) -> bool:
    """Tell whether a path is a regular file; False too for a name that is too long, or that may not be read."""
    with suppress(OSError):
        return path.is_file()
    return False


def is_folder(path: Path) -> bool:
    with suppress(OSError):
        return path.is_dir()
    return False


def why_no_file(path: Path) -> str | None:
    """Say why nothing can be read from `path`, as from a link to a disk that is not mounted; None of a file."""
    try:
        path.stat()
        kind = kind_at(path)
    except OSError as error:
        said = error.strerror or str(error)
        with suppress(OSError):
            said += f", and it is a link to {path.readlink()}"
        return said
    return None if kind == "a file" else f"it is {kind}, and no file"


def is_special(path: Path) -> bool:
    return kind_at(path) in WRITTEN_THROUGH


def is_standard_output(path: Path) -> bool:
    """Tell whether a path is the open standard output: /dev/stdout, or the file that a shell redirected it to."""
    with suppress(OSError, ValueError):
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    return False


class Through:
    """Opens the device, pipe or socket at `path`; a write that moves nothing for `timeout_s` raises TimeoutError."""

    def __init__(self, path: Path, timeout_s: float = PATIENCE_S) -> None:
        self._timeout_s = timeout_s
        self._descriptor = self._opened(path)

    def _opened(self, path: Path) -> int:
        here = path.stat()
        for standard in STANDARD:
            with suppress(OSError):  # closed
                if os.path.samestat(here, os.fstat(standard)):
                    return os.dup(standard)
        end_s = time.monotonic() + self._timeout_s
        while True:
            try:
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO or not stat.S_ISFIFO(here.st_mode):
                    raise
                if time.monotonic() > end_s:
                    raise TimeoutError(
                        errno.ETIMEDOUT, f"nobody read it for {self._timeout_s:g} s"
                    ) from error
            time.sleep(STEP_S)

    def write(self, data: bytes) -> None:
        write_within(self._descriptor, data, self._timeout_s)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Through:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()


def write_within(descriptor: int, data: bytes | memoryview, timeout_s: float) -> None:
    """Write all of `data`; raises TimeoutError if nothing is taken for `timeout_s`.

    A pipe with room takes a piece of this size at once, even if its descriptor is blocking.
    """
    ready = select.poll()
    ready.register(descriptor, select.POLLOUT)
    left = memoryview(data)
    while left:
        if not ready.poll(timeout_s * 1e3):
            raise TimeoutError(errno.ETIMEDOUT, f"nobody read it for {timeout_s:g} s")
        with suppress(BlockingIOError):  # another writer was faster
            left = left[
                os.write(descriptor, left[: select.PIPE_BUF if os.get_blocking(descriptor) else None]) :
            ]
