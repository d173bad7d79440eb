"""Small frames and what they must be labelled, kept in the record of an engine, so that it can be proven anywhere.

The frames are the user's own images where the build was given some, and made street scenes where not, at a fraction of
the size, enlarged by repeating pixels: exact on every machine, and small as PNG. The labels are ONNX Runtime's, from
the very graph that the engine is built from, computed as it says: FP16 rounded after every node, INT8 by its own
quantise and dequantise nodes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from segdeploy import scenes
from segdeploy.errors import EngineError
from segdeploy.graph.fp16 import HALF, rounding
from segdeploy.graph.load import Graph
from segdeploy.graph.plugins import without_plugins
from segdeploy.graph.view import View
from segdeploy.model.engine import GoldenFrame
from segdeploy.model.signature import Signature
from segdeploy.picture.image import Geometry, fit, read_frame, unfit_logits
from segdeploy.prove.material import spread
from segdeploy.run.io import from_output, to_input
from segdeploy.size import Size

COUNT = 3  # different ones for neighbouring slots, and for a slot and its neighbours in the next round
PIXELS = 1 << 14  # of a frame before it is enlarged
SEED = 990_000_000


def make(graph: Graph, count: int = COUNT, images: Sequence[Path] = ()) -> tuple[GoldenFrame, ...]:
    """Takes frames of the user's own `images`, as far as there are any, and made scenes, and labels them by `graph`."""
    from segdeploy.run.ort import run_exactly  # not where an engine is proven: there may be no ONNX Runtime

    signature = graph.signature
    chosen = [images[place] for place in spread(len(images), count)]
    made = [small_image(path, signature) for path in chosen]
    made += [small_scene(SEED + index, signature.size) for index in range(count - len(made))]
    names = [path.name for path in chosen] + ["a made scene"] * (count - len(chosen))
    frames = np.stack([enlarged(small, times, signature.size) for small, times in made])
    model = as_rounded(without_plugins(graph.model)).SerializeToString()
    batch = signature.batch or 1
    labels: list[NDArray[np.uint8]] = []
    for start in range(0, count, batch):
        slots = [(start + slot) % count for slot in range(batch)]
        answer = run_exactly(model, to_input(signature, frames[slots]), signature.output.name)
        labels.extend(labels_of(signature, answer))
    filled = zip(names, made, labels, strict=False)  # the last batch may be filled up
    return tuple(
        GoldenFrame(times, as_text(small), as_text(known), name) for name, (small, times), known in filled
    )


def read(record: Sequence[GoldenFrame], size: Size) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frames N×H×W×3 and their labels N×H×W."""
    try:
        frames = [enlarged(from_text(one.frame), one.enlarged, size) for one in record]
        labels = [from_text(one.labels)[..., 0] for one in record]
        return np.stack(frames), np.stack(labels)
    except (ValueError, cv2.error) as error:
        raise EngineError(
            f"the record holds no frames to compare the engine with ({error}); build the engine again"
        ) from error


def small_scene(seed: int, size: Size) -> tuple[NDArray[np.uint8], int]:
    """A scene and how many times each of its pixels is repeated both ways to cover `size`."""
    times = times_smaller(size)
    return scenes.make_scene(seed, ceil(size.height / times), ceil(size.width / times)).image, times


def small_image(path: Path, signature: Signature) -> tuple[NDArray[np.uint8], int]:
    """The same of an image, as the model sees it: each pixel is the mean of a square of its pixels."""
    fitted, _ = fit(read_frame(path), signature.size, kernel=signature.resize)
    times = times_smaller(signature.size)
    rows, columns = (-side % times for side in fitted.shape[:2])
    whole = np.pad(fitted, ((0, rows), (0, columns), (0, 0)), "edge")
    squares = whole.reshape(whole.shape[0] // times, times, whole.shape[1] // times, times, 3)
    return np.rint(squares.mean(axis=(1, 3))).astype(np.uint8), times


def times_smaller(size: Size) -> int:
    return max(round(sqrt(size.height * size.width / PIXELS)), 1)


def enlarged(small: NDArray[np.uint8], times: int, size: Size) -> NDArray[np.uint8]:
    height, width = small.shape[0] * times, small.shape[1] * times
    if not (size.height <= height < size.height + times and size.width <= width < size.width + times):
        raise ValueError(f"a frame of {height}x{width} does not just cover {size}")
    whole = small.repeat(times, axis=0).repeat(times, axis=1)
    return whole[: size.height, : size.width]


def labels_of(signature: Signature, answers: NDArray[Any]) -> NDArray[np.uint8]:
    """The labels N×H×W of a graph's or an engine's output."""
    given = from_output(signature, answers)
    if signature.interface != "logits":
        return given
    whole = Geometry(signature.size, signature.size, 0, 0)
    aligned = signature.align_corners
    return np.stack([unfit_logits(logits, signature.size, whole, aligned) for logits in given])


def as_rounded(model: ModelProto) -> ModelProto:
    """An FP16 graph with its rounding written out; one whose input or output is FP16 too is left as it is."""
    ends = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    if HALF in ends or HALF not in View(model).types.values():
        return model
    return rounding(model)


def as_text(image: NDArray[np.uint8]) -> str:
    encoded, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not encoded:
        raise EngineError("a frame could not be encoded as PNG")
    return base64.b64encode(data.tobytes()).decode()


def from_text(text: str) -> NDArray[np.uint8]:
    """H×W×3; a grey image three times."""
    data = base64.b64decode(text)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if decoded is None:
        raise ValueError("not a PNG")
    return np.asarray(decoded, np.uint8)
