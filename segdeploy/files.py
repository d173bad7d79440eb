"""Results are written beside their place and moved into it, so that no half-written file is ever left behind."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segdeploy.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; it becomes `path` if the block succeeds and is removed if it does not."""
    with replacing_together(path) as (part,):
        yield part


@contextmanager
def replacing_together(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Temporary paths beside `paths`, which become `paths` all together, or none of them does."""
    for path in paths:
        make_folder(path.parent)
    parts, kept = ([hidden(path, kind) for path in paths] for kind in ("part", "old"))
    moved: list[tuple[Path, Path]] = []
    path = paths[0]
    try:
        yield tuple(parts)
        for path, part, old in zip(paths, parts, kept, strict=True):
            if path is not paths[-1] and path.is_file():  # behind the last one nothing can fail
                path.replace(old)
            moved.append((path, old))
            part.replace(path)
        moved = []
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        for target, old in moved:
            if old.exists():
                old.replace(target)
            elif target is not path:
                target.unlink(missing_ok=True)
        for temporary in (*parts, *kept):
            temporary.unlink(missing_ok=True)


def hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Refuse a second writer of `path`, in this process or another; the lock ends with its holder, however it ends."""
    make_folder(path.parent)
    lock = path.with_name(f".{path.name}.lock")
    while True:
        with lock.open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputError(
                    f"{path} is being written by another segdeploy; wait for it, or name another folder with -o"
                ) from error
            if not lock.exists() or lock.stat().st_ino != os.fstat(held.fileno()).st_ino:
                continue  # its last holder removed it in the meantime
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} is not writable; name another one with -o")


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def digest_of(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
