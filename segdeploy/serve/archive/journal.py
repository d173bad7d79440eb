"""Keeps what was done: a line for each file, written once its results are in place, so that a killed run can go on.

Each worker has a file of its own, to whose end it writes. A line that was cut off by a kill is not there; its file is
done again, and its results are replaced by the same ones. The rows of a video come before its last line, in parts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdeploy.errors import OutputError
from segdeploy.files import cannot_be_written, make_folder
from segdeploy.serve.archive.items import Item
from segdeploy.untrusted import Unreadable, parse_json

# One frame: its key in a video or a tar, its time there, height, width, and the pixels of each class that it has.
Row = tuple[str | None, float | None, int, int, list[tuple[int, int]]]


def shard_name(shard: int, shards: int) -> str:
    return f"{shard:04d}-of-{shards:04d}"


def journals_of(folder: Path, shard: int, shards: int) -> list[Path]:
    return sorted((folder / "journal").glob(f"{shard_name(shard, shards)}.*.jsonl"))


def journal_for(folder: Path, shard: int, shards: int, worker: str) -> Path:
    return folder / "journal" / f"{shard_name(shard, shards)}.{worker}.jsonl"


class Journal:
    """Writes whole lines to the end of a file that only one process writes; it is made with its first line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def begin(self, item: Item, part: int, rows: list[Row]) -> None:
        """Write some of the rows of a file that is not done yet."""
        self._write({"file": item.name, "part": part, "rows": rows})

    def finish(self, item: Item, part: int, rows: list[Row], bad: list[tuple[str, str]]) -> None:
        """Write that a file is done; `bad` lists the members of a tar that could not be read, with the reason."""
        record: dict[str, Any] = {"file": item.name, "part": part, "rows": rows, "done": True}
        self._write({**record, "bad": bad} if bad else record)

    def _write(self, record: dict[str, Any]) -> None:
        left = (json.dumps(record, separators=(",", ":")) + "\n").encode()
        with cannot_be_written(self._path):
            if self._descriptor is None:
                make_folder(self._path.parent)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o666)
            while left:
                left = left[os.write(self._descriptor, left) :]

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


@dataclass(frozen=True)
class Finished:
    """Is a file that was done, with the rows of its frames."""

    item: Item  # without its place
    rows: list[Row]
    bad: list[tuple[str, str]]


def finished_in(path: Path) -> Iterator[Finished]:
    """Yield the files that a journal says are done."""
    pending: list[Row] = []
    of = ""
    for record in records_in(path):
        try:
            if record["part"] == 0 or record["file"] != of:
                pending, of = [], record["file"]
            pending += record["rows"]
            if record.get("done"):
                yield Finished(Item(of, ""), pending, record.get("bad", []))
                pending, of = [], ""
        except (KeyError, TypeError, AttributeError) as error:
            raise damaged_journal(path) from error


def records_in(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # else its writer was killed
                    yield parse_json(line)
    except (OSError, Unreadable) as error:
        raise damaged_journal(path) from error


def damaged_journal(path: Path) -> OutputError:
    return OutputError(f"{path} is damaged; delete it, and the files that it tells of are done again")
