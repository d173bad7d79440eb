"""Defines sessions, which every runtime offers, and segments frames with them.

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
from segdeploy.machine import give_free_memory_back
from segdeploy.model.card import ModelCard, as_card
from segdeploy.model.signature import Signature
from segdeploy.picture import image
from segdeploy.picture.image import Frame, Geometry, LabelMap
from segdeploy.picture.segmentation import Segmentation
from segdeploy.run.address import ModelAddress, as_model
from segdeploy.run.device_array import DeviceArray
from segdeploy.run.io import from_output, to_input
from segdeploy.run.runtimes import SessionOptions, runtime_for
from segdeploy.shell import command_line
from segdeploy.size import Size

__all__ = ["Session", "open_session", "segment", "segment_many"]

MOST_THREADS = 1024


class Session(Protocol):
    """Is a graph that is ready to run.

    `signature.batch` is None if it takes batches of more than one size; `batches` then says which to give.
    """

    @property
    def signature(self) -> Signature: ...

    @property
    def batches(self) -> tuple[int, int]:
        """Return the fewest images that it takes at once, and the best number."""

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Compute the graph's own output for its own input, for one batch."""

    def close(self) -> None: ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class DeviceSession(Session, Protocol):
    """Is a session that also takes arrays on the GPU: an engine's, and those of the providers cuda and tensorrt.

    So frames that are decoded on the GPU, and labels that are drawn or counted there, need not go through the host.
    """

    def run_device(self, inputs: Any, out: Any = None) -> DeviceArray:
        """Do as `run`, for an array with DLPack or `__cuda_array_interface__`; the work is finished when it returns.

        The answer has both too, so `torch.from_dlpack` and `cupy.asarray` take it. It is written into `out`, an array
        on the GPU too, or into memory of its own.
        """


@runtime_checkable
class FrameSession(Session, Protocol):
    """Is a session that fits frames to its input and labels them at their own size on its device: an engine's."""

    def label_frames(self, frames: list[Frame], how: str, kernel: str | None) -> list[LabelMap] | None:
        """Label at most one batch as `segment_batch` does; None where it cannot, and the processor has to."""


def open_session(
    path: str | Path | ModelAddress,
    *,
    threads: int | None = None,
    provider: str | None = None,
    card: ModelCard | str | PathLike[str] | None = None,
    shares_cores: bool = False,
    precision: str | None = None,
    size: Size | None = None,
    streams: int = 1,
    attention: str = "all",
) -> Session:
    """Open an .onnx in ONNX Runtime or OpenVINO, an .engine in TensorRT, or a triton:// address on its server.

    `provider` is where an .onnx is computed: cpu (ONNX Runtime's, the default), openvino (on the CPU too), or ONNX
    Runtime's cuda or tensorrt; `card` describes a graph that was not exported by segdeploy. On the CPU a faster copy of
    the graph runs, which gives the same answers. `shares_cores` is for streams, whose decoder and encoder need the
    processor too. A graph of several sizes takes each frame at the size that fits it, unless `size` is one of them.
    A provider, threads or a precision that a runtime does not use are refused. `attention` says which of its products
    are in bytes for int8, of graphs that have scales for them. With `streams` a CPU computes as many images at once,
    each on `threads`, for callers in as many threads.
    """
    runtime = runtime_for(path, provider, precision)
    path = as_model(path)
    # An engine that is missing is refused by its session: its record may be here, and say how it was built.
    if runtime.takes == ".onnx" and isinstance(path, Path) and not path.is_file():
        raise RequestError(
            f"there is no file {path}; a model is an .onnx made by: segdeploy export CHECKPOINT"
        )
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise RequestError(f"{threads} threads were asked for; expected 1 to {MOST_THREADS}")
    if threads is not None and "threads" not in runtime.heeds:
        raise RequestError(
            f"threads {threads} is not for {path.name}, which runs in {runtime.words}; leave it out"
        )
    described = as_card(card)
    if precision is not None and isinstance(path, Path):
        demand_graph_has(precision, path, described)
    options = SessionOptions(
        threads, runtime.provider, described, shares_cores, precision, size, attention, streams
    )
    opened = runtime.load()(path, options)
    give_free_memory_back()
    if size is not None:
        opened.signature = opened.signature.at(size)
    session: Session = opened
    return session


