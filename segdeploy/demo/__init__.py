"""Runs every step on the bundled model and made scenes: a new user's first look, and a check that all steps work.

Neither PyTorch nor a download is needed: the bundled graph was exported, and compared with PyTorch, when it was packed
(segdeploy/convert/bundled.py). It was trained on made scenes only (models/demo-b0/README.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segdeploy import scenes
from segdeploy.convert.bundled import bundled_graph
from segdeploy.convert.int8.quantize import Quantised, Request, quantize
from segdeploy.convert.int8.recipe import read_recipe
from segdeploy.datasets.made_scenes import made_scenes
from segdeploy.demo.sheet import sheet_of
from segdeploy.files import make_folder
from segdeploy.model.record import ArtifactRecord, read_record
from segdeploy.picture.image import Frame, fit
from segdeploy.picture.segmentation import Segmentation, write_image
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.prove.confusion import Confusion
from segdeploy.run.session import Session, open_session, segment, segment_many
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.replay import Replay, replay
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.serve.stream.drawing import WIPE_PERIOD_S, Drawing, Style, write_line
from segdeploy.serve.stream.result import Shown
from segdeploy.size import Size

HELD_OUT = 900_000_000  # seeds from here on were never trained on
FIRST = HELD_OUT + 3  # a street with much on it
SHOWN = Size(720, 1280)
ROWS = 4
CLIP_FPS = 20.0
COMPARED_EVERY = 16  # frames of the replay

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Demo:
    graph: Path
    record: ArtifactRecord
    int8: Quantised
    images: int
    miou: float
    pixel_accuracy: float
    first: Path  # the first overlay
    sheet: Path  # scene | truth | answer, a row per scene
    street: Path  # the clip as it was made
    clip: Path  # the same with the model's overlay
    wipe: Path  # the same, FP32 left of a line that moves and INT8 right of it
    configuration: Path  # nvinfer's, of a folder that DeepStream runs
    replayed: Path  # the clip as a device with that configuration would show it
    replay: Replay


def run_demo(
    output: Path,
    *,
    images: int = 12,
    calibration_scenes: int = 32,
    clip_frames: int = 60,
    shown: Size = SHOWN,
    progress: Progress = lambda step: None,
) -> Demo:
    make_folder(output)
    progress("unpacking the bundled SegFormer-B0")
    graph = bundled_graph(into=output)
    record = read_record(graph)
    assert record is not None  # noqa: S101 - the pack holds it, and it was compared with the graph
    first, sheet = output / "first.png", output / "scenes.png"
    street, clip = output / "street.mp4", output / "clip.mp4"
    with open_session(graph) as session:
        size = session.signature.size
        progress("segmenting a made street")
        frame = scenes.make_scene(FIRST, shown.height, shown.width).image
        segment(session, frame).write_overlay(first, frame)
        progress(f"the first picture is {first}")
        progress(f"scoring {images} made scenes that it never saw")
        miou, pixel_accuracy = score_scenes(session, images, size)
        write_image(sheet, sheet_of(session, range(HELD_OUT, HELD_OUT + ROWS)))
        progress(f"segmenting a clip of {clip_frames} frames, {shown}")
        made = scenes.make_clip(FIRST, clip_frames, shown.height, shown.width)
        frames = [scene.image for scene in made]
        answers = list(segment_many(session, frames))
        write_clip(street, frames)
        write_clip(clip, (answer.overlay(frame) for frame, answer in zip(frames, answers, strict=True)))
    int8 = to_int8(graph, size, calibration_scenes, output, progress)
    wipe = output / "wipe.mp4"
    progress(f"the same clip in INT8, drawn beside FP32: {wipe.name}")
    with open_session(int8.path) as session:
        write_clip(wipe, wiped(frames, answers, segment_many(session, frames)))
    configuration, replayed, seen = to_deepstream(graph, street, output, progress)
    return Demo(
        graph, record, int8, images, miou, pixel_accuracy, first, sheet, street, clip, wipe, configuration, replayed,
        seen,
    )  # fmt: skip


def score_scenes(session: Session, images: int, size: Size) -> tuple[float, float]:
    made = [scenes.make_scene(HELD_OUT + index, size.height, size.width) for index in range(images)]
    confusion = Confusion(session.signature.classes)
    for scene, answer in zip(made, segment_many(session, [one.image for one in made]), strict=True):
        confusion.add(scene.labels, answer.labels)
    return confusion.miou, confusion.pixel_accuracy


def to_int8(graph: Path, size: Size, count: int, output: Path, progress: Progress) -> Quantised:
    """Quantise as `segdeploy quantize --recipe demo-scenes` does."""
    recipe = read_recipe("demo-scenes")
    seed = recipe.seed or 0
    progress(f"drawing {count} made scenes to calibrate INT8 on")
    with made_scenes(count, seed, size) as dataset:
        request = Request(dataset=dataset, count=count, seed=seed, probes=16, equalise="off", recipe=recipe)
        done = quantize(graph, request, output=output, progress=progress)
    for state in (f"{graph.stem}.calibration.npz", "scenes.train.classes.npz"):
        with suppress(FileNotFoundError):
            (output / state).unlink()
    return done


def to_deepstream(graph: Path, street: Path, output: Path, progress: Progress) -> tuple[Path, Path, Replay]:
    """Render and replay as `deepstream config` and `replay` do, held against `segdeploy run` now and then."""
    progress("rendering its DeepStream configuration")
    render(RenderRequest(graph), output / "deepstream")
    configuration, replayed = output / "deepstream" / "nvinfer_config.txt", output / "replay.mp4"
    progress("replaying that configuration over the clip, with nvinfer's arithmetic")
    number = count()
    with open_session(graph) as session:
        size = session.signature.size

        def now_and_then(frame: Frame) -> NDArray[np.int64] | None:
            if next(number) % COMPARED_EVERY:
                return None
            fitted, _ = fit(frame, size)
            return segment(session, fitted).labels.astype(np.int64)

        return configuration, replayed, replay(configuration, street, replayed, reference=now_and_then)


def wiped(frames: list[Frame], fp32: list[Segmentation], int8: Iterator[Segmentation]) -> Iterator[Frame]:
    """Draw FP32 left of a line and INT8 right of it; the line crosses the picture and comes back in one clip."""
    drawing = Drawing(Style(("FP32", "INT8"), legend=False, layout="wipe"))
    for index, (frame, *both) in enumerate(zip(frames, fp32, int8, strict=True)):
        time_s = WIPE_PERIOD_S * index / len(frames)
        picture = drawing.draw(Shown("street", index, time_s, frame, tuple(both), CLIP_FPS, 0.0, 0))
        for at_right, name in enumerate(drawing.style.names):
            write_line(picture, name, line=0, at_right=bool(at_right))
        yield picture


def write_clip(path: Path, frames: list[Frame] | Iterator[Frame]) -> None:
    pictures = iter(frames)
    first = next(pictures)
    with ClipWriter(path, Size(*first.shape[:2]), CLIP_FPS) as writer:
        writer.write(first, 0.0)
        for index, frame in enumerate(pictures, start=1):
            writer.write(frame, index / CLIP_FPS)
