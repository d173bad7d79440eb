"""Makes small frames with the labels they must get, kept in an engine's record, so that it can be proven anywhere.

The frames are the user's own images where the build was given some, and made street scenes where not, at a fraction of
the size, enlarged by repeating pixels: exact on every machine, and small as PNG. The labels are ONNX Runtime's, from
the very graph that the engine is built from, computed as it says: FP16 rounded after every node, INT8 by its own
quantise and dequantise nodes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
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

COUNT = 3  # different ones for neighbouring slots, and for a slot and its neighbours in the next round


def make_golden(graph: Graph, count: int = COUNT, images: Sequence[Path] = ()) -> tuple[GoldenFrame, ...]:
    """Label small frames of the user's own `images`, as far as there are any, and made scenes, by `graph`."""
    from segdeploy.run.ort import run_exactly  # not where an engine is proven: there may be no ONNX Runtime

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
    """Read the frames N×H×W×3 and their labels N×H×W."""
    try:
        frames = [enlarged(from_text(one.frame), one.enlarged, size) for one in record]
        labels = [labels_in_text(one.labels) for one in record]
        return np.stack(frames), np.stack(labels)
    except (ValueError, cv2.error) as error:
        raise EngineError(
            f"the record holds no frames to compare the engine with ({error}); build the engine again"
        ) from error


def labels_from_output(signature: Signature, answers: NDArray[Any]) -> LabelMap:
    """Give the labels N×H×W of a graph's or an engine's output."""
    given = from_output(signature, answers)
    if signature.interface != "logits":
        return given
    whole = Geometry(signature.size, signature.size, 0, 0)
    aligned = signature.align_corners
    return np.stack([unfit_logits(logits, signature.size, whole, aligned) for logits in given])


def as_rounded(model: ModelProto) -> ModelProto:
    """Write out the rounding of an FP16 graph; one whose input or output is FP16 too is left as it is."""
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
