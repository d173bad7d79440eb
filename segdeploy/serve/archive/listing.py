"""Finds the files of an archive's sources, one after the other, so that a million of them take no memory.

A folder is read in the order in which the system lists it: which file is in which shard is said by its name, and
nothing else depends on the order. Places are text here, since a Path for each of them would cost more than its reading.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from segdeploy.errors import MissingExtra, RequestError
from segdeploy.picture.image import WRITTEN
from segdeploy.picture.video_location import is_remote, without_credentials
from segdeploy.serve.archive.items import Item, kind_of_file

LIST = ".txt"


def demand_listable(sources: Sequence[str]) -> None:
    """Refuse words that are no source of files, before anything is made."""
    for source in sources:
        if "\0" in source:
            raise RequestError(f"SOURCE {source!r} holds a NUL, which no name has")
        if is_remote(source):
            demand_no_password(source)
        elif not os.path.lexists(source) and not glob.has_magic(source):
            raise RequestError(f"there is no file or folder {source}")
        elif Path(source).is_file() and kind_of_file(source) is None and not source.endswith(LIST):
            raise RequestError(
                f"{source} is neither an image nor a video nor a tar; a list of files ends in {LIST}, one name a line"
            )


def demand_no_password(address: str) -> None:
    if without_credentials(address) != address:
        raise RequestError(
            f"{without_credentials(address)} was given with a password, which would be written down with the results;"
            " put it where fsspec looks: its configuration or the environment"
        )


def common_root(sources: Sequence[str]) -> str:
    """Give the path that all sources share; names of results are the paths below it."""
    return reduce(lambda one, other: os.path.commonpath([one, other]), map(root_of_source, sources))


def root_of_source(source: str) -> str:
    if is_remote(source):
        fixed = fixed_part(as_one_path(source))
        return os.path.dirname(fixed) if kind_of_file(fixed) else fixed
    if not os.path.lexists(source):
        return fixed_part(os.path.abspath(source))
    path = Path(os.path.abspath(source))
    if path.is_dir():
        return str(path)
    if path.suffix != LIST:
        return str(path.parent)
    root: str | None = None
    for place in names_in_list(path):
        folder = os.path.dirname(as_one_path(place))
        root = folder if root is None else os.path.commonpath([root, folder])
    return root or str(path.parent)


def fixed_part(path: str) -> str:
    """Cut a path before the first part that is a pattern."""
    while glob.has_magic(path):
        path = os.path.dirname(path)
    return path


def as_one_path(place: str) -> str:
    """Write an address as a path, s3://bucket/key as /s3/bucket/key, and any path from the root on."""
    if is_remote(place):
        scheme, _, rest = place.partition("://")
        return os.path.normpath(f"/{scheme}/{rest}")
    return os.path.abspath(place)


def items_of(sources: Sequence[str], root: str, but: Path) -> Iterator[Item]:
    """Yield the files of all sources, without those below the folder `but`; one that is in two sources comes twice."""
    for source in sources:
        for place in found_in(source, os.path.abspath(but)):
            path = as_one_path(place)
            if os.path.commonpath([path, root]) != root:
                raise RequestError(
                    f"{place} is not below {root}, which this archive was begun with; archive it into another folder"
                )
            yield Item(os.path.relpath(path, root), place)


def found_in(source: str, but: str) -> Iterator[str]:
    if is_remote(source):
        yield from found_remote(source)
    elif not os.path.lexists(source):
        for path in glob.iglob(source, recursive=True):  # Path.glob takes no absolute pattern
            yield from found_at(path, but)
    elif source.endswith(LIST) and not os.path.isdir(source):
        yield from names_in_list(Path(source))
    else:
        yield from found_at(source, but)


def found_at(path: str, but: str) -> Iterator[str]:
    if not os.path.isdir(path):
        if wanted(path):
            yield path
        return
    folders = [path]
    while folders:
        folder = folders.pop()
        if os.path.abspath(folder) == but:
            continue
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif wanted(entry.name):
                        yield entry.path
        except OSError as error:
            raise RequestError(f"the folder {folder} cannot be read: {error.strerror}") from error


def wanted(name: str) -> bool:
    return kind_of_file(name) is not None and not name.endswith(WRITTEN)


def names_in_list(path: Path) -> Iterator[str]:
    """Yield the names in a list, one a line; a relative one begins at the list's own folder."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                name = line.rstrip("\r\n")
                if not name.strip():
                    continue
                if is_remote(name):
                    demand_no_password(name)
                    yield name
                else:
                    yield os.path.join(os.path.abspath(path.parent), name)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from error


# ---- addresses ----------------------------------------------------------------------------------------------------


def found_remote(address: str) -> Iterator[str]:
    system, path = file_system(address)
    try:
        if glob.has_magic(path):
            files = iter(system.glob(path, detail=True).items())
        elif system.isdir(path):
            files = walked(system, path)
        else:
            files = iter([(path, system.info(path))])
        for name, facts in files:
            if facts.get("type") == "file" and wanted(name):
                yield system.unstrip_protocol(name)
    except Exception as error:  # each file system has errors of its own
        raise RequestError(
            f"{address} cannot be listed: {type(error).__name__}: {error}; see that it exists, and that this user may"
            " list it"
        ) from error


def walked(system: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what is below a folder; fsspec's own walk leaves out in silence what it may not list."""
    folders = [path]
    while folders:
        folder = folders.pop().rstrip("/")
        for facts in system.ls(folder, detail=True):
            if facts["type"] != "directory":
                yield facts["name"], facts
            elif facts["name"].rstrip("/") != folder:
                folders.append(facts["name"])


def file_system(address: str) -> tuple[Any, str]:
    """Open the file system of an address with fsspec; returns it and the path within."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtra("fsspec", "archive", f"reading {address}") from error
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:  # in words that say what to install
        raise RequestError(f"{address} cannot be opened: {error}") from error
    except ValueError as error:
        raise RequestError(
            f"{address} is no address of files ({error}); `segdeploy run` takes cameras and streams"
        ) from error
    return system, str(path)
