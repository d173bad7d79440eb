"""Runs engines of TensorRT 8.6, 10, 11 and TensorRT-RTX: pinned buffers, two batches in flight, CUDA graphs.

Threads may share a session. It has two slots, each with its own execution context, stream and buffers. One lock guards
the choice of a slot, and a lock per slot admits one thread at a time: two batches overlap, and a third waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import EngineError, RequestError, SegdeployError
from segdeploy.model.card import ModelCard
from segdeploy.model.metadata import read_signature
from segdeploy.model.record import ArtifactRecord
from segdeploy.model.signature import Signature
from segdeploy.picture.image import Frame, LabelMap
from segdeploy.run import cuda
from segdeploy.run.cuda import Owned
from segdeploy.run.device_array import DeviceArray, Lent, lent
from segdeploy.run.device_lane import DeviceLane, start_of_time, timed_once
from segdeploy.run.frames import FrameLabels, load_kernels, why_not_on_gpu
from segdeploy.run.open_model import OpenModel
from segdeploy.run.runtimes import SessionOptions
from segdeploy.run.tensorrt.compatibility import (
    demand_engine,
    demand_not_refuted,
    flavour_for,
    read_engine_record,
    rebuild,
)
from segdeploy.run.tensorrt.engine import Engine
from segdeploy.run.tensorrt.execution import Slot, Ticket
from segdeploy.run.timing import Lanes, Modes, Query

SLOTS = 2


def open_engine(path: Path, options: SessionOptions) -> TensorrtSession:
    return TensorrtSession(path, options.card)


class TensorrtSession(OpenModel):
    """Holds an engine that is ready to run, and its record, by default the one beside it.

    A refuted engine is refused unless its `record` is given, to compare it again. `graphs=False` leaves out CUDA
    graphs, to measure their gain.
    """

    def __init__(
        self,
        path: Path,
        card: ModelCard | None = None,
        *,
        record: ArtifactRecord | None = None,
        graphs: bool = True,
    ) -> None:
        if record is None:
            record = read_engine_record(path)
            demand_not_refuted(record)
        self._record = record
        demand_engine(path, record)
        flavour = flavour_for(record)
        self._gpu = cuda.open_device()
        self.name, self.device = path.name, self._gpu.name
        self._graphs = graphs
        self._lock = Lock()
        self._slots: list[Slot] = []
        self._turn = 0
        self._closed = False
        self._kernels: Mapping[str, Any] | None = None
        self._unload: Callable[[], None] = lambda: None
        self.without_kernels: str | None = None  # why frames are fitted and labelled on the processor
        with self._gpu.active():
            self._engine = Engine(path, record, flavour, self._gpu, graphs=graphs)
        try:
            self._open(card)
        except BaseException:
            self.close()
            raise

    def _open(self, card: ModelCard | None) -> None:
        engine, metadata = self._engine, self._record.engine_facts.metadata
        self.profile = engine.profiles[0]  # those of other sizes have the same batches
        self.signature = read_signature(metadata, engine.inputs, engine.outputs, engine.name, card)
        self.batches = self.profile[0][0], self.profile[1][0]
        # TensorRT 8.6 lets only one execution context use a profile.
        self._alone = not engine.flavour.can_be_typed and (
            self.signature.batch is None or bool(self.signature.sizes)
        )
        self._most_slots = 1 if self._alone else SLOTS
        with self._gpu.active():
            self._slots.append(self._new_slot())

    # ---- running ---------------------------------------------------------------------------------------------------

    @property
    def without_graph(self) -> str | None:
        """Say why kernels are launched one by one; None if a CUDA graph is replayed, or none has been tried yet."""
        if not self._graphs:
            return "CUDA graphs are off"
        return next((slot.without_graph for slot in self._slots if slot.without_graph), None)

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        return self.result(self.submit(inputs))

    def submit(self, inputs: NDArray[Any]) -> Ticket:
        """Start a batch. Two can be under way; a third first waits for the oldest, whose answer is kept."""
        self._demand(inputs)
        ticket = Ticket()

        def start(slot: Slot) -> None:
            slot.start(inputs, ticket)

        self._in_a_slot(start)
        return ticket

    def result(self, ticket: Ticket) -> NDArray[Any]:
        """Return the answer to a batch; only once, since the ticket does not keep it."""
        slot = ticket.slot
        if slot is not None:
            with slot.lock, self._gpu.active():
                if ticket.slot is slot:
                    slot.collect()
        return ticket.take()

    def run_device(self, inputs: Any, out: Any = None) -> DeviceArray:
        """Do as `run`, for an array on the GPU (DLPack or `__cuda_array_interface__`); finished when it returns.

        The input is copied on the GPU into the buffer that the CUDA graph reads. The answer is written into `out`, an
        array on the GPU too, or into new memory, which costs an allocation.
        """
        answers: list[DeviceArray] = []
        self._in_a_slot(lambda slot: answers.append(self._run_device(slot, inputs, out)))
        return answers[0]

    def _run_device(self, slot: Slot, inputs: Any, out: Any) -> DeviceArray:
        given = lent(inputs, slot.stream.handle)
        self._demand(given)
        shape, dtype = slot.answers(given.shape), np.dtype(self.signature.output.dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        if out is None:
            memory = self._gpu.allocate(size)
            answer = DeviceArray(memory.address, shape, dtype, Owned(self._gpu, memory))
        else:
            place = lent(out, slot.stream.handle)
            if (place.shape, place.dtype) != (shape, dtype):
                raise RequestError(f"the answer is {dtype} {shape}, and `out` is {place.dtype} {place.shape}")
            if place.stream is not None:
                slot.stream.wait_for(place.stream)
            answer = DeviceArray(place.address, shape, dtype, (place, out))
        slot.run_on_device(given, answer.address)
        return answer

    # ---- from frames to their labels -------------------------------------------------------------------------------

    def label_frames(self, frames: list[Frame], how: str, kernel: str | None) -> list[LabelMap] | None:
        """Fit and label frames on the GPU; None where that cannot be, and `without_kernels` says why."""
        signature = self.signature.fitting(*frames[0].shape[:2])
        kernels = self._kernels_for(signature)
        if kernels is None:
            return None
        slots = signature.batch or max(len(frames), self.batches[0])
        self.demand_batch(slots)
        answers: list[list[LabelMap] | None] = []

        def work(slot: Slot) -> None:
            slot.frames = slot.frames or FrameLabels(self._gpu, kernels)
            chosen = kernel or signature.resize
            answers.append(slot.frames.label(slot, signature, frames, slots, how, chosen))

        self._in_a_slot(work)
        return answers[0]

    def _kernels_for(self, signature: Signature) -> Mapping[str, Any] | None:
        """Compile the kernels when frames first come; where they cannot be, the processor fits and labels."""
        with self._lock, self._gpu.active():
            if self._kernels is None and self.without_kernels is None:
                self.without_kernels = why_not_on_gpu(signature)
                try:
                    if self.without_kernels is None:
                        self._kernels, self._unload = load_kernels(self._gpu, signature)
                except SegdeployError as error:
                    self.without_kernels = str(error)
        return self._kernels

    # ---- timed by its parts, for segdeploy.bench -------------------------------------------------------------------

    @contextmanager
    def lanes(self, inputs: NDArray[Any], modes: Modes) -> Iterator[Lanes]:
        """Make lanes; `graphs` of the session decides whether they replay a CUDA graph, not `modes`."""
        self._demand(inputs)
        with ExitStack() as held:
            held.enter_context(self._gpu.active())
            slots = [held.enter_context(self._held(place)) for place in range(modes.streams)]
            for slot in slots:
                slot.load(inputs)
                slot.warm()
            gpu = self._gpu
            start = start_of_time(gpu.event, slots[0].stream)
            lanes = []
            for slot in slots:
                streams = gpu.stream(), slot.stream, gpu.stream()
                lanes.append(DeviceLane(slot, streams, gpu.event, modes, start))
                held.callback(lanes[-1].free)
            yield Lanes(lanes, self._ran(modes))

    def run_timed(self, inputs: NDArray[Any]) -> tuple[NDArray[Any], Query]:
        self._demand(inputs)
        with self._gpu.active(), self._held(0) as slot:
            slot.load(inputs)
            query = timed_once(slot, slot.stream, self._gpu.event)
            return slot.answer(), query

    @contextmanager
    def _held(self, place: int) -> Iterator[Slot]:
        """Hold the slot of this number, which no other thread gets meanwhile."""
        with self._lock:
            self._demand_open()
            while len(self._slots) <= place:
                if self._alone:
                    raise RequestError(
                        f"{self._engine.flavour} runs one stream of an engine with an open batch, and {place + 1} were"
                        " asked for; leave --streams out, or build the engine for one batch size"
                    )
                self._slots.append(self._new_slot())
            slot = self._slots[place]
        with slot.lock:
            slot.collect()
            try:
                yield slot
            finally:
                slot.abandon()

    def _ran(self, modes: Modes) -> dict[str, Any]:
        graph = "on" if self.without_graph is None else f"off: {self.without_graph}"
        return {
            "clock": "device",
            "transfers": "included" if modes.transfers else "excluded",
            "cuda_graph": "on, by TensorRT-RTX itself"
            if self._engine.captures_by_itself and self._graphs
            else graph,
            "wait": "spin" if modes.spin else "blocking",
            "streams": modes.streams,
        }

    def _in_a_slot(self, work: Callable[[Slot], None]) -> None:
        slot = self._take_slot()
        with slot.lock, self._gpu.active():
            self._demand_open()
            slot.collect()
            try:
                work(slot)
            except BaseException:
                slot.abandon()
                raise

    def _take_slot(self) -> Slot:
        """Choose an idle slot, else a new one, else the one that has been under way for longest."""
        with self._lock:
            self._demand_open()
            slot = next((one for one in self._slots if not one.taken), None)
            if slot is None and len(self._slots) < self._most_slots:
                slot = self._further_slot()
            if slot is None:
                slot = min(self._slots, key=lambda one: one.turn)
            slot.taken = True
            slot.turn = self._turn = self._turn + 1
            return slot

    def _demand_open(self) -> None:
        if self._closed:
            raise RequestError(f"the session of {self._engine.name} is closed")

    def _demand(self, inputs: NDArray[Any] | Lent) -> None:
        self.signature.demand_input(inputs)
        self.demand_batch(inputs.shape[0])

    def demand_batch(self, batch: int) -> None:
        least, best, most = (shape[0] for shape in self.profile)
        if not least <= batch <= most:
            wider = rebuild(self._record, batch=f"{min(least, batch)}:{best}:{max(most, batch)}")
            raise RequestError(
                f"a batch of {batch} is outside the profile of {self._engine.name}, which holds {least} to {most}"
                f" (fastest at {best}). For more build it again: {wider}"
            )

    # ---- making and freeing ----------------------------------------------------------------------------------------

    def _further_slot(self) -> Slot | None:
        """Make another slot; None where memory is too small, as on a small Jetson: batches then do not overlap."""
        try:
            with self._gpu.active():
                slot = self._new_slot()
        except EngineError:
            self._most_slots = len(self._slots)
            return None
        self._slots.append(slot)
        return slot

    def _new_slot(self) -> Slot:
        engine = self._engine
        captures = self._graphs and not engine.captures_by_itself
        return Slot(
            self._gpu,
            engine.context(),
            self.signature,
            [largest for _, _, largest in engine.profiles],
            engine.outputs,
            captures,
            engine.said,
        )

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            slots = list(self._slots)
        with self._gpu.active():
            try:
                for slot in slots:
                    with slot.lock:
                        slot.collect()
                if any(slot.has_run for slot in slots):
                    self._engine.keep_compiled()
            finally:
                with ExitStack() as freed:
                    freed.callback(self._engine.free)
                    freed.callback(self._unload)
                    for slot in slots:
                        freed.callback(self._free, slot)

    def _free(self, slot: Slot) -> None:
        with slot.lock:
            slot.free()
