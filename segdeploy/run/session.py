"""Sessions, which every runtime offers, and what is done with one: frames in, segmentations out.

Nothing here knows which runtime computes, or which network is inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import RequestError
from segdeploy.model.card import ModelCard
from segdeploy.model.signature import Signature
from segdeploy.picture import image
from segdeploy.picture.image import Frame, Geometry
from segdeploy.picture.segmentation import Segmentation
from segdeploy.run.device_array import DeviceArray
from segdeploy.run.io import from_output, to_input
from segdeploy.run.runtimes import SessionOptions, runtime_for

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


@runtime_checkable
class DeviceSession(Session, Protocol):
    """A session on the GPU that also takes what lies there: an engine's, and those of the providers cuda and tensorrt.

    A frame that a decoder has put on the GPU need not go over the host, nor its labels that are drawn or counted there.
    """

    def run_device(self, inputs: Any, out: Any = None) -> DeviceArray:
        """Do as `run`, for an array with DLPack or `__cuda_array_interface__`; finished when it returns.

        The answer has both too, and goes to `torch.from_dlpack` or `cupy.asarray` as it is. It is written into `out`,
        an array on the GPU too, or into memory of its own.
        """


def open_session(
    path: str | Path,
    *,
    threads: int | None = None,
    provider: str | None = None,
    card: ModelCard | None = None,
    shares_cores: bool = False,
) -> Session:
    """Open an .onnx in ONNX Runtime or OpenVINO, or an .engine in TensorRT.

    `provider` is where an .onnx is computed: cpu (ONNX Runtime's, the default), openvino (on the CPU too), or ONNX
    Runtime's cuda or tensorrt; `card` describes a graph that was not exported by segdeploy. On the CPU a copy of the
    graph runs that answers the same in less time. `shares_cores` is for streams, whose decoder and encoder need the
    processor too. What a runtime does not heed is refused.
    """
    runtime = runtime_for(path, provider)
    path = Path(path)
    # An engine that is missing is refused by its session: its record may be here, and say how it was built.
    if runtime.takes != ".engine" and not path.is_file():
        raise RequestError(
            f"there is no file {path}; a model is an .onnx made by: segdeploy export CHECKPOINT"
        )
    if threads is not None and "threads" not in runtime.heeds:
        raise RequestError(
            f"threads {threads} is not for {path.name}, which runs in {runtime.words}; leave it out"
        )
    session: Session = runtime.load()(path, SessionOptions(threads, runtime.provider, card, shares_cores))
    return session


def segment(
    session: Session, frame: Frame | str | PathLike[str], how: str = "stretch", kernel: str | None = None
) -> Segmentation:
    """One H×W×3 uint8 RGB frame, or an image file, to its labels at the frame's own size.

    `kernel` resizes the frame; None takes the one that the model was trained behind. `linear` is the fastest, and what
    DeepStream does.
    """
    return next(segment_many(session, [as_frame(frame)], how, kernel))


def probabilities(
    session: Session, frame: Frame | str | PathLike[str], how: str = "stretch", kernel: str | None = None
) -> NDArray[np.float32]:
    """The probability of each class C×H×W of one frame; the graph has to give its logits."""
    signature = session.signature
    if signature.interface != "logits":
        raise RequestError(
            f"this graph has the interface {signature.interface} and gives labels only; probabilities need"
            " its logits: export it with --interface logits"
        )
    inputs, (geometry,) = fit_batch(session, [as_frame(frame)], how, kernel)
    logits = from_output(signature, session.run(inputs))[0]
    return image.probabilities_of(logits, signature.size, geometry, signature.align_corners)


def as_frame(frame: Frame | str | PathLike[str]) -> Frame:
    return image.read_frame(frame) if isinstance(frame, (str, PathLike)) else frame


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
    answers = from_output(signature, session.run(inputs))
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
    return to_input(signature, fitted), geometries


def segmentation_of(signature: Signature, answer: NDArray[Any], geometry: Geometry) -> Segmentation:
    """One slot of what `from_output` gives, at its frame's size."""
    if signature.interface == "logits":
        labels = image.unfit_logits(answer, signature.size, geometry, signature.align_corners)
        return Segmentation(labels, signature.labels)
    return Segmentation(image.unfit(answer, geometry), signature.labels)
