"""Opens a model once, and works through the files that it is handed."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from segdeploy.errors import EngineError, GraphError, MissingExtra, OutputError, RequestError, SegdeployError
from segdeploy.files import digest_of
from segdeploy.model.card import read_card
from segdeploy.model.typed_json import from_json
from segdeploy.picture.segmentation import Segmentation
from segdeploy.run.crew import Answer, Task
from segdeploy.run.session import open_session, segment_batch
from segdeploy.serve.archive.items import Item
from segdeploy.serve.archive.journal import Journal, Row, journal_for
from segdeploy.serve.archive.labels import labels_into, labels_path
from segdeploy.serve.archive.plan import read_plan
from segdeploy.serve.archive.reading import Frames, KeyedFrame

# Errors after which the next file would fare no better; all others are of the file.
FATAL = (OutputError, GraphError, EngineError, MissingExtra)
ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class Setup:
    """Holds what a worker is told once."""

    model: str
    digest: str
    output: str
    shard: int
    shards: int
    labels: str
    fit: str
    resize: str | None
    every: int
    most_pixels: int
    card: str | None
    provider: str | None
    threads: int | None


def open_segmenter(setup: Mapping[str, Any], worker: str) -> Segmenter:
    return Segmenter(from_json(Setup, dict(setup)), worker)


class Segmenter:
    """Segments files, and writes their labels and then a line into its own journal."""

    def __init__(self, setup: Setup, worker: str) -> None:
        self._setup = setup
        self._output = Path(setup.output)
        self._demand_same()
        card = read_card(setup.card) if setup.card else None
        self._session = open_session(setup.model, provider=setup.provider, threads=setup.threads, card=card)
        self._journal = Journal(journal_for(self._output, setup.shard, setup.shards, worker))
        self.batch = self._session.batches[1]

    def work(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        """Answer for each file as it is done or has failed; an error that is not of a file is raised."""
        items = [Item(*task) for task in tasks]
        images = [item for item in items if item.kind == "image"]
        for start in range(0, len(images), self.batch):
            yield from self._images(images[start : start + self.batch])
        for item in items:
            if item.kind != "image":
                yield self._container(item)

    def close(self) -> None:
        self._journal.close()
        self._session.close()

    def _demand_same(self) -> None:
        """Refuse to work on a machine of a cluster that sees another model, or another folder."""
        setup, here = self._setup, socket.gethostname()
        if read_plan(self._output) is None:
            raise OutputError(
                f"{setup.output} on {here} is not the archive's folder; name one with -o that all machines share"
            )
        if Path(setup.model).is_file() and digest_of(Path(setup.model)) != setup.digest:
            raise RequestError(
                f"{setup.model} on {here} is another model than where the archive was started; put the same there"
            )

    def _images(self, items: Sequence[Item]) -> Iterator[Answer]:
        read: list[tuple[Item, Path | None, KeyedFrame]] = []
        for item in items:
            try:
                path = labels_path(self._output, item, self._setup.labels)
                read += [(item, path, keyed) for keyed in self._frames(item)]
            except FATAL:
                raise
            except (SegdeployError, MemoryError) as error:
                yield failed(item, error)
        if not read:
            return
        for (item, path, _), result in zip(read, self._segmented([one for *_, one in read]), strict=True):
            with labels_into(path, item, self._setup.labels) as add:
                add("", result)
            self._journal.finish(item, 0, [journal_row(None, None, result)], [])
            yield {"key": item.name, "frames": 1, "bad": 0}

    def _container(self, item: Item) -> Answer:
        rows: list[Row] = []
        parts = count = 0
        frames = self._frames(item)
        try:
            path = labels_path(self._output, item, self._setup.labels)
            with labels_into(path, item, self._setup.labels) as add:
                for some in chunks(frames, self.batch):
                    for keyed, result in zip(some, self._segmented(some), strict=True):
                        add(str(keyed.key), result)
                        rows.append(journal_row(keyed.key, keyed.time_s, result))
                        count += 1
                    if len(rows) >= ROWS_AT_ONCE:
                        self._journal.begin(item, parts, rows)
                        rows, parts = [], parts + 1
        except FATAL:
            raise
        except (SegdeployError, MemoryError) as error:
            return failed(item, error)
        self._journal.finish(item, parts, rows, frames.bad)
        return {"key": item.name, "frames": count, "bad": len(frames.bad)}

    def _frames(self, item: Item) -> Frames:
        return Frames(item, self._setup.every, self._setup.most_pixels)

    def _segmented(self, some: Sequence[KeyedFrame]) -> list[Segmentation]:
        frames = [keyed.frame for keyed in some]
        return segment_batch(self._session, frames, self._setup.fit, self._setup.resize)


def failed(item: Item, error: BaseException) -> Answer:
    reason = "it needs more memory than there is" if isinstance(error, MemoryError) else str(error)
    return {"key": item.name, "reason": reason}


def journal_row(key: str | None, time_s: float | None, result: Segmentation) -> Row:
    height, width = result.labels.shape
    counts = np.bincount(result.labels.ravel())
    return key, time_s, height, width, [(int(value), int(counts[value])) for value in np.flatnonzero(counts)]


def chunks(frames: Iterable[KeyedFrame], size: int) -> Iterator[list[KeyedFrame]]:
    taken = iter(frames)
    while some := list(islice(taken, size)):
        yield some
