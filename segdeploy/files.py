"""Writes results beside their place and moves them into it, so that no half-written file is ever left behind.

A link is followed, and its target is replaced. A device or a pipe is never replaced: text is written through it, and a
file that must appear as a whole is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from segdeploy.errors import OutputError
from segdeploy.special_files import Through, is_special, kind_at

ADDRESS = re.compile(r"[a-zA-Z][\w+.-]+:/")  # a path has one / where http:// has two
LEFT_BEHIND = re.compile(r"\.(.+)\.segdeploy-[0-9a-f]{16}\.(part|old)", re.DOTALL)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; it becomes `path` if the block succeeds and is removed if it does not."""
    with replacing_together(path) as (part,):
        yield part


@contextmanager
def replacing_together(*paths: Path, durable: bool = True) -> Iterator[tuple[Path, ...]]:
    """Give temporary paths beside `paths`, which become `paths` all together or not at all.

    `durable` files are on the disk before they are moved, so that a power cut leaves the old files or the new ones.
    """
    places = [landing(path) for path in paths]
    with cannot_be_written(paths[0]), ExitStack() as stack:
        stack.enter_context(folders_made(*(place.parent for place in places)))
        for place in places:
            clear_leftovers(place.parent.absolute())
        parts = [stack.enter_context(held_file(place)) for place in places]
        yield tuple(part for part, _ in parts)
        if durable:
            for _, descriptor in parts:
                os.fsync(descriptor)
        move_together([part for part, _ in parts], places)


def landing(path: Path) -> Path:
    """Find the regular file that `path` is or will be, following links; refuses devices.

    A link is opened too, because the kernel refuses one that another user has put into a shared folder.
    """
    with cannot_be_written(path):
        kind = kind_at(path)
        if kind != "a file":
            raise OutputError(
                f"{path} cannot be written: it is {kind}, and a file is to be there; name another"
            )
        if not path.is_symlink():
            return path
        if path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        return path.resolve()


def move_together(parts: list[Path], places: list[Path]) -> None:
    aside: list[tuple[Path, Path]] = []
    new: list[Path] = []
    try:
        for part, place in zip(parts, places, strict=True):
            with cannot_be_written(place):
                if place is not places[-1] and place.is_file():  # after the last one nothing can fail
                    old = hidden(place, "old")
                    place.replace(old)
                    aside.append((old, place))
                part.replace(place)
                new.append(place)
    except BaseException:
        for place in new:
            place.unlink()
        for old, place in aside:
            old.replace(place)
        raise
    for old, _ in aside:
        with suppress(OSError):  # the next writer removes it
            old.unlink(missing_ok=True)


@contextmanager
def cannot_be_written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


# ---- hidden files, and what is left of them -----------------------------------------------------------------------


def hidden(path: Path, kind: str) -> Path:
    """Make an unpredictable name beside `path`, with as much of `path`'s own name as the folder allows."""
    name, ending = path.name, f".segdeploy-{secrets.token_hex(8)}.{kind}"
    longest = os.pathconf(path.parent, "PC_NAME_MAX")
    while len(os.fsencode(f".{name}{ending}")) > longest:
        name = name[:-1]
    return path.with_name(f".{name}{ending}")


@contextmanager
def held_file(place: Path) -> Iterator[tuple[Path, int]]:
    """Make a new file beside `place`, not through a link, which is locked as long as its maker lives."""
    while True:
        part = hidden(place, "part")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # the disk has no locks, so nothing is cleared there either
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if part.exists():
            break
        os.close(descriptor)  # another process cleared it before it was locked
    try:
        yield part, descriptor
    finally:
        os.close(descriptor)
        part.unlink(missing_ok=True)


@lru_cache(maxsize=256)
def clear_leftovers(folder: Path) -> None:
    """Remove the hidden files of killed writers; a process looks for them once.

    The lock shows whether a writer is gone, since it ends with it; its process number may be in use again.
    """
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if found := LEFT_BEHIND.fullmatch(path.name):
                clear_leftover(path, path.with_name(found[1]), found[2])


def clear_leftover(path: Path, place: Path, kind: str) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if kind == "old" and not place.exists():  # killed between two moves
                path.replace(place)
            else:
                path.unlink()
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Refuse a second writer of `path`, in this process or another; the lock ends with its holder in any case."""
    make_folder(path.parent)
    lock = lock_of(path)
    while True:
        with cannot_be_written(path):
            held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputError(
                    f"{path} is being written by another segdeploy; wait for it, or name another folder with -o"
                ) from error
            if not lock.exists() or lock.stat().st_ino != os.fstat(held).st_ino:
                continue  # its last holder removed it in the meantime
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return
        finally:
            os.close(held)


def lock_of(path: Path) -> Path:
    """Name the lock of `path`, the same for all writers, so it is predictable; a long name becomes its digest."""
    lock = f".{path.name}.lock"
    if len(os.fsencode(lock)) > os.pathconf(path.parent, "PC_NAME_MAX"):
        lock = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.lock"
    return path.with_name(lock)


# ---- folders, and files that are written at once ------------------------------------------------------------------


def make_folder(folder: Path) -> None:
    if ADDRESS.match(str(folder)) and not folder.exists():
        raise OutputError(f"{folder} is an address, and a file or a folder is to be written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} is not writable; name another one with -o")


@contextmanager
def folders_made(*folders: Path) -> Iterator[None]:
    """Make `folders` and their parents; if the block fails, the new ones are removed again."""
    with no_new_folder_empty(*folders):
        for folder in folders:
            make_folder(folder)
        yield


@contextmanager
def no_new_folder_empty(*paths: Path) -> Iterator[None]:
    """If the block fails, remove what folders it has made at `paths` and above, and left empty."""
    above = {one for path in paths for one in (path, *path.parents) if not os.path.lexists(one)}
    try:
        yield
    except BaseException:
        for folder in sorted(above, key=lambda one: -len(one.parts)):
            with suppress(OSError):  # it holds files by now
                folder.rmdir()
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file all at once; a device or a pipe is written through."""
    with cannot_be_written(path):
        if is_special(path):
            with Through(path) as through:
                through.write(data)
            return
    with replacing_together(path, durable=False) as (part,):
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; a name in `text` that is none is spelled as JSON and Python do."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def user_cache(kind: str) -> Path:
    """Name the folder where this user's `kind` of made things are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segdeploy" / kind


def digest_of(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