def demand_graph_has(asked: str, path: Path, card: ModelCard | None) -> None:
    """Refuse a precision that the graph was not made for: INT8 needs scales, and a quantised graph has no FP32."""
    from segdeploy.graph.load import read_graph  # here: engines run without it

    own = read_graph(path, card, weights=False).precision
    if asked == "int8" and not own.int8:
        raise RequestError(
            f"{path.name} is {own}, and int8 needs scales that are calibrated on your images; run what this makes:"
            f" {command_line('segdeploy', 'quantize', path, '--images', 'DIR')}"
        )
    if asked == "f32" and own.is_typed:
        raise RequestError(
            f"{path.name} is {own}, not f32; run the graph that it was made from, or leave --precision out"
        )
    if asked == "bf16" and own.fp16:
        raise RequestError(
            f"{path.name} is {own}; bf16 is for a graph that is not FP16, so export without --fp16"
        )


def segment(
    session: Session, frame: Frame | str | PathLike[str], how: str = "stretch", kernel: str | None = None
) -> Segmentation:
    """Segment one H×W×3 uint8 RGB frame, or an image file, into labels at the frame's own size.

    `kernel` resizes the frame; None takes the one that the model was trained with. `linear` is the fastest, and
    DeepStream's.
    """
    return next(segment_many(session, [as_frame(frame)], how, kernel))


def probabilities(
    session: Session, frame: Frame | str | PathLike[str], how: str = "stretch", kernel: str | None = None
) -> NDArray[np.float32]:
    """Compute the probability of each class, C×H×W, for one frame; the graph must give its logits."""
    signature = session.signature
    if signature.interface != "logits":
        raise RequestError(
            f"this graph has the interface {signature.interface} and gives labels only; probabilities need"
            " its logits: export it with --interface logits"
        )
    inputs, (geometry,), signature = fit_batch(session, [as_frame(frame)], how, kernel)
    logits = from_output(signature, session.run(inputs))[0]
    return image.probabilities_of(logits, signature.size, geometry, signature.align_corners)


def as_frame(frame: Frame | str | PathLike[str]) -> Frame:
    return image.read_frame(frame) if isinstance(frame, (str, PathLike)) else frame


def segment_many(
    session: Session, frames: Iterable[Frame], how: str = "stretch", kernel: str | None = None
) -> Iterator[Segmentation]:
    """Segment frames of any sizes, in batches of the size that the graph or its engine is made for; else one by one."""
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
    """Segment at most one batch; a session that takes only larger batches gets black frames for the rest."""
    for frame in frames:
        image.demand_frame(frame)
    labels = session.label_frames(frames, how, kernel) if isinstance(session, FrameSession) else None
    if labels is not None:
        return [Segmentation(one, session.signature.labels) for one in labels]
    inputs, geometries, signature = fit_batch(session, frames, how, kernel)
    answers = from_output(signature, session.run(inputs))
    return [  # the padded slots have no geometry
        segmentation_of(signature, answer, geometry)
        for answer, geometry in zip(answers, geometries, strict=False)
    ]


def fit_batch(
    session: Session, frames: list[Frame], how: str, kernel: str | None
) -> tuple[NDArray[Any], list[Geometry], Signature]:
    """Make the graph's own input from frames; returns it, each frame's geometry, and the graph at the first's size."""
    image.demand_frame(frames[0])
    signature = session.signature.fitting(*frames[0].shape[:2])
    slots = signature.batch or max(len(frames), session.batches[0])
    fitted = np.zeros((slots, signature.size.height, signature.size.width, 3), np.uint8)
    geometries = []
    for slot, frame in enumerate(frames):
        fitted[slot], geometry = image.fit(frame, signature.size, how, kernel or signature.resize)
        geometries.append(geometry)
    return to_input(signature, fitted), geometries, signature


def segmentation_of(signature: Signature, answer: NDArray[Any], geometry: Geometry) -> Segmentation:
    """Turn one slot of `from_output`'s result into a segmentation at its frame's size."""
    if signature.interface == "logits":
        labels = image.unfit_logits(answer, signature.size, geometry, signature.align_corners)
        return Segmentation(labels, signature.labels)
    return Segmentation(image.unfit(answer, geometry), signature.labels)
