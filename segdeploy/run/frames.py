"""Fits frames and labels them on the GPU (frames.cu): three bytes of a pixel go there, and one or two come back.

All places and weights are computed on the processor, by the functions that fit and label there, once for each size of
frame; the kernels only weigh. So inputs and labels are bit for bit those of the processor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from segdeploy.model.labels import ids_type
from segdeploy.model.signature import Signature
from segdeploy.picture.image import Frame, Geometry, LabelMap, geometry_of, nearest_lines, triangle_taps
from segdeploy.picture.raising import CLEAR, LineSteps, steps_along
from segdeploy.run.cuda import CudaStream, Device, DeviceMemory, PinnedMemory, graph_calls
from segdeploy.run.nvrtc import compile_for
from segdeploy.size import Size

SOURCE = Path(__file__).with_suffix(".cu")
KERNELS = ("fitFrame", "takeLabels", "findLeaders", "raiseLabels")
TYPES = {  # of inputs, class ids and labels
    "uint8": "unsigned char", "uint16": "unsigned short", "int32": "int", "int64": "long long", "float32": "float",
}  # fmt: skip
MOST_SIZES = 16  # of frames whose places and weights are kept

Taps = Callable[[int, int], tuple[NDArray[np.intp], NDArray[np.int32]]]


def linear_taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Make the taps and fixed-point weights, target×2, of OpenCV's bilinear resize along one axis."""
    places = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    first = np.floor(places)
    share = places - first
    weights = np.rint(np.stack([1 - share, share], axis=1) * np.float32(2048)).astype(np.int32)
    lines = first.astype(np.intp)[:, None] + np.arange(2)
    return np.clip(lines, 0, source - 1), weights


class Resizing(NamedTuple):
    """Says how a kernel of `image.resize` weighs, across and then down, and what it adds and drops on the way."""

    taps: Taps
    rounding: tuple[int, int, int, int, int]  # added and shifted across, shifted each, added and shifted down


RESIZING = {
    "linear": Resizing(linear_taps, (0, 4, 16, 2, 2)),
    "pillow": Resizing(triangle_taps, (1 << 21, 22, 0, 1 << 21, 22)),
}


def why_not_on_gpu(signature: Signature) -> str | None:
    """Say what of a graph the kernels do not have; None where they have all."""
    if signature.input.dtype not in ("uint8", "float32"):
        return f"its input is {signature.input.dtype}"
    if signature.classes in (256, 65536):
        return f"{signature.classes} classes leave no label for what is no class"
    if signature.interface != "logits":
        return None if signature.output.dtype in TYPES else f"its labels are {signature.output.dtype}"
    shape = signature.output.shape
    if signature.output.dtype != "float32" or signature.classes not in (shape[1], shape[3]):
        return f"its logits are {signature.output.dtype} {shape}"
    return None


def macros_for(signature: Signature) -> dict[str, str]:
    ids = "int32" if signature.interface == "logits" else signature.output.dtype
    kinds = {"PIXEL": signature.input.dtype, "ID": ids, "LABEL": ids_type(signature.classes).name}
    return {name: TYPES[kind] for name, kind in kinds.items()}


def load_kernels(device: Device, signature: Signature) -> tuple[Mapping[str, Any], Callable[[], None]]:
    """Compile the kernels for this GPU and graph; returns them by name, and what unloads them."""
    image = compile_for(device.compute_capability, SOURCE.read_text(), macros_for(signature))
    calls = graph_calls()
    module = calls.load_module(image)
    return {name: calls.function_of(module, name) for name in KERNELS}, lambda: calls.unload_module(module)


class Batch(Protocol):
    """Runs one batch between what fills its input and what reads its output, which get their addresses."""

    stream: CudaStream

    def run_between(
        self,
        shape: tuple[int, ...],
        fill: Callable[[int, tuple[int, ...]], None],
        read: Callable[[int], None],
    ) -> None: ...


class FramePlaces(NamedTuple):
    """Holds the places and weights for frames of one size: where on the GPU, and how many taps."""

    geometry: Geometry
    memory: DeviceMemory
    at: dict[str, ctypes.c_void_p]
    taps: tuple[int, int]
    packed: NDArray[np.int32]  # kept until it is copied


