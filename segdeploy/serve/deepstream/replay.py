"""A configuration executed with nvinfer's semantics on ONNX Runtime: what a device would show, wrong colours included.

It stands in for DeepStream where that is absent. Scaling, normalisation, interval and parsing follow nvinfer's public
sources; the graph runs in its own precision on the CPU, so what TensorRT rounds is not seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import DeepStreamError, RequestError
from segdeploy.model.labels import truth_type
from segdeploy.picture.image import Frame, Geometry, unfit
from segdeploy.picture.segmentation import Segmentation
from segdeploy.picture.video_reading import TimedFrame
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.prove.agreement import Agreement, total
from segdeploy.run.session import Session, open_session
from segdeploy.serve.deepstream.config import NvinferConfig, demand_sound, read_config
from segdeploy.serve.deepstream.frames import Source, open_source
from segdeploy.serve.deepstream.parse_output import Parse, Parsed, parser_of
from segdeploy.serve.deepstream.preprocess import Feed, make_feed
from segdeploy.size import Size
from segdeploy.special_files import is_file

# The labels H×W, of the network's size, that a frame should get; None: it is not compared.
Reference = Callable[[Frame], NDArray[np.int64] | None]

BANNER = (
    "This stands in for DeepStream: nvinfer's scaling, normalisation, interval and parsing as its public sources have"
    " them, the graph in ONNX Runtime on the CPU. TensorRT and nvsegvisual did not run."
)


@dataclass
class Held:
    """The labels of a replay held against a reference's, frame by frame."""

    frames: list[Agreement] = field(default_factory=list)

    def add(self, class_map: NDArray[Any], truth: NDArray[np.int64]) -> None:
        self.frames.append(Agreement(1, truth.size, int(np.count_nonzero(class_map == truth)), None))

    @property
    def agreement(self) -> Agreement | None:
        return total(self.frames) if self.frames else None

    @property
    def lowest(self) -> Agreement | None:
        return min(self.frames, key=lambda one: one.pixel_agreement, default=None)

    def as_json(self) -> dict[str, Any]:
        agreement, lowest = self.agreement, self.lowest
        return {
            "agreement": agreement.as_json() if agreement else None,
            "lowest_frame": lowest.pixel_agreement if lowest else None,
        }


@dataclass
class Replay:
    """The counts of a replay over a clip."""

    frames: int = 0
    inferred: int = 0
    expected: int = 0  # frames, as the container says
    without_class: int = 0  # pixels
    pixels: int = 0
    beyond: int = 0  # values that nvinfer would read past the end of the output
    refused: int = 0  # frames that the parser refused, whose class map nobody wrote
    notes: list[str] = field(default_factory=list)
    compared: Held = field(default_factory=Held)  # with the reference on the frame as it was read
    muxed: Held = field(default_factory=Held)  # on the frame as the muxer hands it on, where that is another

    @property
    def agreement(self) -> Agreement | None:
        return self.compared.agreement

    @property
    def lowest(self) -> Agreement | None:
        return self.compared.lowest

    def as_json(self) -> dict[str, Any]:
        return {
            "stands_in_for": "DeepStream",
            "frames": self.frames,
            "inferred": self.inferred,
            "expected": self.expected,
            "share_without_class": self.without_class / self.pixels if self.pixels else None,
            "values_read_beyond_output": self.beyond,
            "frames_refused": self.refused,
            **self.compared.as_json(),
            "as_muxed": self.muxed.as_json(),
            "notes": self.notes,
        }

    def add(self, parsed: Parsed) -> None:
        self.beyond += parsed.beyond
        if parsed.refused:
            self.refused += 1
            note = (
                f"{parsed.refused}: nvinfer goes on with memory that nobody wrote, -1 here and anything there"
            )
            self.notes += [note] if note not in self.notes else []
        self.pixels += parsed.class_map.size
        self.without_class += int(np.count_nonzero(parsed.class_map < 0))

    def compare(self, parsed: Parsed, reference: Reference, read: Frame, muxed: Frame) -> None:
        """Hold the labels against the reference's on the frame as it was read, and as the muxer made another of it."""
        frames = [(self.compared, read)] + [(self.muxed, muxed)] * (muxed.shape != read.shape)
        for held, frame in frames:
            if (truth := reference(frame)) is not None:
                held.add(parsed.class_map, truth)


