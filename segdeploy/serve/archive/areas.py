"""Makes the table of areas, a row for each frame with each class's share of its pixels, out of the journals.

Rows are in the order in which the files were done. With several shards each makes its own part, and whoever finds the
parts of all there merges them; two that do so at once write the same.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segdeploy.errors import MissingExtra
from segdeploy.files import replacing
from segdeploy.serve.archive.items import Digests
from segdeploy.serve.archive.journal import Finished, finished_in, journals_of, shard_name

CHOICES = ("parquet", "csv")
FIRST = ("file", "frame", "time_s", "height", "width")
ROWS_AT_ONCE = 10_000
Write = Callable[[tuple[Any, ...]], object]  # of one row


def finished_files(folder: Path, shard: int, shards: int) -> Iterator[Finished]:
    """Yield each file of a shard once, though two workers may have done it: one was killed before it could say so."""
    seen = Digests()
    for path in journals_of(folder, shard, shards):
        for finished in finished_in(path):
            if seen.add(finished.item.digest):
                yield finished


def write_areas(folder: Path, shard: int, shards: int, classes: Sequence[str], kind: str) -> Path:
    """Write the table of one shard, and that of all if the others have theirs; returns what was written last."""
    whole = folder / f"areas.{kind}"
    if shards == 1:
        write_table(whole, kind, classes, rows_in(finished_files(folder, 1, 1), len(classes)))
        return whole
    parts = [folder / "areas" / f"{shard_name(one, shards)}.{kind}" for one in range(1, shards + 1)]
    own = parts[shard - 1]
    write_table(own, kind, classes, rows_in(finished_files(folder, shard, shards), len(classes)))
    if not all(part.is_file() for part in parts):
        return own
    write_table(whole, kind, classes, (row for part in parts for row in table_rows(part, kind)))
    return whole


def rows_in(files: Iterable[Finished], classes: int) -> Iterator[tuple[Any, ...]]:
    for finished in files:
        for key, time_s, height, width, areas in finished.rows:
            shares = [0.0] * classes
            for value, pixels in areas:
                shares[value] = pixels / (height * width)
            yield finished.item.name, key, time_s, height, width, *shares


def columns_of(classes: Sequence[str]) -> list[str]:
    """Name the columns; a class that has another one's name is told by its number."""
    seen: set[str] = set()
    names = []
    for number, name in enumerate(classes):
        names.append(f"area.{name}" if name not in seen else f"area.{name}.{number}")
        seen.add(name)
    return [*FIRST, *names]


def write_table(path: Path, kind: str, classes: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    writer = parquet_writer if kind == "parquet" else csv_writer
    with replacing(path) as part, writer(part, columns_of(classes)) as write:
        for row in rows:
            write(row)


@contextmanager
def csv_writer(path: Path, columns: Sequence[str]) -> Iterator[Write]:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.writer(file)
        table.writerow(columns)
        yield table.writerow


@contextmanager
def parquet_writer(path: Path, columns: Sequence[str]) -> Iterator[Write]:
    arrow, parquet = load_arrow()
    kinds = [arrow.string(), arrow.string(), arrow.float64(), arrow.int32(), arrow.int32()]
    kinds += [arrow.float64()] * (len(columns) - len(FIRST))
    schema = arrow.schema(list(zip(columns, kinds, strict=True)))
    waiting: list[tuple[Any, ...]] = []
    with parquet.ParquetWriter(path, schema) as table:

        def flush() -> None:
            if waiting:
                cells = [
                    arrow.array(one, kind)
                    for one, kind in zip(zip(*waiting, strict=True), kinds, strict=True)
                ]
                table.write_table(arrow.Table.from_arrays(cells, schema=schema))
                waiting.clear()

        def write(row: tuple[Any, ...]) -> None:
            waiting.append((name_as_text(row[0]), row[1] and name_as_text(row[1]), *row[2:]))
            if len(waiting) == ROWS_AT_ONCE:
                flush()

        yield write
        flush()


def table_rows(path: Path, kind: str) -> Iterator[tuple[Any, ...]]:
    if kind == "csv":
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.reader(file)
            next(table)
            yield from map(tuple, table)
        return
    _, parquet = load_arrow()
    with parquet.ParquetFile(path) as found:
        for batch in found.iter_batches(ROWS_AT_ONCE):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def name_as_text(name: str) -> str:
    """Spell a name that is none as JSON and Python do: a table holds text."""
    return name.encode(errors="backslashreplace").decode()


def load_arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "archive", "--areas parquet") from error
    return pyarrow, pyarrow.parquet
