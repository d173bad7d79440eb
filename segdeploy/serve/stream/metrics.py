"""Counts what streams do, for Prometheus: at /metrics of the page, and as a file that node_exporter reads.

The names are those of the DeepStream application's /metrics, where the meaning is the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segdeploy.errors import OutputError, RequestError
from segdeploy.files import write_text
from segdeploy.serve.stream.live import Live
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.sources import Stream

CONTENT_TYPE = "text/plain; version=0.0.4"
SUFFIX = ".prom"
WRITTEN_EVERY_S = 5.0
PREFIX = "segdeploy_"


@dataclass(frozen=True)
class SourceFigures:
    """Holds what is known of one source at a moment."""

    name: str
    frames: int = 0
    latency_s: float = 0.0  # of all frames together
    newest: Shown | None = None
    seen_s: float = 0.0  # when that one was segmented
    reconnections: int = 0
    age_s: float = 0.0  # of the newest frame
    is_up: bool = False

    def areas(self) -> Samples:
        """Give the share of every class of the model, unseen ones too: a series that ends is no 0."""
        result = self.newest.results[0] if self.newest else None
        shares = result.areas() if result else {}
        names = dict.fromkeys(result.classes.names) if result else ()
        return [("", f',class="{escaped(name)}"', shares.get(name, 0.0)) for name in names]


Samples = list[tuple[str, str, float]]  # an ending of the metric's name, further labels, the value


def one_value(value: float) -> Samples:
    return [("", "", value)]


@dataclass(frozen=True)
class MetricFamily:
    name: str
    kind: str
    what: str
    read: Callable[[SourceFigures], Samples]


FAMILIES = (
    MetricFamily("frames_total", "counter", "Frames segmented.", lambda one: one_value(one.frames)),
    MetricFamily(
        "dropped_frames_total",
        "counter",
        "Frames of a live source left out to keep up.",
        lambda one: one_value(one.newest.dropped if one.newest else 0),
    ),
    MetricFamily(
        "reconnections_total",
        "counter",
        "Times that a lost source came back.",
        lambda one: one_value(one.reconnections),
    ),
    MetricFamily("source_up", "gauge", "Whether frames come.", lambda one: one_value(one.is_up)),
    MetricFamily(
        "last_frame_age_seconds",
        "gauge",
        "Time since the last frame.",
        lambda one: one_value(one.age_s) if one.newest else [],
    ),
    MetricFamily(
        "fps",
        "gauge",
        "Frames a second, over the last two seconds.",
        lambda one: one_value(one.newest.fps if one.newest and one.is_up else 0.0),
    ),
    MetricFamily(
        "latency_seconds",
        "summary",
        "Time from a decoded frame to a segmented one.",
        lambda one: [("_sum", "", one.latency_s), ("_count", "", one.frames)],
    ),
    MetricFamily("class_area_ratio", "gauge", "Share of the last frame's pixels.", SourceFigures.areas),
)


class Figures:
    """Holds the figures of all sources; `take` is called for every frame, and works nothing out."""

    def __init__(
        self, streams: Sequence[Stream], silent_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._streams, self._silent_s, self._clock = streams, silent_s, clock
        self._lock = threading.Lock()
        self._of = {stream.name: SourceFigures(stream.name) for stream in streams}

    def take(self, shown: Shown) -> None:
        with self._lock:
            one = self._of[shown.source]
            self._of[shown.source] = replace(
                one,
                frames=one.frames + 1,
                latency_s=one.latency_s + shown.latency_ms / 1e3,
                newest=shown,
                seen_s=self._clock(),
            )

    def as_text(self) -> str:
        return "\n".join([*self._lines([self._now(stream) for stream in self._streams]), ""])

    def _now(self, stream: Stream) -> SourceFigures:
        with self._lock:
            one = self._of[stream.name]
        age_s = self._clock() - one.seen_s
        is_up = one.newest is not None and age_s <= self._silent_s
        again = stream.reconnections if isinstance(stream, Live) else 0
        return replace(one, age_s=age_s, is_up=is_up, reconnections=again)

    @staticmethod
    def _lines(sources: Sequence[SourceFigures]) -> Iterator[str]:
        labels = [f'source="{number}",name="{escaped(one.name)}"' for number, one in enumerate(sources)]
        for family in FAMILIES:
            yield f"# HELP {PREFIX}{family.name} {family.what}"
            yield f"# TYPE {PREFIX}{family.name} {family.kind}"
            for label, one in zip(labels, sources, strict=True):
                for ending, further, value in family.read(one):
                    yield f"{PREFIX}{family.name}{ending}{{{label}{further}}} {round(float(value), 6):.15g}"


def escaped(text: str) -> str:
    """Write a label's value as Prometheus reads it; a name that is no text is spelled as Python does."""
    plain = text.encode(errors="backslashreplace").decode()
    return plain.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def demand_metrics_file(path: Path) -> None:
    if path.suffix != SUFFIX:
        raise RequestError(
            f"--metrics {path} does not end in {SUFFIX}, and node_exporter reads no other file"
        )


class MetricsFile:
    """Writes the figures to `path` every five seconds, each time whole, and a last time at the end; is a sink."""

    name = "--metrics"

    def __init__(self, path: Path, figures: Figures) -> None:
        self._path, self._figures = path, figures
        self._error: OutputError | None = None
        self._ended = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._work, name="segdeploy: --metrics", daemon=True)
        self._thread.start()

    def take(self, shown: Shown) -> None:
        """Tell what went wrong with the file; a frame is counted before the sinks, which may leave some out."""
        self._demand_written()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._demand_written()
        self._write()

    def give_up(self) -> None:
        """Do nothing: a disk that hangs cannot be ended."""

    def _demand_written(self) -> None:
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        write_text(self._path, self._figures.as_text())

    def _work(self) -> None:
        while self._error is None and not self._ended.wait(WRITTEN_EVERY_S):
            try:
                self._write()
            except OutputError as error:
                self._error = error