def replay(
    config_path: Path,
    source: Path,
    output: Path,
    *,
    reference: Reference | None = None,
    trust_parser: bool = False,
    muxer: Size | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Replay:
    """Replay `source` into the clip `output`; `muxer` is the size that an app's nvstreammux scales its streams to."""
    if output.suffix.lower() != ".mp4":
        raise RequestError(
            f"{output.name} is not a clip that is written here; expected a name that ends in .mp4"
        )
    if output.exists() and source.exists() and output.samefile(source):
        raise RequestError(f"{output} is both the input and the output; name another file with -o")
    config = read_config(config_path)
    demand_sound(config)
    clip = open_source(source, muxer)
    with open_session(graph_of(config)) as session:
        feed = make_feed(config, session.signature)
        with parser_of(config, session.signature, trust_parser) as parse:
            found = Replay(expected=clip.frames, notes=notes_on(config, parse))
            sound = source if source.is_file() else None
            with ClipWriter(output, clip.muxed_size, clip.fps, sound) as writer:
                for timed, parsed in answers(config, session, feed, parse, clip):
                    frame = clip.muxed(timed.frame)
                    if parsed is not None:
                        found.inferred += 1
                        found.add(parsed)
                        if reference:
                            found.compare(parsed, reference, timed.frame, frame)
                        frame = drawn(frame, parsed, session)
                    writer.write(frame, timed.time_s)
                    found.frames += 1
                    progress()
    if found.frames < found.expected and source.is_file():
        found.notes.append(
            f"only {found.frames} of {found.expected} frames could be decoded: the clip is cut short"
        )
    return found


def graph_of(config: NvinferConfig) -> Path:
    path = config.file("onnx-file")
    if path is None:
        raise DeepStreamError(
            f"{config.path.name} names no onnx-file; an engine cannot be run here, so name its graph"
        )
    if not is_file(path):
        raise DeepStreamError(f"onnx-file {config.get('onnx-file')} is not beside {config.path.name}")
    return path


def notes_on(config: NvinferConfig, parse: Parse | None) -> list[str]:
    notes = []
    mode = config.get("network-mode")
    if mode and not config.get("strongly-typed"):
        notes.append(f"network-mode {mode} lets TensorRT round; here the graph runs in its own precision")
    if parse is None:
        notes.append("network-type 100 without output-tensor-meta=1: nothing behind nvinfer sees a result")
    elif config.get("network-type") == 100:
        notes.append("network-type 100 hands the tensor on; what draws it is the application's own")
    return notes


def answers(
    config: NvinferConfig, session: Session, feed: Feed, parse: Parse | None, clip: Source
) -> Iterator[tuple[TimedFrame, Parsed | None]]:
    """Frames in order, each with its class map, or with none where `interval` leaves it out.

    As many frames as the batch has slots are inferred together, so that each slot is used.
    """
    slots, period = session.signature.batch or config.get("batch-size"), config.get("interval") + 1
    waiting: list[tuple[TimedFrame, bool]] = []
    for number, timed in enumerate(clip.read()):
        waiting.append((timed, number % period == 0 and parse is not None))
        if sum(chosen for _, chosen in waiting) == slots or len(waiting) == 4 * slots * period:
            yield from infer(session, feed, parse, waiting, clip)
            waiting = []
    yield from infer(session, feed, parse, waiting, clip)


def infer(
    session: Session, feed: Feed, parse: Parse | None, waiting: list[tuple[TimedFrame, bool]], clip: Source
) -> Iterator[tuple[TimedFrame, Parsed | None]]:
    chosen = [feed.scaled(clip.muxed(timed.frame)) for timed, wanted in waiting if wanted]
    parsed: Iterator[Parsed] = iter(())
    if chosen and parse is not None:
        batch = session.signature.batch or len(chosen)
        fitted = np.zeros((batch, feed.size.height, feed.size.width, 3), np.uint8)
        fitted[: len(chosen)] = chosen
        outputs = session.run(feed.network_input(fitted))
        parsed = iter([parse(outputs[slot]) for slot in range(len(chosen))])
    for timed, wanted in waiting:
        yield timed, next(parsed) if wanted else None


def drawn(frame: Frame, parsed: Parsed, session: Session) -> Frame:
    """The class map stretched over the whole frame, padding and all; black where there is no class."""
    size, classes = session.signature.size, session.signature.labels
    known = (parsed.class_map >= 0) & (parsed.class_map < classes.ignore)
    labels = np.where(known, parsed.class_map, classes.ignore).astype(truth_type(len(classes.names)))
    stretched = unfit(labels, Geometry(Size(*frame.shape[:2]), size, 0, 0))
    return Segmentation(stretched, classes).overlay(frame)
