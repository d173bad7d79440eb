"""Run a graph: one file per runtime, one protocol, and nothing here knows which network is inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import GraphError, RequestError
from segdeploy.model.card import ModelCard
from segdeploy.model.signature import Signature
from segdeploy.picture import image
from segdeploy.picture.image import Frame, Geometry
from segdeploy.picture.segmentation import Segmentation

__all__ = ["Session", "open_session", "segment", "segment_many"]


class Session(Protocol):
    """A graph that is ready to run.

    `signature.batch` is None where it takes batches of more than one size; `batches` then says which are worth giving.
    """

    @property
    def signature(self) -> Signature: ...

    @property
    def batches(self) -> tuple[int, int]:
        """The fewest images it takes at once, and how many are best."""

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """The graph's own input to its own output, of one batch."""

    def close(self) -> None: ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_session(
    path: str | Path,
    *,
    threads: int | None = None,
    provider: str | None = None,
    card: ModelCard | None = None,
    shares_cores: bool = False,
) -> Session:
    """An .onnx in ONNX Runtime or OpenVINO, or an .engine in TensorRT.

    `provider` is where an .onnx is computed: cpu (ONNX Runtime's, the default), openvino (on the CPU too), or ONNX
    Runtime's cuda or tensorrt; `card` describes a graph that was not exported by segdeploy. On the CPU a copy of the
    graph runs that answers the same in less time. `shares_cores` is for streams, whose decoder and encoder need the
    processor too.
    """
    path = Path(path)
    if path.suffix == ".engine":
        return open_engine(path, threads, provider, card)
    if not path.is_file():
        raise RequestError(
            f"there is no file {path}; a model is an .onnx made by: segdeploy export CHECKPOINT"
        )
    if path.suffix != ".onnx":
        raise GraphError(
            f"{path.name} has the suffix {path.suffix!r}; a model that runs here ends in .onnx or .engine"
        )
    if provider == "openvino":
        from segdeploy.run.openvino import OpenvinoSession

        return OpenvinoSession(path, threads=threads, card=card)
    if provider not in (None, "cpu"):
        from segdeploy.run.ort_gpu import OrtDeviceSession

        return OrtDeviceSession(path, threads=threads, provider=provider, card=card)
    from segdeploy.run.cpu_graph import shortened
    from segdeploy.run.ort import OrtSession

    copy = shortened(path, fuse=True)
    return OrtSession(path, threads, provider, card, copy, shares_cores)


def open_engine(path: Path, threads: int | None, provider: str | None, card: ModelCard | None) -> Session:
    for flag, value in (("threads", threads), ("provider", provider)):
        if value is not None:
            raise RequestError(
                f"{flag} {value!r} is for an .onnx in ONNX Runtime; {path.name} runs on the GPU in TensorRT"
            )
    from segdeploy.run.tensorrt.session import TensorrtSession

    return TensorrtSession(path, card)


def segment(session: Session, frame: Frame, how: str = "stretch", kernel: str | None = None) -> Segmentation:
    """One H×W×3 uint8 RGB frame to its labels, at the frame's own size.

    `kernel` resizes the frame; None takes the one that the model was trained behind. `linear` is the fastest, and what
    DeepStream does.
    """
    return next(segment_many(session, [frame], how, kernel))


def segment_many(
    session: Session, frames: Iterable[Frame], how: str = "stretch", kernel: str | None = None
) -> Iterator[Segmentation]:
    """Frames of any sizes, in batches as large as the graph was exported, or its engine tuned, for; else one by one."""
    waiting: list[Frame] = []
    for frame in frames:
        waiting.append(frame)
        if len(waiting) == session.batches[1]:
            yield from segment_batch(session, waiting, how, kernel)
            waiting = []
    if waiting:
        yield from segment_batch(session, waiting, how, kernel)


def segment_batch(
    session: Session, frames: list[Frame], how: str = "stretch", kernel: str | None = None
) -> list[Segmentation]:
    """At most one batch; where the session takes larger ones only, it gets black frames for the rest."""
    signature = session.signature
    inputs, geometries = fit_batch(session, frames, how, kernel)
    answers = answered(signature, session.run(inputs))
    return [  # the padded slots have no geometry
        segmentation_of(signature, answer, geometry)
        for answer, geometry in zip(answers, geometries, strict=False)
    ]


def fit_batch(
    session: Session, frames: list[Frame], how: str, kernel: str | None
) -> tuple[NDArray[Any], list[Geometry]]:
    """The graph's own input of so many frames."""
    signature = session.signature
    slots = signature.batch or max(len(frames), session.batches[0])
    fitted = np.zeros((slots, signature.size.height, signature.size.width, 3), np.uint8)
    geometries = []
    for slot, frame in enumerate(frames):
        fitted[slot], geometry = image.fit(frame, signature.size, how, kernel or signature.resize)
        geometries.append(geometry)
    return prepared(signature, fitted), geometries


def segmentation_of(signature: Signature, answer: NDArray[Any], geometry: Geometry) -> Segmentation:
    """One slot of what `answered` gives, at its frame's size."""
    if signature.interface == "logits":
        return Segmentation(image.unfit_logits(answer, signature.size, geometry), signature.labels)
    return Segmentation(image.unfit(answer, geometry), signature.labels)


def prepared(signature: Signature, frames: NDArray[np.uint8]) -> NDArray[Any]:
    """Fitted frames N×H×W×3 as the graph's input."""
    if signature.input.dtype == "uint8":
        return frames if signature.channels_last else np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
    pixels: NDArray[Any] = image.normalise(frames, signature.mean, signature.scale)
    if signature.channels_last:
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    return pixels.astype(signature.input.dtype, copy=False)


def answered(signature: Signature, answers: NDArray[Any]) -> NDArray[Any]:
    """The graph's output as float32 logits N×C×h×w or uint8 labels N×H×W."""
    if signature.interface == "logits":
        if signature.logits_last:
            answers = np.ascontiguousarray(answers.transpose(0, 3, 1, 2))
        if answers.shape[1] != signature.classes:  # a graph that left their number open
            raise GraphError(
                f"the graph answers logits of {answers.shape[1]} classes, and the card {signature.card!r} has"
                f" {signature.classes}; name the card that it was trained for"
            )
        return answers.astype(np.float32, copy=False)
    size = signature.size
    if answers[0].size != size.height * size.width:  # a graph that left its sides open
        raise GraphError(
            f"the graph answers labels {answers.shape} to images of {size}; export it with labels of the input's size"
        )
    if signature.foreign and not 0 <= answers.min() <= answers.max() < signature.classes:
        raise GraphError(
            f"the graph answers class ids of {answers.min()} to {answers.max()}, and its card {signature.card!r} has"
            f" {signature.classes} classes; name the card that it was trained for"
        )
    return answers.reshape(-1, size.height, size.width).astype(np.uint8, copy=False)
