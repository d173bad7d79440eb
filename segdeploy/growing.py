"""Writes files that may be read while they grow, and of which a power cut takes only the last second."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from segdeploy.errors import OutputError
from segdeploy.files import cannot_be_written, clear_leftovers, held_file, landing, make_folder
from segdeploy.special_files import PATIENCE_S, Through, is_special

ON_DISK_EVERY_S = 0.5


class GrowingFile:
    """Wraps an open file that its own thread syncs to the disk, which may take longer than a frame can wait.

    After the first error every write fails: data behind a gap is useless, and pointers to it would do harm.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._error: OSError | None = None
        self._newer = False  # whether it has data that is not on the disk yet
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._sync_often, name="segdeploy: to the disk", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> bool:
        return self._error is not None

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            with self._first_error():
                left = left[os.write(self._descriptor, left) :]
        self._newer = True
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek; going back syncs all data first, since an earlier place will point at a later one."""
        before = self.tell()
        place = os.lseek(self._descriptor, offset, whence)
        if place < before:
            self.sync()
        return place

    def tell(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def sync(self) -> None:
        self._newer = False
        with self._first_error():
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        try:
            self.sync()
        finally:
            os.close(self._descriptor)

    def _sync_often(self) -> None:
        while not self._closed.wait(ON_DISK_EVERY_S):
            if self._newer:
                with suppress(OSError):  # the next write raises it
                    self.sync()

    @contextmanager
    def _first_error(self) -> Iterator[None]:
        if self._error is not None:
            raise self._error
        try:
            yield
        except OSError as error:
            self._error = error
            raise


class Recording:
    """Holds a file that is hidden until `appear`, when its beginning is usable, and then gets its name.

    An existing file is replaced only at that moment. A recording that never appeared leaves nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = landing(path)
        self.appeared = False
        make_folder(self._place.parent)
        clear_leftovers(self._place.parent.absolute())
        demand_no_writer(self._place)
        self._held = ExitStack()
        with cannot_be_written(path):
            self._part, descriptor = self._held.enter_context(held_file(self._place))
        self.file = GrowingFile(os.dup(descriptor))

    @property
    def now_at(self) -> Path:
        return self._place if self.appeared else self._part

    def appear(self) -> None:
        if not self.appeared:
            demand_no_writer(self._place)
            self.file.sync()
            self._part.replace(self._place)
            sync_folder(self._place.parent)
            self.appeared = True

    def close(self) -> None:
        with self._held:
            self.file.close()


class Lines:
    """Writes whole lines, each at once, to the end of a new file, through a device or a pipe, or to an open stream."""

    def __init__(self, place: Path | TextIO, timeout_s: float = PATIENCE_S) -> None:
        self._file: GrowingFile | Through | None = None
        self._stream = None if isinstance(place, Path) else place
        self._name = str(place) if isinstance(place, Path) else "standard output"
        if isinstance(place, Path):
            with cannot_be_written(place):
                self._file = Through(place, timeout_s) if is_special(place) else GrowingFile(open_anew(place))

    def write(self, line: str) -> None:
        try:
            if self._file is not None:
                self._file.write(f"{line}\n".encode())
            if self._stream is not None:
                self._stream.write(f"{line}\n")
                self._stream.flush()
        except OSError as error:
            if self._stream is not None and isinstance(error, BrokenPipeError):  # as from `| head`
                raise
            raise OutputError(f"{self._name} cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        if self._file is not None:
            with cannot_be_written(Path(self._name)):
                self._file.close()


def open_anew(path: Path) -> int:
    """Open an empty file that only we write, always at its end, even if another process shortens it."""
    place = landing(path)
    make_folder(place.parent)
    clear_leftovers(place.parent.absolute())
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(place, flags, 0o666)
    try:
        demand_lock(descriptor, path)
        os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def demand_no_writer(path: Path) -> None:
    with suppress(OSError):  # there is no file, or this user may not open it
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            demand_lock(descriptor, path)
        finally:
            os.close(descriptor)


def demand_lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"{path} is being written by another segdeploy; name another file") from error
    except OSError:  # the disk has no locks
        return


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a power cut does not take a file's name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
