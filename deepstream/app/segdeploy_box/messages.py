"""Says what is in a frame as one line of JSON, and hands lines on without ever holding the video up."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from segdeploy_box.painting import LabelsOfFrame

Item = TypeVar("Item")
MOST_WAITING = 64


@dataclass(frozen=True)
class Seen:
    """Is one segmented frame."""

    source: str
    index: int  # of the frame in its source
    time_s: float  # in its source
    labels: LabelsOfFrame  # height × width; -1 where there is no class
    areas: dict[str, float]


def areas_of(labels: LabelsOfFrame, names: Sequence[str]) -> dict[str, float]:
    """Give each present class's share of the pixels, largest first, as `segdeploy run --json` does."""
    known = labels[(labels >= 0) & (labels < len(names))]
    counts = np.bincount(known.ravel(), minlength=len(names))
    order = [index for index in np.argsort(-counts, kind="stable") if counts[index]]
    return {names[index]: float(counts[index] / labels.size) for index in order}


def runs_of(labels: LabelsOfFrame, step: int) -> dict[str, Any]:
    """Write a mask as the lengths of its runs, row by row; `np.repeat(ids, lengths).reshape(size)` is the mask."""
    sampled = labels[step // 2 :: step, step // 2 :: step]
    flat = sampled.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    lengths = np.diff(np.append(starts, flat.size))
    return {
        "size": list(sampled.shape),
        "step": step,
        "ids": flat[starts].tolist(),
        "lengths": lengths.tolist(),
    }


def line_of(seen: Seen, mask_step: int) -> str:
    """Write the line of a frame: the keys of `segdeploy run --json` that are known here, and the mask."""
    line: dict[str, Any] = {
        "source": seen.source,
        "index": seen.index,
        "time_s": round(seen.time_s, 6),
        "areas": seen.areas,
    }
    if mask_step:
        line["mask"] = runs_of(seen.labels, min(mask_step, *seen.labels.shape))
    return json.dumps(line)


class Tally(Protocol):
    """Counts what became of the items of an outlet."""

    def count(self, outlet: str, what: str, number: int = 1) -> None: ...


class Outlet(Generic[Item]):
    """Hands items to `take` in a thread of its own; one that is slow loses the oldest, and nothing else waits."""

    def __init__(
        self, name: str, take: Callable[[Item], None], tally: Tally, fail: Callable[[Exception], None]
    ) -> None:
        self.name = name
        self._take, self._tally, self._fail = take, tally, fail
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        with self._changed:
            if len(self._waiting) == MOST_WAITING:
                self._waiting.popleft()
                self._tally.count(self.name, "dropped")
            self._waiting.append(item)
            self._changed.notify()

    def close(self, timeout_s: float) -> bool:
        """Let what waits go out, for at most `timeout_s`, and drop the rest; tells whether `take` is done."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            if self._waiting:
                self._tally.count(self.name, "dropped", len(self._waiting))
            self._waiting.clear()
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ends:
                    self._changed.wait()
                if not self._waiting:
                    return
                item = self._waiting.popleft()
            try:
                self._take(item)
            except Exception as error:  # noqa: BLE001 # whatever it is, the app has to end with it
                self._fail(error)
                return
            self._tally.count(self.name, "sent")


class LinesFile:
    """Appends lines to a file, or writes them to standard output; each is out as soon as it is written."""

    def __init__(self, place: str) -> None:
        self._file = sys.stdout if place == "-" else Path(place).open("a", encoding="utf-8")  # noqa: SIM115 # closed in `close`

    def write(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()


def wait_for(done: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until `done` is true; give its last answer."""
    end = time.monotonic() + timeout_s
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    return done()
