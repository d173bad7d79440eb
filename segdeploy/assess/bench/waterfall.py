"""Measures each stage from an image file or a video's frame to its picture with labels, to show where the time goes.

The stages run one after the other here. A stream overlaps them in threads, and is then as fast as its slowest stage:
this shows which stage that is, and how much of a frame's time is not the network.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np

from segdeploy.assess.bench.modes import ITERATIONS, BenchPlan
from segdeploy.assess.bench.timings import median, percentile
from segdeploy.errors import RequestError
from segdeploy.picture import image
from segdeploy.picture.image import IMAGE_SUFFIXES, WRITTEN, Frame, find_images, read_frame
from segdeploy.picture.video_reading import TimedFrame, Video
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.run.io import from_output, to_input
from segdeploy.run.session import Session, segmentation_of
from segdeploy.run.timing import Timed
from segdeploy.size import Size

STAGES = ("decode", "resize", "normalise", "handover", "h2d", "infer", "d2h", "labels", "draw", "encode")
NETWORK = "infer"
MEANT = {
    "decode": "file or video to RGB",
    "resize": "to the model's size",
    "normalise": "to the model's input",
    "handover": "into memory that a device can copy from, launching, and waiting",
    "h2d": "to the device",
    "infer": "the graph, with the arg-max where it has one",
    "d2h": "from the device",
    "labels": "back to the frame's size, with the arg-max where the graph has none",
    "draw": "overlay and legend",
    "encode": "to PNG, or into an mp4",
}
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    name: str
    median_ms: float  # of an image
    p99_ms: float
    mean_ms: float
    share: float  # of all stages' time


@dataclass(frozen=True)
class Waterfall:
    source: str
    frames: int
    frame: str  # HxW of the first
    stages: tuple[Stage, ...]
    median_ms: float  # of a whole image
    p99_ms: float
    images_per_s: float  # one stage after the other
    outside_network: float  # share of the time that is not the network
    encoded: str
    stopped: bool


class Stopwatch:
    """Measures the stages of the current image."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def __call__(self, stage: str, work: Callable[[], T], images: int = 1) -> T:
        """Do `work`, which handles `images` at once, and note its time per image."""
        start = time.perf_counter()
        done = work()
        self.times[stage] = (time.perf_counter() - start) * 1e3 / images
        return done


def measure_end_to_end(session: Session, source: Path, plan: BenchPlan) -> Waterfall:
    """Run the images of `source`, repeatedly if needed, until both the time and ten images are done."""
    rows: list[dict[str, float]] = []
    stopped = False
    with ExitStack() as opened:
        road = open_road(source, opened)
        first = one_image(session, road, Stopwatch())  # first calls set things up
        warm_end = time.perf_counter() + plan.warm_up_ms / 1e3
        try:
            while len(rows) < ITERATIONS or time.perf_counter() < warm_end + plan.duration_s:
                watch = Stopwatch()
                one_image(session, road, watch)
                if time.perf_counter() >= warm_end:
                    rows.append(watch.times)
        except KeyboardInterrupt:
            if not rows:
                raise
            stopped = True
    return summarise_stages(rows, source.name, f"{first.shape[0]}x{first.shape[1]}", road.encoded, stopped)


def one_image(session: Session, road: Road, watch: Stopwatch) -> Frame:
    """Run one frame through all stages; a graph of a larger batch gets it in each slot, as that many images."""
    signature = session.signature
    slots = signature.batch or 1
    frame = watch("decode", road.decode)
    fitted, geometry = watch("resize", lambda: image.fit(frame, signature.size, "stretch", signature.resize))
    batch = np.repeat(fitted[None], slots, axis=0) if slots > 1 else fitted[None]
    inputs = watch("normalise", lambda: to_input(signature, batch), slots)
    if isinstance(session, Timed):
        timed = session
        answers, query = watch("handover", lambda: timed.run_timed(inputs), slots)
        parts = {"h2d": query.h2d_ms, NETWORK: query.compute_ms, "d2h": query.d2h_ms}
        watch.times |= {stage: ms / slots for stage, ms in parts.items()}
        watch.times["handover"] = max(watch.times["handover"] - query.latency_ms / slots, 0.0)
    else:
        answers = watch(NETWORK, lambda: session.run(inputs), slots)
        watch.times |= dict.fromkeys(("handover", "h2d", "d2h"), 0.0)
    result = watch("labels", lambda: segmentation_of(signature, from_output(signature, answers)[0], geometry))
    overlay = watch("draw", lambda: result.overlay(frame))
    watch("encode", lambda: road.encode(overlay))
    return frame


def summarise_stages(
    rows: Sequence[dict[str, float]], source: str, frame: str, encoded: str, stopped: bool
) -> Waterfall:
    wholes = sorted(sum(row.values()) for row in rows)
    total = sum(wholes)
    stages = []
    for name in STAGES:
        times = sorted(row[name] for row in rows)
        spent = sum(times)
        stages.append(Stage(name, median(times), percentile(times, 99), spent / len(rows), spent / total))
    network = next(stage.share for stage in stages if stage.name == NETWORK)
    return Waterfall(
        source=source,
        frames=len(rows),
        frame=frame,
        stages=tuple(stages),
        median_ms=median(wholes),
        p99_ms=percentile(wholes, 99),
        images_per_s=len(rows) / total * 1e3,
        outside_network=1 - network,
        encoded=encoded,
        stopped=stopped,
    )


# ---- where frames come from, and pictures go -------------------------------------------------------------------


class Road(Protocol):
    """Decodes frames of a source, and encodes pictures."""

    encoded: str  # what pictures become

    def decode(self) -> Frame:
        """Return the next frame; after the last one the first again."""

    def encode(self, picture: Frame) -> None: ...


def open_road(source: Path, opened: ExitStack) -> Road:
    if source.is_dir() or source.suffix.lower() in IMAGE_SUFFIXES:
        return ImageRoad(find_images(source, but=WRITTEN))
    if not source.is_file():
        raise RequestError(f"there is no file or folder {source}; expected images or a video")
    return VideoRoad(source, opened)


class ImageRoad:
    encoded = "PNG, in memory"

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = cycle(paths)

    def decode(self) -> Frame:
        return read_frame(next(self._paths))

    def encode(self, picture: Frame) -> None:
        cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


class VideoRoad:
    encoded = "H.264, on disk"

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self._opened = opened
        self._video = opened.enter_context(Video(path))
        self._frames = self._again(path)
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        self._place = Path(folder) / "overlay.mp4"
        self._writer: ClipWriter | None = None
        self._written = 0

    def _again(self, path: Path) -> Iterator[TimedFrame]:
        yield from self._video.read()
        while True:
            with Video(path) as video:
                yield from video.read()

    def decode(self) -> Frame:
        return next(self._frames).frame

    def encode(self, picture: Frame) -> None:
        if self._writer is None:
            size = Size(*picture.shape[:2])
            self._writer = self._opened.enter_context(ClipWriter(self._place, size, self._video.fps))
        self._writer.write(picture, self._written / self._video.fps)
        self._written += 1
