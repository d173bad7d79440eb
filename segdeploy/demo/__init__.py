"""Runs every step on the bundled model and made scenes: a new user's first look, and a check that all steps work.

The bundled SegFormer-B0 was trained on made scenes only (models/demo-b0/README.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segdeploy import scenes
from segdeploy.convert.export import Exported, export_onnx
from segdeploy.convert.int8.quantize import Quantised, Request, quantize
from segdeploy.convert.int8.recipe import read_recipe
from segdeploy.datasets.made_scenes import made_scenes
from segdeploy.files import make_folder
from segdeploy.graph.load import read_graph
from segdeploy.model.card import read_card
from segdeploy.picture.image import Frame
from segdeploy.picture.segmentation import write_image
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.prove.confusion import Confusion
from segdeploy.run.session import open_session, segment_many
from segdeploy.serve.deepstream.reference import PyTorchReference
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.replay import Replay, replay
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.shipped import folder
from segdeploy.size import Size

CARD = "segformer-b0-demo"
HELD_OUT = 900_000_000  # seeds from here on were never trained on
CLIP_FPS = 20.0
COMPARED_EVERY = 16  # frames of the replay: PyTorch takes many times as long as the graph


@dataclass(frozen=True)
class Demo:
    exported: Exported
    int8: Quantised
    images: int
    miou: float
    pixel_accuracy: float
    sheet: Path  # image | truth | answer, a row per scene
    street: Path  # the clip as it was made
    clip: Path  # the same with the model's overlay
    configuration: Path  # nvinfer's, of a folder that DeepStream runs
    replayed: Path  # the clip as a device with that configuration would show it
    replay: Replay


def run_demo(
    output: Path,
    *,
    images: int = 12,
    calibration_scenes: int = 32,
    clip_frames: int = 40,
    progress: Callable[[str], None] = lambda step: None,
) -> Demo:
    make_folder(output)
    progress("exporting the bundled SegFormer-B0 and comparing it with PyTorch")
    checkpoint = folder("models") / "demo-b0"
    exported = export_onnx(checkpoint, card=CARD, interface="nvinfer", output=output)
    size = read_card(CARD).size
    int8 = to_int8(exported.path, size, calibration_scenes, output, progress)
    made = [scenes.make_scene(HELD_OUT + index, size.height, size.width) for index in range(images)]
    with open_session(exported.path) as session:
        progress(f"segmenting {images} made scenes")
        answers = list(segment_many(session, [scene.image for scene in made]))
        confusion = Confusion(session.signature.classes)
        for scene, answer in zip(made, answers, strict=True):
            confusion.add(scene.labels, answer.labels)
        rows = []
        palette = session.signature.labels.palette()
        for scene, answer in list(zip(made, answers, strict=True))[:4]:
            overlay = answer.overlay(scene.image, legend=False)
            rows.append(np.hstack([scene.image, palette[scene.labels], overlay]))
        sheet = output / "scenes.png"
        write_image(sheet, np.vstack(rows))
        progress(f"segmenting a clip of {clip_frames} frames")
        clip = output / "clip.mp4"
        made_clip = scenes.make_clip(HELD_OUT, clip_frames, size.height, size.width)
        frames = [scene.image for scene in made_clip]
        overlays = [
            answer.overlay(frame) for frame, answer in zip(frames, segment_many(session, frames), strict=True)
        ]
        write_clip(clip, overlays)
    street = output / "street.mp4"
    write_clip(street, frames)
    configuration, replayed, seen = to_deepstream(exported.path, checkpoint, street, output, progress)
    return Demo(
        exported,
        int8,
        images,
        confusion.miou,
        confusion.pixel_accuracy,
        sheet,
        street,
        clip,
        configuration,
        replayed,
        seen,
    )


def to_int8(graph: Path, size: Size, count: int, output: Path, progress: Callable[[str], None]) -> Quantised:
    """Quantise as `segdeploy quantize --recipe demo-scenes` does."""
    recipe = read_recipe("demo-scenes")
    seed = recipe.seed or 0
    with made_scenes(count, seed, size) as dataset:
        request = Request(dataset=dataset, count=count, seed=seed, probes=16, equalise="off", recipe=recipe)
        done = quantize(graph, request, output=output, progress=progress)
    for state in (f"{graph.stem}.calibration.npz", "scenes.train.classes.npz"):
        (output / state).unlink()
    return done


def to_deepstream(
    graph: Path, checkpoint: Path, street: Path, output: Path, progress: Callable[[str], None]
) -> tuple[Path, Path, Replay]:
    """Render and replay as `deepstream config` and `deepstream replay --reference` do, PyTorch on a few frames only."""
    progress("rendering its DeepStream configuration")
    render(RenderRequest(graph), output / "deepstream")
    configuration, replayed = output / "deepstream" / "nvinfer_config.txt", output / "replay.mp4"
    progress("replaying the configuration over the clip, held against PyTorch")
    in_pytorch = PyTorchReference(str(checkpoint), read_graph(graph, weights=False).signature)
    number = count()

    def now_and_then(frame: Frame) -> NDArray[np.int64] | None:
        return in_pytorch(frame) if next(number) % COMPARED_EVERY == 0 else None

    return configuration, replayed, replay(configuration, street, replayed, reference=now_and_then)


def write_clip(path: Path, frames: list[Frame]) -> None:
    with ClipWriter(path, Size(*frames[0].shape[:2]), CLIP_FPS) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, index / CLIP_FPS)
