"""Makes small frames with their expected labels for an engine's record, so that the engine can be proven anywhere.

The frames are the user's own images where the build was given some, else made street scenes. They are stored at a
fraction of the size and enlarged by repeating pixels: exact on every machine, and small as PNG. ONNX Runtime computes
the labels with the very graph that the engine is built from: FP16 is rounded after every node, and INT8 uses the
graph's own quantise and dequantise nodes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from segdeploy.errors import EngineError
from segdeploy.graph.fp16 import HALF, rounding
from segdeploy.graph.load import Graph
from segdeploy.graph.plugins import without_plugins
from segdeploy.graph.view import View
from segdeploy.model.engine import GoldenFrame
from segdeploy.model.signature import Signature
from segdeploy.picture.image import Geometry, LabelMap, unfit_logits
from segdeploy.prove.probes import enlarged, small_frames, times_smaller
from segdeploy.run.io import from_output, to_input
from segdeploy.size import Size

COUNT = 3  # so that neighbouring slots differ, and a slot differs from its neighbours in the next turn


def make_golden(graph: Graph, count: int = COUNT, images: Sequence[Path] = ()) -> tuple[GoldenFrame, ...]:
    """Label `count` small frames with `graph`: from the user's `images` as far as there are any, then made scenes.

    A graph of several sizes labels as many at each.
    """
    sizes = graph.signature.sizes
    frames = (
        replace(one, size=str(size)) for size in sizes for one in golden_of(graph.at(size), count, images)
    )
    return tuple(frames) if sizes else golden_of(graph, count, images)


def golden_of(graph: Graph, count: int, images: Sequence[Path]) -> tuple[GoldenFrame, ...]:
    from segdeploy.run.ort import run_exactly  # here: engines are proven without ONNX Runtime too

    signature = graph.signature
    made, times = small_frames(count, signature.size, signature.resize, images), times_smaller(signature.size)
    frames = np.stack([enlarged(small, times, signature.size) for _, small in made])
    model = as_rounded(without_plugins(graph.model)).SerializeToString()
    batch = signature.batch or 1
    labels: list[LabelMap] = []
    for start in range(0, count, batch):
        slots = [(start + slot) % count for slot in range(batch)]
        answer = run_exactly(model, to_input(signature, frames[slots]), signature.output.name)
        labels.extend(labels_from_output(signature, answer))
    filled = zip(made, labels, strict=False)  # the last batch may be filled up
    return tuple(GoldenFrame(times, as_text(small), as_text(known), name) for (name, small), known in filled)


def read_golden(record: Sequence[GoldenFrame], size: Size) -> tuple[NDArray[np.uint8], LabelMap]:
    """Read the frames N×H×W×3 of a size, and their labels N×H×W."""
    record = [one for one in record if one.size in ("", str(size))]
    try:
        frames = [enlarged(from_text(one.frame), one.enlarged, size) for one in record]
        labels = [labels_in_text(one.labels) for one in record]
        return np.stack(frames), np.stack(labels)
    except (ValueError, cv2.error) as error:
        raise EngineError(
            f"the record holds no frames to compare the engine with ({error}); build the engine again"
        ) from error


def labels_from_output(signature: Signature, answers: NDArray[Any]) -> LabelMap:
    """Turn a graph's or an engine's output into labels N×H×W."""
    given = from_output(signature, answers)
    if signature.interface != "logits":
        return given
    whole = Geometry(signature.size, signature.size, 0, 0)
    aligned = signature.align_corners
    return np.stack([unfit_logits(logits, signature.size, whole, aligned) for logits in given])


def as_rounded(model: ModelProto) -> ModelProto:
    """Make an FP16 graph round after every node; one with FP16 at its input or output is returned as it is."""
    ends = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    if HALF in ends or HALF not in View(model).types.values():
        return model
    return rounding(model)


def as_text(image: LabelMap) -> str:
    encoded, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not encoded:
        raise EngineError("a frame could not be encoded as PNG")
    return base64.b64encode(data.tobytes()).decode()


def from_text(text: str, flags: int = cv2.IMREAD_COLOR) -> NDArray[Any]:
    """Decode a PNG, to H×W×3 unless `flags` say otherwise."""
    data = base64.b64decode(text)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if decoded is None:
        raise ValueError("not a PNG")
    return np.asarray(decoded)


def labels_in_text(text: str) -> LabelMap:
    """Decode labels of 8 or 16 bits."""
    return from_text(text, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
