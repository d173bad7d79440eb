"""Counts what happens, and shows it at /metrics in Prometheus's text format, and at /healthz."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from segdeploy_box.settings import Metrics, Source


@dataclass
class SourceFigures:
    frames: int = 0
    last_s: float | None = None  # monotonic
    areas: dict[str, float] = field(default_factory=dict)
    without_class: float = 0.0


class Figures:
    """Holds all figures. The pipeline writes them, the page and the watchdog read them."""

    def __init__(self, sources: Sequence[Source], lost_s: float, frame_s: float) -> None:
        self._lock = threading.Lock()
        self._names = [source.name for source in sources]
        self._sources = [SourceFigures() for _ in sources]
        self._outlets: Counter[tuple[str, str]] = Counter()
        self._lost_s, self._frame_s = lost_s, frame_s

    def seen(self, source: int, areas: dict[str, float]) -> int:
        """Take a frame; gives its number in its source, from 0."""
        with self._lock:
            figures = self._sources[source]
            figures.frames += 1
            figures.last_s = time.monotonic()
            figures.areas, figures.without_class = areas, max(1.0 - sum(areas.values()), 0.0)
            return figures.frames - 1

    def count(self, outlet: str, what: str, number: int = 1) -> None:
        with self._lock:
            self._outlets[outlet, what] += number

    def last_frame_s(self) -> float | None:
        with self._lock:
            return max((one.last_s for one in self._sources if one.last_s is not None), default=None)

    def frames(self) -> int:
        with self._lock:
            return sum(one.frames for one in self._sources)

    def are_up(self) -> list[bool | None]:
        """Tell of each source whether frames come; None where none has come yet."""
        now = time.monotonic()
        with self._lock:
            return [None if one.last_s is None else now - one.last_s <= self._lost_s for one in self._sources]

    def is_healthy(self) -> bool:
        last = self.last_frame_s()
        return last is not None and time.monotonic() - last <= self._frame_s

    def as_text(self) -> str:
        up = self.are_up()
        now = time.monotonic()
        with self._lock:
            return "\n".join([*self._lines(up, now), ""])

    def _lines(self, up: Sequence[bool | None], now: float) -> Iterator[str]:
        labelled = [
            (f'source="{number}",name="{escaped(name)}"', figures)
            for number, (name, figures) in enumerate(zip(self._names, self._sources, strict=True))
        ]
        yield from head("frames_total", "counter", "Frames segmented.")
        yield from (f"segdeploy_frames_total{{{label}}} {one.frames}" for label, one in labelled)
        yield from head("source_up", "gauge", "Whether frames come.")
        yield from (
            f"segdeploy_source_up{{{label}}} {int(bool(is_up))}"
            for (label, _), is_up in zip(labelled, up, strict=True)
        )
        yield from head("last_frame_age_seconds", "gauge", "Time since the last frame.")
        for label, one in labelled:
            if one.last_s is not None:
                yield f"segdeploy_last_frame_age_seconds{{{label}}} {now - one.last_s:.3f}"
        yield from head("class_area_ratio", "gauge", "Share of the last frame's pixels.")
        for label, one in labelled:
            for name, share in one.areas.items():
                yield f'segdeploy_class_area_ratio{{{label},class="{escaped(name)}"}} {share:.6f}'
        yield from head("without_class_ratio", "gauge", "Share of the last frame's pixels without a class.")
        yield from (
            f"segdeploy_without_class_ratio{{{label}}} {one.without_class:.6f}" for label, one in labelled
        )
        yield from head("messages_total", "counter", "Messages by what became of them.")
        for (outlet, what), number in sorted(self._outlets.items()):
            yield f'segdeploy_messages_total{{outlet="{outlet}",state="{what}"}} {number}'


def head(name: str, kind: str, help_text: str) -> tuple[str, str]:
    return f"# HELP segdeploy_{name} {help_text}", f"# TYPE segdeploy_{name} {kind}"


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Page:
    """Serves the figures over HTTP."""

    def __init__(self, where: Metrics, figures: Figures) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # of a client that says nothing

            def do_GET(self) -> None:
                answers = {"/metrics": (200, figures.as_text), "/healthz": (200, lambda: "ok\n")}
                status, text = answers.get(self.path.partition("?")[0], (404, lambda: "see /metrics\n"))
                if self.path == "/healthz" and not figures.is_healthy():
                    status, text = 503, lambda: "no frames come\n"
                body = text().encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((where.address, where.port), Handler)
        self._server.daemon_threads = True
        host, port = self._server.server_address[:2]
        self.url = f"http://{host!s}:{port}/metrics"
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