class FrameLabels:
    """Labels frames of any size by one slot, for one thread at a time, with the device active."""

    def __init__(self, device: Device, kernels: Mapping[str, Any]) -> None:
        self._device, self._kernels = device, kernels
        self._placed: dict[tuple[Any, ...], FramePlaces] = {}
        self._memory: dict[str, DeviceMemory] = {}
        self._pinned: dict[str, PinnedMemory] = {}

    def label(
        self, batch: Batch, signature: Signature, frames: list[Frame], slots: int, how: str, kernel: str
    ) -> list[LabelMap] | None:
        """Label at most one batch; None where the output has what is no class, which the processor then refuses."""
        if len(self._placed) > MOST_SIZES:
            self._forget()
        stream, size, kind = batch.stream, signature.size, ids_type(signature.classes)
        given = np.concatenate([frame.reshape(-1) for frame in frames])
        taken = [frame.shape[0] * frame.shape[1] * kind.itemsize for frame in frames]
        frames_on, labels_on = self._room("frames", given.nbytes), self._room("labels", sum(taken))
        waiting = self._host("frames", given.nbytes).view(given.shape, given.dtype)
        answer = self._host("labels", sum(taken)).view((sum(taken) // kind.itemsize,), kind)
        placed: list[FramePlaces] = []
        logits: list[tuple[int, ...]] = []

        def fill(address: int, answers: tuple[int, ...]) -> None:
            np.copyto(waiting, given)
            stream.upload(frames_on, waiting)
            start = frames_on.address
            for slot in range(slots):
                frame = frames[slot] if slot < len(frames) else None
                if frame is not None:
                    placed.append(
                        self._place(stream, signature, Size(*frame.shape[:2]), how, kernel, answers)
                    )
                    logits.append(answers)
                self._fit(stream, signature, start, placed[-1], kernel, frame is None, address)
                start += 0 if frame is None else frame.nbytes
                address += 3 * size.height * size.width * np.dtype(signature.input.dtype).itemsize

        def read(address: int) -> None:
            target = labels_on.address
            for one, bytes_taken, answers in zip(placed, taken, logits, strict=True):
                self._label(stream, signature, address, answers, one, target)
                address += int(np.prod(answers[1:])) * np.dtype(signature.output.dtype).itemsize
                target += bytes_taken
            stream.download(answer, labels_on)

        shape = (slots, *(int(side) for side in signature.input.shape[1:] if side is not None))
        batch.run_between(shape, fill, read)
        if answer.max() >= signature.classes:
            return None
        ends = np.cumsum([frame.shape[0] * frame.shape[1] for frame in frames])
        parts = np.split(answer.copy(), ends[:-1])
        return [part.reshape(frame.shape[:2]) for part, frame in zip(parts, frames, strict=True)]

    # ---- kernels ---------------------------------------------------------------------------------------------------

    def _fit(
        self, stream: CudaStream, signature: Signature, frame: int, placed: FramePlaces, kernel: str, black: bool,
        target: int,
    ) -> None:  # fmt: skip
        size, geometry, at = signature.size, placed.geometry, placed.at
        content = Size(0, 0) if black else geometry.content
        strides = (3, 1) if signature.channels_last else (1, size.height * size.width)
        arguments = [
            ctypes.c_void_p(frame), geometry.frame.width, at["rows"], placed.taps[0], at["columns"], placed.taps[1],
            *RESIZING[kernel].rounding, geometry.top, geometry.left, content.height, content.width,
            size.height, size.width, *strides, *map(float, signature.mean), *map(float, signature.scale),
            ctypes.c_void_p(target),
        ]  # fmt: skip
        stream.launch(self._kernels["fitFrame"], size, arguments)

    def _label(
        self, stream: CudaStream, signature: Signature, answer: int, shape: tuple[int, ...], placed: FramePlaces,
        target: int,
    ) -> None:  # fmt: skip
        frame, at, classes = placed.geometry.frame, placed.at, signature.classes
        there, output = ctypes.c_void_p(target), ctypes.c_void_p(answer)
        ends = [at["label rows"], at["label columns"], frame.height, frame.width, there]
        if signature.interface != "logits":
            stream.launch(self._kernels["takeLabels"], frame, [output, signature.size.width, classes, *ends])
            return
        height, width = logits_sides(signature, shape)
        strides = (1, classes) if signature.logits_last else (height * width, 1)
        leaders = ctypes.c_void_p(self._room("leaders", 4 * height * width).address)
        arguments = [output, classes, *strides, height, width, CLEAR, leaders]
        stream.launch(self._kernels["findLeaders"], Size(height, width), arguments)
        inner = [at.get("inner rows", ctypes.c_void_p(0)), at.get("inner columns", ctypes.c_void_p(0))]
        arguments = [output, leaders, classes, *strides, width, *inner, *ends]
        stream.launch(self._kernels["raiseLabels"], frame, arguments)

    # ---- memory ----------------------------------------------------------------------------------------------------

    def _place(
        self, stream: CudaStream, signature: Signature, frame: Size, how: str, kernel: str, answers: tuple[int, ...]
    ) -> FramePlaces:  # fmt: skip
        key = frame, signature.size, how, kernel
        if key not in self._placed:
            geometry = geometry_of(frame, signature.size, how)
            tables, taps = tables_for(signature, geometry, kernel, answers)
            packed = np.concatenate([table.reshape(-1) for table in tables.values()])
            memory = self._device.allocate(packed.nbytes)
            ends = memory.address + np.cumsum([0, *(table.nbytes for table in tables.values())])
            at = {name: ctypes.c_void_p(int(end)) for name, end in zip(tables, ends, strict=False)}
            self._placed[key] = FramePlaces(geometry, memory, at, taps, packed)
            stream.upload(memory, packed)
        return self._placed[key]

    def _room(self, name: str, size: int) -> DeviceMemory:
        held = self._memory.get(name)
        if held is None or held.size < size:
            if held is not None:
                del self._memory[name]
                held.free()
            self._memory[name] = self._device.allocate(size)
        return self._memory[name]

    def _host(self, name: str, size: int) -> PinnedMemory:
        held = self._pinned.get(name)
        if held is None or held.size < size:
            if held is not None:
                del self._pinned[name]
                held.free()
            self._pinned[name] = self._device.pin(size)
        return self._pinned[name]

    def _forget(self) -> None:
        while self._placed:
            self._placed.popitem()[1].memory.free()

    def free(self) -> None:
        with ExitStack() as freed:
            for memory in self._memory.values():
                freed.callback(memory.free)
            for pinned in self._pinned.values():
                freed.callback(pinned.free)
            freed.callback(self._forget)


def tables_for(
    signature: Signature, geometry: Geometry, kernel: str, answers: tuple[int, ...]
) -> tuple[dict[str, NDArray[np.int32]], tuple[int, int]]:
    """Make the places and weights for one size of frame as 32-bit numbers, and count the taps down and across."""
    frame, content, size = geometry.frame, geometry.content, signature.size
    down, across = (
        taps_table(*RESIZING[kernel].taps(source, target))
        for source, target in ((frame.height, content.height), (frame.width, content.width))
    )
    tables, aligned = {"rows": down, "columns": across}, signature.align_corners
    if signature.interface != "logits":
        tables["label rows"] = (nearest_lines(frame.height, content.height) + geometry.top).astype(np.int32)
        tables["label columns"] = (nearest_lines(frame.width, content.width) + geometry.left).astype(np.int32)
        return tables, (down.shape[1], across.shape[1])
    height, width = logits_sides(signature, answers)
    if content != size:  # raised to the input's size first, of which the frame has a part
        inner = (
            steps_table(steps_along(height, size.height, aligned)),
            steps_table(steps_along(width, size.width, aligned)),
        )
        height, width = content.height, content.width
        tables["inner rows"] = inner[0][geometry.top : geometry.top + height]
        tables["inner columns"] = inner[1][geometry.left : geometry.left + width]
    tables["label rows"] = steps_table(steps_along(height, frame.height, aligned))
    tables["label columns"] = steps_table(steps_along(width, frame.width, aligned))
    return tables, (down.shape[1], across.shape[1])


def logits_sides(signature: Signature, answers: tuple[int, ...]) -> tuple[int, int]:
    """Give height and width of logits of this shape."""
    return answers[1:3] if signature.logits_last else answers[2:4]  # type: ignore[return-value]


def taps_table(taps: NDArray[np.intp], weights: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.stack([taps.astype(np.int32), weights], axis=2)


def steps_table(steps: LineSteps) -> NDArray[np.int32]:
    first, second = (one.astype(np.int32) for one in (steps.first, steps.second))
    return np.stack([first, second, steps.share.view(np.int32)], axis=1)
