"""Run a graph: one file per runtime, one protocol, and nothing here knows which network is inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segdeploy import image
from segdeploy.errors import GraphError, RequestError
from segdeploy.image import Frame
from segdeploy.segmentation import Segmentation
from segdeploy.signature import Signature

__all__ = ["Session", "open_session", "segment", "segment_many"]


class Session(Protocol):
    @property
    def signature(self) -> Signature: ...

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """The graph's own input to its own output, of one batch."""

    def close(self) -> None: ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_session(path: str | Path, *, threads: int | None = None, provider: str | None = None) -> Session:
    """An .onnx in ONNX Runtime, on the CPU."""
    path = Path(path)
    if provider not in (None, "cpu"):
        raise RequestError(f"no provider is called {provider!r}; known: cpu")
    if not path.is_file():
        raise RequestError(
            f"there is no file {path}; a model is an .onnx made by: segdeploy export CHECKPOINT"
        )
    if path.suffix != ".onnx":
        raise GraphError(f"{path.name} has the suffix {path.suffix!r}; a model that runs here ends in .onnx")
    from segdeploy.sessions.ort import OrtSession

    return OrtSession(path, threads=threads)


def segment(session: Session, frame: Frame, how: str = "stretch", kernel: str | None = None) -> Segmentation:
    """One H×W×3 uint8 RGB frame to its labels, at the frame's own size.

    `kernel` resizes the frame; None takes the one that the model was trained behind. `linear` is the fastest, and what
    DeepStream does.
    """
    return next(segment_many(session, [frame], how, kernel))


def segment_many(
    session: Session, frames: Iterable[Frame], how: str = "stretch", kernel: str | None = None
) -> Iterator[Segmentation]:
    """Frames of any sizes, in batches as large as the graph was exported for (any batch: one by one)."""
    waiting: list[Frame] = []
    for frame in frames:
        waiting.append(frame)
        if len(waiting) == (session.signature.batch or 1):
            yield from segment_batch(session, waiting, how, kernel)
            waiting = []
    if waiting:
        yield from segment_batch(session, waiting, how, kernel)


def segment_batch(
    session: Session, frames: list[Frame], how: str = "stretch", kernel: str | None = None
) -> list[Segmentation]:
    """At most one batch; a graph of a fixed larger batch gets black frames for the rest."""
    signature = session.signature
    slots = signature.batch or len(frames)
    fitted = np.zeros((slots, signature.size.height, signature.size.width, 3), np.uint8)
    geometries = []
    for slot, frame in enumerate(frames):
        fitted[slot], geometry = image.fit(frame, signature.size, how, kernel or signature.resize)
        geometries.append(geometry)
    answers = answered(signature, session.run(prepared(signature, fitted)))
    results = []
    for answer, geometry in zip(answers, geometries, strict=False):  # the padded slots have no geometry
        if signature.interface == "logits":
            labels = image.unfit_logits(answer, signature.size, geometry)
        else:
            labels = image.unfit(answer, geometry)
        results.append(Segmentation(labels, signature.labels))
    return results


def prepared(signature: Signature, frames: NDArray[np.uint8]) -> NDArray[Any]:
    """Fitted frames N×H×W×3 as the graph's input."""
    if signature.interface == "frames":
        return frames
    return image.normalise(frames, signature.mean, signature.scale)


def answered(signature: Signature, answers: NDArray[Any]) -> NDArray[Any]:
    """The graph's output as float32 logits N×C×h×w or uint8 labels N×H×W."""
    if signature.interface == "logits":
        return answers.astype(np.float32, copy=False)
    size = signature.size
    return answers.reshape(-1, size.height, size.width).astype(np.uint8, copy=False)
